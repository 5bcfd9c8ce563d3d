"""One DICOM file to one slice: values, refusals, and nothing of the header that should stay there."""

import builtins
import io

import numpy as np
import pydicom
import pytest
from pydicom.uid import BasicTextSRStorage

from tests.volumes import ukb_archive
from tests.volumes.dicom.series_files import images, volume, write
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.volumes import dicom
from ukbob_jax.volumes.dicom import slices


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


def test_values_behind_a_table_are_refused(tmp_path):
    table = pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4, 0, 16], "HU"
    table.add_new("LUTData", "US", [0, 10, 20, 40])
    found = images(volume(), ModalityLUTSequence=[table])
    with pytest.raises(FileError, match=r"ModalityLUTSequence.*RescaleSlope"):
        dicom.read_series(write(tmp_path / "table", found))
    found = images(volume(), ModalityLUTSequence=[])
    assert dicom.read_series(write(tmp_path / "none", found)).shape == volume().shape


@pytest.mark.parametrize("keep", [200, 900, -11])
def test_truncated_file_is_named(keep, tmp_path):
    folder = write(tmp_path / "series", images(volume()))
    path = folder / "IM0002"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FileError, match=r"IM0002: (damaged|an image without pixels)"):
        dicom.read_series(folder)


@pytest.mark.parametrize(
    "name, data, said",
    [
        ("IM0004", b"", "is empty"),
        ("b.DCM", b"", "is empty"),
        ("1.2.840.7", b"", "is empty"),
        ("b.ima", bytes(900), "holds nothing but zeros"),
        ("b.dcm", b"<html>", "is no DICOM file"),
    ],
)
def test_files_that_lost_their_content_are_named(name, data, said, tmp_path):
    folder = write(tmp_path / "series", images(volume(), SeriesInstanceUID="1.2.3"))
    (folder / name).write_bytes(data)
    for series in ("", "1.2.3"):
        with pytest.raises(FileError, match=f"{name}: {said}.*; copy it again"):
            dicom.read_series(folder, series)
    (tmp_path / "other").mkdir()
    (folder / name).rename(tmp_path / "other" / name)
    dicom.read_series(tmp_path, "1.2.3")  # files of other series are passed over


def test_other_files_are_left_out(tmp_path):
    folder = write(tmp_path / "series", images(volume()))
    for name in ("notes.txt", "DICOMDIR", "view.jpg", ".hidden", "._IM0001.dcm"):
        (folder / name).write_bytes(b"")
    (folder / "README").write_bytes(b"\x08\0 no data set")
    (folder / "VERSION").write_bytes(b"1")
    np.testing.assert_array_equal(dicom.read_series(folder).array, volume().to_ras().array)


@pytest.mark.parametrize("implicit, little", [(True, True), (False, True), (False, False)])
def test_files_without_preamble_are_read(implicit, little, tmp_path):
    folder = write(tmp_path / "series", images(volume()))
    for path in folder.iterdir():
        found = pydicom.dcmread(path)
        bare = pydicom.Dataset(found)
        bare["PixelData"].VR = "OW"
        if not little:
            bare.PixelData = found.pixel_array.astype(">u2").tobytes()
        bare.save_as(path, implicit_vr=implicit, little_endian=little)
        assert path.read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(dicom.read_series(folder).array, volume().to_ras().array)


def test_objects_without_an_image_are_passed_over():
    report = pydicom.dcmread(io.BytesIO(ukb_archive.encode(images(volume())[0])))
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = BasicTextSRStorage
    del report.PixelData
    buffer = io.BytesIO()
    report.save_as(buffer)
    assert slices.read_slices(buffer.getvalue(), "x") == []
    assert slices.read_slices(b"%PDF-1.4" + bytes(300), "x") == []
    assert slices.read_slices(b"", "x") == []


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
    [found] = slices.read_slices(ukb_archive.encode(one), "x")
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
    [found] = slices.read_slices(ukb_archive.encode(one), "x")
    assert not {"flip_angle_deg", "height_mm"} & set(found.facts)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize("value", ["NaN", "-inf", "1e400"])
def test_facts_that_are_not_finite_are_left_out(value):
    one = images(volume())[0]
    one.dataset.PatientSize = value
    [found] = slices.read_slices(ukb_archive.encode(one), "x")
    assert "height_mm" not in found.facts and "flip_angle_deg" in found.facts
