"""DICOM files to volumes: geometry, refusals, and nothing of the header that should stay there."""

import builtins
import io
import pathlib

import numpy as np
import pydicom
import pytest
from pydicom.uid import BasicTextSRStorage, generate_uid

from tests.volumes import ukb_archive
from ukbob_jax.errors import ConfigError, EmptyError, FileError, GeometryError
from ukbob_jax.volumes import dicom
from ukbob_jax.volumes.dicom import slices
from ukbob_jax.volumes.dicom.contrast import recognise
from ukbob_jax.volumes.volume import Volume

SHAPE = (7, 6, 5)


def volume(directions=((1, 0, 0), (0, 1, 0), (0, 0, 1)), seed: int = 0) -> Volume:
    """Unequal sizes, spacings and offsets, so that no two axes can be confused."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(directions) * (1.25, 2.5, 4.0)
    affine[:3, 3] = (-31.5, 12.25, 140.75)
    return Volume(np.random.default_rng(seed).integers(0, 4000, SHAPE).astype(np.int16), affine)


def images(truth: Volume, **tags) -> list[ukb_archive.Image]:
    """A series of `truth`, whatever its orientation: rows along its second axis, columns along its first."""
    to_lps = np.diag([-1.0, -1.0, 1.0])
    uid = generate_uid()
    found = []
    for z in range(truth.shape[2]):
        one = ukb_archive.header(1, "water", truth)
        corner = to_lps @ (truth.affine @ [0, 0, z, 1])[:3]
        along = to_lps @ (truth.affine[:3, :3] / truth.spacing_mm)
        one.ImagePositionPatient = [f"{v:.10g}" for v in corner]
        one.ImageOrientationPatient = [f"{v:.10g}" for v in (*along[:, 0], *along[:, 1])]
        one.SeriesInstanceUID, one.SOPInstanceUID = uid, generate_uid()
        for tag, value in tags.items():
            setattr(one, tag, value)
        found.append(ukb_archive.Image(1, "water", z, one, truth.array[:, :, z].T.astype(np.uint16)))
    return found


def write(folder: pathlib.Path, found: list[ukb_archive.Image]) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(3).permutation(len(found))
    for name, number in enumerate(order):
        (folder / f"IM{name:04d}").write_bytes(ukb_archive.encode(found[number]))
    return folder


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


def test_rescale_gives_physical_values(tmp_path):
    truth = volume()
    whole = dicom.read_series(
        write(tmp_path / "ct", images(truth, RescaleSlope="1", RescaleIntercept="-1024"))
    )
    np.testing.assert_array_equal(whole.array, truth.array.astype(int) - 1024)
    assert whole.array.dtype == np.int16
    half = dicom.read_series(
        write(tmp_path / "half", images(truth, RescaleSlope="0.5", RescaleIntercept="1"))
    )
    np.testing.assert_allclose(half.array, truth.array * 0.5 + 1, atol=1e-6)
    assert half.array.dtype == np.float32


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
    "other contrast": (lambda f: replaced(f, 1, SeriesDescription="Dixon_noBH_F"), r"contrasts \(fat, water\)"),
    "turned": (lambda f: replaced(f, 1, ImageOrientationPatient=[0, 1, 0, -1, 0, 0]), "turned against each other"),
    "no plane": (lambda f: replaced(f, 1, ImageOrientationPatient=[0, 0, 0, 0, 1, 0]), "not a plane"),
    "no position": (lambda f: replaced(f, 1, ImagePositionPatient=None), "no ImagePositionPatient"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_series_with_a_flaw_is_refused_by_position_and_uid(name, tmp_path):
    damage, message = DAMAGED[name]
    found = images(volume())
    uid = found[0].dataset.SeriesInstanceUID
    with pytest.raises(GeometryError, match=message) as caught:
        dicom.read_series(write(tmp_path / "series", damage(found)))
    text = str(caught.value)
    assert "\n" not in text and str(tmp_path) in text
    # a file that says nothing of its place is named itself
    assert ("IM000" if name in ("no plane", "no position") else uid) in text


def test_several_series_must_be_told_apart(tmp_path):
    one, two = images(volume(seed=1)), images(volume(seed=2))
    folder = write(tmp_path / "series", one + two)
    uids = [found[0].dataset.SeriesInstanceUID for found in (one, two)]
    with pytest.raises(FileError, match=r"2 series: .*5 slices.*Name one by its UID"):
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


@pytest.mark.parametrize(
    "tags, message",
    [
        ({"NumberOfFrames": 40}, "40 frames in one file"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour image"),
    ],
)
def test_other_kinds_of_image_are_refused(tags, message, tmp_path):
    with pytest.raises(FileError, match=message):
        dicom.read_series(write(tmp_path / "series", images(volume(), **tags)))


@pytest.mark.parametrize("keep", [200, 900, -11])
def test_truncated_file_is_named(keep, tmp_path):
    folder = write(tmp_path / "series", images(volume()))
    path = folder / "IM0002"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FileError, match=r"IM0002: (damaged|an image without pixels)"):
        dicom.read_series(folder)


def test_objects_without_an_image_are_passed_over():
    report = pydicom.dcmread(io.BytesIO(ukb_archive.encode(images(volume())[0])))
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = BasicTextSRStorage
    del report.PixelData
    buffer = io.BytesIO()
    report.save_as(buffer)
    assert slices.read_slice(buffer.getvalue(), "x") is None
    assert slices.read_slice(b"%PDF-1.4" + bytes(300), "x") is None
    assert slices.read_slice(b"", "x") is None


def test_missing_library_is_one_line_with_the_remedy(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "pydicom":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'ukbob-jax\[dicom\]'"):
        dicom.read_series(tmp_path)


def test_only_listed_tags_are_read():
    assert not set(slices.TAGS) & {*ukb_archive.SECRETS, "PatientAge", "PatientWeight", "StudyInstanceUID"}
    [one, *_] = images(volume())
    found = slices.read_slice(ukb_archive.encode(one), "x")
    text = repr(found._replace(pixels=None))
    for secret in (*ukb_archive.SECRETS.values(), ukb_archive.PRIVATE, "Dixon_noBH"):
        assert secret not in text
    assert found.facts == {
        "body_part": "ABDOMEN", "flip_angle_deg": 10.0, "field_strength_t": 1.5, "manufacturer": "SIEMENS",
        "scanner": "Aera", "modality": "MR", "sex": "F", "height_mm": 1680.0, "repetition_time_ms": 6.67,
    }  # fmt: skip


def test_facts_that_are_no_numbers_are_left_out():
    one = images(volume())[0]
    one.dataset.FlipAngle = [10, 20]
    del one.dataset.PatientSize
    found = slices.read_slice(ukb_archive.encode(one), "x")
    assert not {"flip_angle_deg", "height_mm"} & set(found.facts)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize("value", ["NaN", "-inf", "1e400"])
def test_facts_that_are_not_finite_are_left_out(value):
    one = images(volume())[0]
    one.dataset.PatientSize = value
    found = slices.read_slice(ukb_archive.encode(one), "x")
    assert "height_mm" not in found.facts and "flip_angle_deg" in found.facts


@pytest.mark.parametrize(
    "description, image_type, expected",
    [
        ("Dixon_noBH_F", ["DERIVED", "PRIMARY", "DIXON", "FAT"], ("fat", False)),
        ("Dixon_BH_17s_opp", [], ("opposed_phase", False)),
        ("Dixon_BH_17s_in", ["M"], ("in_phase", False)),
        ("Dixon_noBH_W", ["DIXON", "FAT"], ("water", True)),
        ("", ["DERIVED", "PRIMARY", "DIXON", "WATER"], ("water", False)),
        ("localizer", ["ORIGINAL", "PRIMARY"], ("", False)),
        ("Dixon_F_scout", [], ("", False)),
    ],
)
def test_contrast_is_recognised(description, image_type, expected):
    assert recognise(description, image_type) == expected
