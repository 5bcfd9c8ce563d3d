"""DICOM segmentations of made and real series, read back by highdicom, by pydicom and by our own reader."""

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

from tests.volumes import real  # noqa: E402
from tests.volumes.dicom.series_files import images, volume, write  # noqa: E402
from ukbob_jax import anatomy  # noqa: E402
from ukbob_jax.errors import ConfigError, FileError, ValuesError  # noqa: E402
from ukbob_jax.volumes.dicom import read_series, segment_codes, segmentation  # noqa: E402
from ukbob_jax.volumes.dicom.sources import read_sources  # noqa: E402
from ukbob_jax.volumes.nifti import read_label_names, read_label_of, read_pair, read_volume  # noqa: E402
from ukbob_jax.volumes.volume import Volume  # noqa: E402

NAMES = {0: "background", 2: "kidney_right", 5: "liver", 40: "lesion", 72: "bone_other"}
TURNS = {
    "axial": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "sagittal": ((0, 1, 0), (0, 0, -1), (-1, 0, 0)),
    "oblique": tuple(np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0].T),
}


def labels_of(scan: Volume) -> Volume:
    """Boxes of three structures; the first slice, whatever its axis, has none."""
    array = np.zeros(scan.shape, np.uint8)
    x, y, z = scan.shape
    array[1 : x // 2, 1 : y // 2, 1:] = 2
    array[x // 2 :, y // 2 :, 1 : z // 2 + 1] = 5
    array[-1, 0, -1] = 72
    return Volume(array, scan.affine)


def check_read_back(path, labels: Volume, scan: Volume):
    """Ids are numbers from 1 in the file; voxels and names must be those of `labels`."""
    named = read_label_names(path)
    assert [named[n] for n in sorted(named)] == [NAMES[i] for i in np.unique(labels.array) if i]
    found = read_label_of(scan, path, "scan")
    ids = {name: i for i, name in NAMES.items()}
    lookup = np.array([0, *(ids[named[n]] for n in sorted(named))])
    np.testing.assert_array_equal(lookup[found.array], labels.to_ras().array)
    np.testing.assert_allclose(
        found.affine, labels.to_ras().affine, atol=2e-3
    )  # DICOM writes 16 digits of text


@pytest.mark.parametrize("turn", TURNS)
def test_a_segmentation_lies_on_its_series(tmp_path, turn):
    folder = write(tmp_path / "series", images(volume(TURNS[turn]), FrameOfReferenceUID="1.2.3.4"))
    scan = read_series(folder)
    labels = labels_of(scan)
    segmentation.write(tmp_path / "seg.dcm", labels, NAMES, read_sources(folder))
    check_read_back(tmp_path / "seg.dcm", labels, scan)
    found = pydicom.dcmread(tmp_path / "seg.dcm")
    first = read_sources(folder).headers[0]
    for tag in ("FrameOfReferenceUID", "StudyInstanceUID", "PatientID"):
        assert found.get(tag) == first.get(tag)
    referred = {
        r.ReferencedSOPInstanceUID for r in found.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referred == {header.SOPInstanceUID for header in read_sources(folder).headers}
    assert found.SeriesInstanceUID != first.SeriesInstanceUID
    read = highdicom.seg.segread(tmp_path / "seg.dcm")
    theirs = read.get_volume(combine_segments=True)
    assert read.number_of_segments == 3
    for number, i in enumerate((2, 5, 72), 1):
        assert (theirs.array == number).sum() == (labels.array == i).sum()
        centre = np.argwhere(theirs.array == number).mean(0)
        there = (theirs.affine @ [*centre, 1])[:3] * (-1, -1, 1)
        ours = (labels.affine @ [*np.argwhere(labels.array == i).mean(0), 1])[:3]
        np.testing.assert_allclose(there, ours, atol=2e-3)


def test_segments_have_codes_sides_and_colours(tmp_path):
    folder = write(tmp_path / "series", images(volume(), FrameOfReferenceUID="1.2.3.4"))
    segmentation.write(tmp_path / "seg.dcm", labels_of(read_series(folder)), NAMES, read_sources(folder))
    kidney, liver, bone = highdicom.seg.segread(tmp_path / "seg.dcm").SegmentSequence
    [kind] = kidney.SegmentedPropertyTypeCodeSequence
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("64033007", "SCT")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Right"
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Liver"
    assert bone.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "99UKBOB"
    shown = highdicom.color.CIELabColor.from_dicom_value(liver.RecommendedDisplayCIELabValue).to_rgb()
    np.testing.assert_allclose(shown, anatomy.COLORS[5], atol=1)


def test_every_concept_is_in_the_dictionary_and_no_two_structures_share_one():
    codes = {name: segment_codes.coded(i, name) for i, name in anatomy.NAMES.items() if i}
    assert len({(code.kind, code.side) for code in codes.values()}) == len(codes)
    bases = {name.removesuffix("_left").removesuffix("_right") for name in codes}
    assert set(segment_codes.CONCEPTS) <= bases
    assert all(len(code.kind[0]) <= 16 and len(code.kind[2]) <= 64 for code in codes.values())


def test_an_empty_label_map_is_no_segmentation(tmp_path):
    folder = write(tmp_path / "series", images(volume()))
    scan = read_series(folder)
    empty = Volume(np.zeros(scan.shape, np.uint8), scan.affine)
    with pytest.raises(ValuesError, match="no structure was found"):
        segmentation.write(tmp_path / "seg.dcm", empty, NAMES, read_sources(folder))
    assert not (tmp_path / "seg.dcm").exists()


def test_a_source_without_a_frame_of_reference_is_refused(tmp_path):
    folder = write(tmp_path / "series", images(volume(), FrameOfReferenceUID=None))
    with pytest.raises(FileError, match="no frame of reference"):
        segmentation.write(tmp_path / "seg.dcm", labels_of(read_series(folder)), NAMES, read_sources(folder))


@pytest.mark.filterwarnings("ignore:.*gantry was tilted")
def test_frames_lie_on_the_slices_of_a_tilted_gantry(tmp_path):
    truth = volume()
    found = images(truth, FrameOfReferenceUID="1.2.3.4")
    for number, one in enumerate(found):  # every slice a pixel further along y than the one before
        x, y, z = (float(v) for v in one.dataset.ImagePositionPatient)
        one.dataset.ImagePositionPatient = [x, y + 2.5 * number, z]
    folder = write(tmp_path / "series", found)
    scan = read_series(folder)
    assert scan.shape != truth.shape
    # labelled where the scan is bright: so are the same voxels of the slices as they were acquired
    labels = Volume(np.where(scan.array > 2000, 5, 0).astype(np.uint8), scan.affine)
    sources = read_sources(folder)
    segmentation.write(tmp_path / "seg.dcm", labels, NAMES, sources)
    made = highdicom.seg.segread(tmp_path / "seg.dcm")
    uids = [header.SOPInstanceUID for header in sources.headers]
    frames = made.get_pixels_by_source_instance(uids, combine_segments=True)  # slice row column
    pixels = np.stack([pydicom.dcmread(p).pixel_array for p in sorted_by(folder, uids)])
    np.testing.assert_array_equal(frames > 0, pixels > 2000)


def sorted_by(folder, uids):
    named = {pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID: p for p in folder.iterdir()}
    return [named[uid] for uid in uids]


def test_without_highdicom_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(ConfigError, match=r"pip install 'ukbob-jax\[dicom\]'"):
        segmentation.reader_and_writer()


@pytest.mark.parametrize("modality", ["CT/image", "MR_T1/image", "PET/image"])
def test_a_real_series_gets_a_segmentation_on_its_slices(tmp_path, modality):
    folder = real.folder("sts_gtv/dicom/STS_025") / modality
    scan = read_series(folder)
    labels = labels_of(scan)
    segmentation.write(tmp_path / "seg.dcm", labels, NAMES, read_sources(folder))
    check_read_back(tmp_path / "seg.dcm", labels, scan)


@pytest.mark.parametrize("modality", ["CT", "MR_T1", "PET"])
def test_a_drawn_structure_of_a_real_patient_comes_back_voxel_by_voxel(tmp_path, modality):
    root = real.folder("sts_gtv")
    folder = root / "dicom" / "STS_025" / modality
    scan, drawn = read_pair(folder / "image", folder / "mask" / "RS.dcm")
    segmentation.write(tmp_path / "seg.dcm", drawn, {1: "GTV"}, read_sources(folder / "image"))
    truth = read_volume(root / "nifti" / "STS_025" / f"{modality}_mask.nii.gz", kind="label").to_ras()
    found = read_label_of(scan, tmp_path / "seg.dcm", "scan")
    np.testing.assert_array_equal(found.array, truth.array)
    np.testing.assert_allclose(found.affine, truth.affine, atol=1e-3)
    assert read_label_names(tmp_path / "seg.dcm") == {1: "GTV"} and found.array.any()


def test_a_mosaic_and_an_enhanced_object_get_one_too(tmp_path):
    root = real.folder("dicom_nifti")
    for folder, series in (
        (root / "nih_siemens_mosaic" / "mr_0003", ":1"),
        (root / "enhanced_philips_fieldmap", ":1"),
    ):
        uid = next(iter(pydicom.dcmread(p).SeriesInstanceUID for p in sorted(folder.glob("*.dcm"))))
        scan = read_series(folder, uid + series)
        labels = labels_of(scan)
        sources = read_sources(folder, uid + series)
        assert len(sources.headers) == 1
        segmentation.write(tmp_path / "seg.dcm", labels, NAMES, sources)
        check_read_back(tmp_path / "seg.dcm", labels, scan)
        (tmp_path / "seg.dcm").unlink()
