"""Folders as a PACS exports them: several images under one UID, objects that are no slices, a tilted gantry."""

import numpy as np
import pytest
from pydicom.uid import generate_uid

from tests.volumes.dicom.series_files import images, volume, write
from ukbob_jax.errors import EmptyError, FileError
from ukbob_jax.volumes import dicom
from ukbob_jax.volumes.dicom import parts, series
from ukbob_jax.volumes.dicom.slices import read_slices

SECONDARY_CAPTURE, SEGMENTATION = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.66.4"
UID = "1.2.3.4"


def both(folder, first, second, move_mm=0.0):
    """Two images under one UID, that differ in tags and values; the second is moved along z."""
    one, other = volume(seed=0), volume(seed=1)
    moved = images(other, SeriesInstanceUID=UID, **second)
    for image in moved:
        x, y, z = (float(v) for v in image.dataset.ImagePositionPatient)
        image.dataset.ImagePositionPatient = [x, y, z + move_mm]
    write(folder, [*images(one, SeriesInstanceUID=UID, **first), *moved])
    return one, other


@pytest.mark.parametrize("move_mm", [0.0, 2.0], ids=["same places", "between"])
@pytest.mark.parametrize(
    "first, second, label",
    [
        ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}, "acquisition 2"),
        ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}, "time point 2"),
        ({"EchoTime": 2.46}, {"EchoTime": 3.69}, "echo time 3.69 ms"),
        ({"DiffusionBValue": 50.0}, {"DiffusionBValue": 800.0}, "b-value 800 s/mm2"),
        ({"ImageType": ["DERIVED", "PRIMARY", "W"]}, {"ImageType": ["DERIVED", "PRIMARY", "F"]}, "image type F"),
    ],
)  # fmt: skip
def test_images_under_one_uid_are_told_apart_by_the_tag_that_differs(first, second, label, move_mm, tmp_path):
    truths = both(tmp_path, first, second, move_mm)
    with pytest.raises(
        FileError, match=f"2 images: .*{label}, 7 x 6, 5 slices, 1.25 x 2.5 x 4 mm.*series="
    ) as error:
        dicom.read_series(tmp_path)
    assert f"{UID}:1 (" in str(error.value) and f"{UID}:2 (" in str(error.value)
    found = [dicom.read_series(tmp_path, f"{UID}:{number}").array for number in (1, 2)]
    expected = [truth.to_ras().array for truth in truths]
    assert any(np.array_equal(found[0], e) for e in expected) and any(
        np.array_equal(found[1], e) for e in expected
    )
    assert not np.array_equal(*found)
    with pytest.raises(FileError, match="2 images"):
        dicom.read_series(tmp_path, UID)


@pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:The value length")
def test_a_damaged_header_does_not_break_the_line(tmp_path):
    kinds = ({"ImageType": ["DERIVED", "PRIMARY", kind]} for kind in ("M\n", "P\x1b[31m"))
    both(tmp_path, *({**kind, "SeriesDescription": "two\nlines\0"} for kind in kinds))
    with pytest.raises(FileError) as caught:
        dicom.read_series(tmp_path)
    assert str(caught.value).isprintable() and "image type P [31m" in str(caught.value)


def test_an_archive_never_mixes_images_under_one_uid(tmp_path):
    both(tmp_path, {"EchoTime": 2.46}, {"EchoTime": 3.69}, 2.0)
    slices = [one for path in sorted(tmp_path.iterdir()) for one in read_slices(path.read_bytes(), path.name)]
    built, defects = series.assemble(slices, "archive")
    assert not built and "2 images under one UID (echo time" in defects[0].reason


def test_acquisitions_one_after_the_other_are_one_image(tmp_path):
    found = images(volume())
    for number, image in enumerate(found):
        image.dataset.AcquisitionNumber = 1 + (number > 2)
    assert dicom.read_series(write(tmp_path, found)).shape == volume().shape


def foreign(folder, kind, **tags):
    [one, *_] = images(volume(), SOPClassUID=kind, SeriesInstanceUID=generate_uid(), **tags)
    if kind == SECONDARY_CAPTURE:
        del one.dataset.ImagePositionPatient
    return write(folder, [one])


@pytest.mark.parametrize(
    "kind, name, tags",
    [
        (SECONDARY_CAPTURE, "Secondary Capture Image", {}),
        (SEGMENTATION, "Segmentation", {"NumberOfFrames": 12}),
    ],
)
def test_objects_that_are_no_slices_are_left_out_with_a_warning(kind, name, tags, tmp_path):
    truth = volume()
    write(tmp_path / "series", images(truth))
    foreign(tmp_path / "other", kind, **tags)
    with pytest.warns(UserWarning, match=rf"left out 1 objects that are no slices: {name} \(1\)\."):
        found = dicom.read_series(tmp_path)
    np.testing.assert_array_equal(found.array, truth.to_ras().array)
    with pytest.warns(UserWarning, match="left out"), pytest.raises(EmptyError, match="no DICOM image"):
        dicom.read_series(tmp_path / "other")


def test_a_named_series_is_read_whatever_the_others_are(tmp_path):
    truth = volume()
    write(tmp_path / "good", images(truth, SeriesInstanceUID=UID))
    write(tmp_path / "enhanced", images(volume(), NumberOfFrames=40)[:1])
    found = dicom.read_series(tmp_path, UID)
    np.testing.assert_array_equal(found.array, truth.to_ras().array)
    with pytest.raises(FileError, match="40 frames"):
        dicom.read_series(tmp_path)


@pytest.mark.parametrize("degrees", [15.0, -10.0])
def test_a_tilted_gantry_is_straightened(degrees, tmp_path):
    """Values that are linear in the world stay so: straight slices hold what lies at their own places."""
    plane = np.array([3.0, -2.0, 1.5])  # value per mm of world position
    truth = volume()
    shear = truth.affine.copy()
    shear[1, 2] = np.tan(np.deg2rad(degrees)) * shear[2, 2]
    index = np.stack(np.meshgrid(*map(np.arange, truth.shape), indexing="ij"), -1)
    world = index @ shear[:3, :3].T + shear[:3, 3]
    values = np.rint(8 * (world @ plane) + 2000).astype(np.int16)
    found = images(type(truth)(values, truth.affine))
    for k, image in enumerate(found):
        x, y, z = (float(v) for v in image.dataset.ImagePositionPatient)
        image.dataset.ImagePositionPatient = [x, y - k * shear[1, 2], z]
    with pytest.warns(UserWarning, match=rf"tilted by {abs(degrees):.1f} degrees"):
        straight = dicom.read_series(write(tmp_path, found))
    assert np.allclose(straight.affine[:3, :3], np.diag(straight.spacing_mm)) and straight.shape[2] == 5
    index = np.stack(np.meshgrid(*map(np.arange, straight.shape), indexing="ij"), -1)
    world = index @ straight.affine[:3, :3].T + straight.affine[:3, 3]
    places = (world - shear[:3, 3]) @ np.linalg.inv(shear[:3, :3]).T
    inside = ((places >= -1e-6) & (places <= np.array(truth.shape) - 1 + 1e-6)).all(-1)
    assert inside.sum() > 0.8 * truth.array.size
    np.testing.assert_allclose(
        straight.array[inside], (8 * (world @ plane) + 2000)[inside], atol=1.0
    )  # rounded values
    beyond = ((places < -0.51) | (places > np.array(truth.shape) - 0.49)).any(-1)
    assert beyond.any() and (straight.array[beyond] == values.min()).all()


def test_slices_are_split_in_the_order_in_which_they_appear(tmp_path):
    both(tmp_path, {"EchoTime": 2.46}, {"EchoTime": 3.69})
    slices = [one for path in sorted(tmp_path.iterdir()) for one in read_slices(path.read_bytes(), path.name)]
    found = parts.split(slices)
    assert [part.label for part in found] == list(
        dict.fromkeys(f"echo time {s.tags['echo time']}" for s in slices)
    )
    assert sum(len(part.slices) for part in found) == len(slices)
