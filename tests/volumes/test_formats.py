"""Formats other than NIfTI: what is written reads back, what is damaged is refused in one line."""

import argparse
import sys

import numpy as np
import pytest

import ukbob_jax as bob
from tests.volumes.grids import oblique
from ukbob_jax.commands import check
from ukbob_jax.errors import FileError, GeometryError, ValuesError
from ukbob_jax.volumes import case
from ukbob_jax.volumes.formats import itk
from ukbob_jax.volumes.nifti import read_label_names

WRITTEN = [".nrrd", ".seg.nrrd", ".mha", ".mgz", ".mgh"]


def label() -> np.ndarray:
    array = np.zeros((6, 5, 4), np.uint8)
    array[1:3, 1:4, 1:3], array[4, 2, 2] = 1, 7
    return array


def need(ending: str):
    if ending not in (".mgz", ".mgh"):
        pytest.importorskip("SimpleITK")


@pytest.mark.parametrize("ending", WRITTEN)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_is_written_reads_back_where_it_was(ending, axis, tmp_path):
    need(ending)
    volume = bob.Volume(label(), oblique(axis))
    bob.write_volume(tmp_path / f"a{ending}", volume, {1: "liver", 7: "spleen"})
    back = bob.read_volume(tmp_path / f"a{ending}", kind="label", num_classes=8)
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(back.affine, volume.affine, atol=2e-5)
    assert back.array.dtype == np.uint8
    if ending == ".seg.nrrd":
        assert read_label_names(tmp_path / "a.seg.nrrd") == {1: "liver", 7: "spleen"}
    assert [p.name for p in tmp_path.iterdir()] == [f"a{ending}"]


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_channels_read_back_and_need_asking_for(ending, tmp_path):
    need(ending)
    array = np.arange(6 * 5 * 4 * 3, dtype=np.float32).reshape(6, 5, 4, 3)
    bob.write_volume(tmp_path / f"a{ending}", bob.Volume(array, oblique(1)))
    np.testing.assert_array_equal(bob.read_volume(tmp_path / f"a{ending}", channels=True).array, array)
    with pytest.raises(GeometryError, match="a 4-D image with 3 volumes"):
        bob.read_volume(tmp_path / f"a{ending}")


@pytest.mark.parametrize("ending", WRITTEN)
def test_a_damaged_file_is_refused_in_one_line(ending, tmp_path, capfd):
    need(ending)
    path = tmp_path / f"a{ending}"
    rng = np.random.default_rng(0)
    bob.write_volume(path, bob.Volume(rng.integers(0, 99, (12, 12, 12)).astype(np.int16), oblique(1)))
    data = path.read_bytes()
    for bad in (data[: len(data) // 2], data[:40], b"", b"nothing of the kind"):
        path.write_bytes(bad)
        with pytest.raises((FileError, GeometryError)) as caught:
            bob.read_volume(path)
        assert path.name in str(caught.value) and "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(FileError, match="no such file"):
        bob.read_volume(path)
    if ending != ".mha":  # ITK's MetaImage prints from C++, whatever it is told
        assert capfd.readouterr() == ("", "")


def test_overlapping_layers_are_refused_by_name_and_read_one_by_one(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    first, second = label(), np.roll(label(), 1, 0)
    image = sitk.GetImageFromArray(np.stack([first, second], -1).transpose(2, 1, 0, 3).copy(), isVector=True)
    for n, (name, value, layer) in enumerate([("liver", 1, 0), ("spleen", 7, 0), ("tumour", 1, 1)]):
        for field, text in (("Name", name), ("LabelValue", value), ("Layer", layer)):
            image.SetMetaData(f"Segment{n}_{field}", str(text))
    sitk.WriteImage(image, tmp_path / "a.seg.nrrd")
    with pytest.raises(ValuesError, match=r"in 2 layers \(layer 0: liver, spleen; layer 1: tumour\)"):
        bob.read_volume(tmp_path / "a.seg.nrrd", kind="label")
    layers = itk.layers(tmp_path / "a.seg.nrrd")
    np.testing.assert_array_equal(layers[0].array, first)
    np.testing.assert_array_equal(layers[1].array, second)
    assert [dict(layer.names) for layer in layers] == [{1: "liver", 7: "spleen"}, {1: "tumour"}]


def test_whole_numbers_of_segments_may_be_written_with_a_point(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(label().transpose(2, 1, 0).copy())
    image.SetMetaData("Segment0_Name", "liver")
    for value, names in (
        ("2.0", {2: "liver"}),
        ("2", {2: "liver"}),
        ("2.5", None),
        ("two", None),
        ("inf", None),
    ):
        image.SetMetaData("Segment0_LabelValue", value)
        sitk.WriteImage(image, tmp_path / "a.seg.nrrd")
        if names:
            assert read_label_names(tmp_path / "a.seg.nrrd") == names
            continue
        with pytest.raises(FileError, match=rf"a\.seg\.nrrd: Segment0 has the LabelValue '{value}'"):
            bob.read_volume(tmp_path / "a.seg.nrrd", kind="label")


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.mha").write_bytes(b"ObjectType = Image\n")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(FileError, match=r'a\.mha: .* needs SimpleITK: pip install "ukbob-jax\[formats\]"'):
        bob.read_volume(tmp_path / "a.mha")


def test_vector_images_of_itk_are_channels(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    arrays = [np.full((4, 5, 6), n, np.float32) + np.arange(6) for n in range(4)]
    image = sitk.Compose([sitk.GetImageFromArray(array) for array in arrays])
    sitk.WriteImage(image, tmp_path / "a.nii.gz")
    found = bob.read_volume(tmp_path / "a.nii.gz", channels=True).array
    np.testing.assert_array_equal(found, np.stack(arrays, -1).transpose(2, 1, 0, 3))


def test_every_ending_is_listed_by_name(tmp_path):
    for ending in case.ENDINGS:
        path = tmp_path / f"scan{ending}"
        assert case.is_scan(path) and case.stem(path) == "scan"
    (tmp_path / "a.mha").touch()
    (tmp_path / "b.seg.nrrd").touch()
    assert list(case.scans(tmp_path)) == ["a", "b"]


def test_the_check_command_reads_them(tmp_path, capsys):
    need(".mha")
    bob.write_volume(tmp_path / "a.mha", bob.Volume(label(), oblique(1)))
    for data in (tmp_path / "a.mha", tmp_path):
        parser = argparse.ArgumentParser()
        check.add_options(parser)
        check.run(parser.parse_args([str(data)]))
    assert capsys.readouterr().out.count("ok   a: 5 x 6 x 4 voxels, 2 x 1.5 x 3.1 mm, RAS") == 2


def test_every_flipped_bit_of_a_compressed_meta_image_is_refused(tmp_path):
    need(".mha")
    path = tmp_path / "a.mha"
    bob.write_volume(path, bob.Volume(label(), oblique(1)))
    sound = path.read_bytes()
    start = sound.index(b"ElementDataFile = LOCAL") + 24
    for place in range(start + 2, len(sound), 5):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 4]) + sound[place + 1 :])
        with pytest.raises(FileError, match=r"a\.mha: its voxels are (damaged|cut short)"):
            bob.read_volume(path, kind="label")
    path.write_bytes(sound[:-3])
    with pytest.raises(FileError, match="cut short or damaged"):
        bob.read_volume(path, kind="label")


def test_voxels_beside_the_header_are_checked_too(tmp_path):
    need(".mhd")
    header = (
        "ObjectType = Image\nNDims = 3\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 2 2 3\n"
        "DimSize = 2 3 4\nElementType = MET_SHORT\nElementDataFile = a.raw\n"
    )
    (tmp_path / "a.mhd").write_text(header)
    (tmp_path / "a.raw").write_bytes(np.arange(24, dtype="<i2").tobytes())
    assert bob.read_volume(tmp_path / "a.mhd").array[1, 2, 3] == 23
    (tmp_path / "a.raw").write_bytes(bytes(40))
    with pytest.raises(FileError, match=r"a\.raw: cut short: 40 bytes of voxels, 48 are declared"):
        bob.read_volume(tmp_path / "a.mhd")


NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 3 4\nendian: little\nencoding: raw\n{}\n\n"


@pytest.mark.parametrize(
    "geometry", ["spacings: 2 2 3", "space: scanner-xyz\nspace directions: (2,0,0) (0,2,0) (0,0,3)"]
)
def test_a_file_that_says_nothing_of_its_orientation_is_taken_as_ras_only_when_asked(geometry, tmp_path):
    need(".nrrd")
    path = tmp_path / "a.nrrd"
    path.write_bytes(NRRD.format(geometry).encode() + np.arange(24, dtype="<i2").tobytes())
    with pytest.raises(GeometryError, match=r"orientation unknown .*assume_ras=True"):
        bob.read_volume(path)
    with pytest.warns(UserWarning, match="taken as RAS as asked"):
        np.testing.assert_array_equal(bob.read_volume(path, assume_ras=True).affine, np.diag([2, 2, 3, 1]))


def test_lengths_in_another_unit_than_mm_are_refused(tmp_path):
    need(".nrrd")
    geometry = 'space: left-posterior-superior\nspace directions: (.2,0,0) (0,.2,0) (0,0,.3)\nspace units: "cm" "cm" "cm"'
    path = tmp_path / "a.nrrd"
    path.write_bytes(NRRD.format(geometry).encode() + np.arange(24, dtype="<i2").tobytes())
    with pytest.raises(GeometryError, match="space units are cm; convert them to mm"):
        bob.read_volume(path)


def test_what_mgh_cannot_hold_is_refused_and_an_unset_orientation_flag_noticed(tmp_path):
    path = tmp_path / "a.mgh"
    bob.write_volume(path, bob.Volume(label()[..., None], oblique(1)))
    assert bob.read_volume(path).array.shape == (6, 5, 4)
    data = bytearray(path.read_bytes())
    data[28:30] = b"\0\0"
    path.write_bytes(data)
    with pytest.raises(GeometryError, match="goodRASFlag is 0"):
        bob.read_volume(path)
    with pytest.raises(ValuesError, match="MGH holds integers up to 2147483647"):
        bob.write_volume(path, bob.Volume(np.full((2, 2, 2), 3_000_000_000, np.uint32), oblique(1)))


def test_values_beyond_float32_are_not_written_as_infinity(tmp_path):
    with pytest.raises(ValuesError, match=r"beyond 3\.4e38"):
        bob.write_volume(tmp_path / "a.nii.gz", bob.Volume(np.full((2, 2, 2), 1e300), oblique(1)))
