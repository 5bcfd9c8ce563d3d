import gzip
import os

import nibabel as nib
import numpy as np
import pytest

import ukbob_jax as bob
from tests.volumes import malformed
from tests.volumes.test_volume import ORIENTATIONS, noise, oblique, straight
from ukbob_jax.errors import ConfigError, FileError, GeometryError, ValuesError
from ukbob_jax.volumes.nifti import read_header, read_label_names


def stored_as(codes: str, shape=(5, 4, 3)) -> bob.Volume:
    """A volume with the given voxel order, slightly oblique."""
    turned = straight()
    turned[:3, :3] = np.linalg.qr(np.eye(3) + 0.1)[0] @ np.diag([-1.0, -1, 1]) @ turned[:3, :3]
    change = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(turned), nib.orientations.axcodes2ornt(codes)
    )
    array = nib.orientations.apply_orientation(noise(shape), change)
    return bob.Volume(array, turned @ nib.orientations.inv_ornt_aff(change, shape), (2, 0))


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_a_written_file_reads_back_as_it_was_in_all_48_orientations(codes, tmp_path):
    volume = stored_as(codes)
    assert volume.orientation == codes
    bob.write_volume(tmp_path / "a.nii.gz", volume)
    back = bob.read_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(back.affine, volume.affine, rtol=0, atol=1e-5)  # the header holds float32
    bob.write_volume(tmp_path / "b.nii.gz", back)
    again = bob.read_volume(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(again.affine, back.affine)


@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1), (4, 3)])
def test_header_codes_are_repeated_and_other_readers_agree(codes, tmp_path):
    volume = bob.Volume(noise((5, 4, 3)), oblique(1), codes)
    bob.write_volume(tmp_path / "a.nii", volume)
    other = nib.load(tmp_path / "a.nii")
    assert (int(other.header["sform_code"]), int(other.header["qform_code"])) == codes
    assert other.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(other.affine, volume.affine, atol=1e-4)
    np.testing.assert_array_equal(other.dataobj, volume.array)
    assert bob.read_volume(tmp_path / "a.nii").codes == codes


def test_a_code_of_no_standard_is_repeated_too(tmp_path):
    bob.write_volume(tmp_path / "a.nii", bob.Volume(noise((5, 4, 3)), straight(), (1, 9)))
    assert bob.read_volume(tmp_path / "a.nii").codes == (1, 9)


def test_a_file_without_orientation_reads_back_as_assumed(tmp_path):
    (tmp_path / "a.nii").write_bytes(malformed.nii(malformed.image(), edit=malformed.put((252, "2h", 0, 0))))
    with pytest.warns(UserWarning, match="orientation unknown"):
        volume = bob.read_volume(tmp_path / "a.nii", assume_ras=True)
    assert volume.orientation == "RAS" and volume.codes == (0, 0)
    bob.write_volume(tmp_path / "b.nii", volume)
    with pytest.warns(UserWarning, match="orientation unknown"):
        again = bob.read_volume(tmp_path / "b.nii", assume_ras=True)
    np.testing.assert_array_equal(again.affine, volume.affine)


@pytest.mark.parametrize(
    "given, stored",
    [
        (np.float64, np.float32),
        (np.float16, np.float32),
        (bool, np.uint8),
        (np.uint8, np.uint8),
        (np.int16, np.int16),
        (np.uint16, np.uint16),
        (np.int64, np.uint8),
    ],
)
def test_voxels_are_stored_in_a_type_that_readers_take(given, stored, tmp_path):
    array = noise((5, 4, 3)).astype(given)
    bob.write_volume(tmp_path / "a.nii.gz", bob.Volume(array, straight()))
    other = nib.load(tmp_path / "a.nii.gz")
    assert other.get_data_dtype() == stored
    np.testing.assert_array_equal(other.get_fdata(), array)


def test_voxels_that_nifti_cannot_hold_are_refused_and_nothing_is_written(tmp_path):
    for array in (np.zeros((2, 2, 2), complex), np.full((2, 2, 2), 2**40)):
        with pytest.raises(ValuesError, match=r"a\.nii"):
            bob.write_volume(tmp_path / "a.nii", bob.Volume(array, np.eye(4)))
    with pytest.raises(GeometryError, match="32767"):
        bob.write_volume(tmp_path / "a.nii", bob.Volume(np.zeros((40000, 1, 1), np.uint8), np.eye(4)))
    with pytest.raises(FileError, match=r"expected \.nii"):
        bob.write_volume(tmp_path / "a.img", bob.Volume(np.zeros((2, 2, 2)), np.eye(4)))
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.nii.gz"
    bob.write_volume(path, bob.Volume(noise((3, 3, 3)), np.eye(4)))
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FileError, match="No space left"):
        bob.write_volume(path, bob.Volume(noise((3, 3, 3), 1), np.eye(4)))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.nii.gz"]


def test_the_same_volume_gives_the_same_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        bob.write_volume(tmp_path / name, bob.Volume(noise((3, 3, 3)), np.eye(4)), {1: "liver"})
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_label_names_travel_in_the_header(ending, tmp_path):
    names = {72: "bone <other> & more", 1: "spleen", 0: "background"}
    volume = bob.Volume(malformed.label(), straight())
    bob.write_volume(tmp_path / f"seg{ending}", volume, names)
    assert read_label_names(tmp_path / f"seg{ending}") == names
    back = bob.read_volume(tmp_path / f"seg{ending}", kind="label", num_classes=73)
    np.testing.assert_array_equal(back.array, volume.array)
    text = nib.load(tmp_path / f"seg{ending}").header.extensions[0].get_content()
    assert b'<Label Key="1" ' in bytes(text) and b"<VolumeType>Label" in bytes(text)


def test_a_file_without_names_has_none(tmp_path):
    bob.write_volume(tmp_path / "seg.nii", bob.Volume(malformed.label(), straight()))
    assert read_label_names(tmp_path / "seg.nii") == {}


def test_channels_are_the_last_axis(tmp_path):
    array = noise((5, 4, 3, 2))
    bob.write_volume(tmp_path / "a.nii", bob.Volume(array, straight()))
    np.testing.assert_array_equal(bob.read_volume(tmp_path / "a.nii", channels=True).array, array)
    with pytest.raises(GeometryError, match="2 volumes"):
        bob.read_volume(tmp_path / "a.nii")
    bob.write_volume(tmp_path / "b.nii", bob.Volume(array[..., 0], straight()))
    assert bob.read_volume(tmp_path / "b.nii", channels=True).array.shape == (5, 4, 3, 1)


def test_every_flipped_bit_of_a_gzip_file_is_noticed(tmp_path):
    path = tmp_path / "a.nii.gz"
    good = malformed.gz(malformed.nii(malformed.image()))
    for at in range(10, len(good), 37):  # the ten bytes before are the gzip header: name and time, not data
        path.write_bytes(malformed.flip(good, at))
        with pytest.raises(FileError, match=r"a\.nii\.gz: "):
            bob.read_volume(path)


def test_a_small_file_that_inflates_without_end_is_refused(tmp_path):
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(malformed.nii(malformed.image()) + b"\0" * 2**23))
    with pytest.raises(FileError, match="far more than its header declares"):
        bob.read_volume(path)


def test_unknown_labels_are_listed_with_their_voxels(tmp_path):
    array = malformed.label()
    array[0, 0, :2] = (91, 255)
    (tmp_path / "a.nii").write_bytes(malformed.nii(array))
    with pytest.raises(ValuesError, match=r"91 \(1 voxel\).*0 to 72"):
        bob.read_volume(tmp_path / "a.nii", kind="label", num_classes=73)
    array[0, 0, 0] = 72
    (tmp_path / "a.nii").write_bytes(malformed.nii(array))
    assert bob.read_volume(tmp_path / "a.nii", kind="label", num_classes=73).array[0, 0, 1] == 255


def test_a_wide_label_map_needs_a_class_count_to_be_refused(tmp_path):
    (tmp_path / "a.nii").write_bytes(malformed.nii(malformed.changed(malformed.label(), np.int16, 300, 3)))
    assert bob.read_volume(tmp_path / "a.nii", kind="label").array.dtype == np.uint16
    with pytest.raises(ValuesError, match=r"300 \(1 voxel\)"):
        bob.read_volume(tmp_path / "a.nii", kind="label", num_classes=73)
    (tmp_path / "a.nii").write_bytes(malformed.nii(malformed.changed(malformed.label(), np.int32, 70000, 3)))
    with pytest.raises(ValuesError, match="70000"):
        bob.read_volume(tmp_path / "a.nii", kind="label")


def test_non_finite_voxels_become_zero_only_when_asked(tmp_path):
    (tmp_path / "a.nii").write_bytes(
        malformed.nii(malformed.changed(malformed.image(), np.float32, np.nan, 1))
    )
    with pytest.raises(ValuesError, match=r"1 of 960 voxels.*\(1, 1, 1\)"):
        bob.read_volume(tmp_path / "a.nii")
    with pytest.warns(UserWarning, match="set to zero"):
        volume = bob.read_volume(tmp_path / "a.nii", nan="zero")
    assert volume.array[1, 1, 1] == 0 and np.isfinite(volume.array).all()


def test_paths_are_text_or_path_and_must_be_readable(tmp_path, monkeypatch):
    path = tmp_path / "a.nii"
    path.write_bytes(malformed.nii(malformed.image()))
    assert bob.read_volume(str(path)).shape == malformed.SHAPE
    with pytest.raises(ConfigError, match="kind"):
        bob.read_volume(path, kind="mask")
    with pytest.raises(FileError, match="a folder; expected"):
        bob.read_volume(tmp_path)

    def denied(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", denied)
    with pytest.raises(FileError, match=r"a\.nii: cannot be read: Permission denied"):
        bob.read_volume(path)


def test_the_voxels_that_are_read_can_be_changed(tmp_path):
    (tmp_path / "a.nii").write_bytes(malformed.nii(malformed.image()))
    volume = bob.read_volume(tmp_path / "a.nii")
    volume.array[0, 0, 0] = 5
    assert volume.array[0, 0, 0] == 5


def test_a_file_of_many_gzip_members_is_read_as_one(tmp_path):
    """As bgzip writes them; with zeros between."""
    plain = malformed.nii(malformed.image())
    members = [gzip.compress(plain[low : low + 360]) for low in range(0, len(plain), 360)]
    path = tmp_path / "many.nii.gz"
    path.write_bytes(b"\0\0".join(members))
    whole = tmp_path / "one.nii"
    whole.write_bytes(plain)
    np.testing.assert_array_equal(bob.read_volume(path).array, bob.read_volume(whole).array)
    path.write_bytes(b"".join(members)[:-3])
    with pytest.raises(FileError, match="truncated"):
        bob.read_volume(path)


def test_a_header_that_is_only_looked_at_gives_no_warnings(tmp_path):
    image = nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(image, tmp_path / "a.nii.gz")
    assert read_header(tmp_path / "a.nii.gz").codes == (0, 0)
    assert read_label_names(tmp_path / "a.nii.gz") == {}
