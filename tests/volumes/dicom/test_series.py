"""DICOM series to volumes: geometry, and refusals that name position and UID."""

import numpy as np
import pytest

from tests.volumes import ukb_archive
from tests.volumes.dicom.series_files import images, volume, write
from ukbob_jax.errors import EmptyError, FileError, GeometryError
from ukbob_jax.volumes import dicom


def rotations() -> list[np.ndarray]:
    """Axial, sagittal and coronal stacks, and an oblique one; all right-handed as seen from DICOM's slice normal."""
    angle = np.deg2rad(20)
    oblique = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    axes = [np.eye(3), np.eye(3)[[1, 2, 0]], np.eye(3)[[2, 0, 1]], np.diag([-1.0, -1.0, 1.0]), oblique]
    return [directions.T for directions in axes]


@pytest.mark.parametrize("directions", rotations(), ids=["axial", "sagittal", "coronal", "turned", "oblique"])
def test_series_lies_where_its_slices_say(directions, tmp_path):
    truth = volume(directions)
    found = dicom.read_series(write(tmp_path / "series", images(truth)))
    expected = truth.to_ras()
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-6)  # mm; headers have 10 digits
    np.testing.assert_array_equal(found.array, expected.array)
    assert found.array.dtype == np.int16 and found.orientation == "RAS"


def test_nibabel_reads_the_same_from_the_series_as_nifti(tmp_path):
    from ukbob_jax.volumes.nifti import read_volume, write_volume

    found = dicom.read_series(write(tmp_path / "series", images(volume())))
    write_volume(tmp_path / "scan.nii.gz", found)
    again = read_volume(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(again.array, found.array)
    np.testing.assert_allclose(again.affine, found.affine, atol=1e-5)


def test_simpleitk_reads_the_same_grid(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    folder = write(tmp_path / "series", images(volume()))
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(names)
    corner = np.diag([-1.0, -1.0, 1.0]) @ np.array(image.TransformIndexToPhysicalPoint((1, 2, 3)))
    found = dicom.read_series(folder)
    index = np.linalg.solve(found.affine, [*corner, 1])[:3]
    np.testing.assert_allclose(index, np.rint(index), atol=1e-5)
    assert found.array[tuple(np.rint(index).astype(int))] == sitk.GetArrayFromImage(image)[3, 2, 1]


def test_file_exported_twice_counts_once(tmp_path):
    found = images(volume())
    np.testing.assert_array_equal(
        dicom.read_series(write(tmp_path / "twice", [*found, *found])).array,
        dicom.read_series(write(tmp_path / "once", found)).array,
    )


def shifted(found: list[ukb_archive.Image], number: int, mm: float, axis: int) -> list[ukb_archive.Image]:
    place = [float(v) for v in found[number].dataset.ImagePositionPatient]
    place[axis] += mm
    found[number].dataset.ImagePositionPatient = place
    return found


def replaced(found: list[ukb_archive.Image], number: int, **changes) -> list[ukb_archive.Image]:
    found[number] = ukb_archive.altered(found[number], **changes)
    return found


DAMAGED = {
    "missing": (lambda f: f[:2] + f[3:], r"1 slice missing between 144\.75 and 152\.75 \(gap 8\.00\)"),
    "two missing": (lambda f: [f[0], f[1], f[4]], "2 slices missing"),
    "uneven": (lambda f: shifted(f, 2, 1.5, 2), r"unevenly spaced.*where slices lie 4\.00 mm"),
    "doubled": (lambda f: replaced([*f, f[2]], 5), "two slices at 148.75 mm"),
    "one UID, two images": (lambda f: [*f, f[2]._replace(pixels=f[2].pixels + 1)], "two slices at 148.75 mm"),
    "sideways": (lambda f: shifted(f, 2, 3.0, 0), "shifted sideways by 3.00 mm"),
    "single": (lambda f: f[:1], "single slice"),
    "other size": (lambda f: replaced(f, 1, pixels=np.ones((5, 5), np.uint16)), "different sizes"),
    "other spacing": (lambda f: replaced(f, 1, PixelSpacing=["2.5", "1.3"]), "different pixel spacings"),
    "other contrast": (lambda f: replaced(f, 1, SeriesDescription="Dixon_noBH_F"), "2 images: .*contrast fat"),
    "turned": (lambda f: replaced(f, 1, ImageOrientationPatient=[0, 1, 0, -1, 0, 0]), "turned against each other"),
    "no plane": (lambda f: replaced(f, 1, ImageOrientationPatient=[0, 0, 0, 0, 1, 0]), "not a plane"),
    "no position": (lambda f: replaced(f, 1, ImagePositionPatient=None), "no ImagePositionPatient"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_series_with_a_flaw_is_refused_by_position_and_uid(name, tmp_path):
    damage, message = DAMAGED[name]
    found = images(volume())
    uid = found[0].dataset.SeriesInstanceUID
    with pytest.raises((GeometryError, FileError), match=message) as caught:
        dicom.read_series(write(tmp_path / "series", damage(found)))
    text = str(caught.value)
    assert "\n" not in text and str(tmp_path) in text
    # a file that says nothing of its place is named itself
    assert ("IM000" if name in ("no plane", "no position") else uid) in text


def test_several_series_must_be_told_apart(tmp_path):
    one, two = images(volume(seed=1)), images(volume(seed=2))
    folder = write(tmp_path / "series", one + two)
    uids = [found[0].dataset.SeriesInstanceUID for found in (one, two)]
    with pytest.raises(
        FileError, match=r"2 images: .*Dixon_noBH_W, 7 x 6, 5 slices.*Choose one with series=.UID"
    ):
        dicom.read_series(folder)
    for uid, seed in zip(uids, (1, 2)):
        np.testing.assert_array_equal(dicom.read_series(folder, uid).array, volume(seed=seed).to_ras().array)
    with pytest.raises(FileError, match=r"no series 1\.2\.3; there are"):
        dicom.read_series(folder, "1.2.3")


def test_folder_without_images_is_told(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(EmptyError, match="no DICOM image among its 1 files"):
        dicom.read_series(tmp_path)
    with pytest.raises(FileError, match="no such folder"):
        dicom.read_series(tmp_path / "nowhere")
