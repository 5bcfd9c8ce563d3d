"""Enhanced multi-frame objects: frames to images, told apart as files of one slice are."""

import nibabel as nib
import numpy as np
import pytest

from tests.volumes import real
from tests.volumes.dicom.enhanced_files import CT, LEGACY_MR, MR, PET, encode, frames, shared, write
from tests.volumes.dicom.series_files import volume
from ukbob_jax.errors import FileError, GeometryError
from ukbob_jax.volumes import dicom

UID = "1.2.3.4"
SAGITTAL = ((0, 0, 1), (1, 0, 0), (0, 1, 0))


@pytest.mark.parametrize("kind", [MR, CT, PET, LEGACY_MR])
@pytest.mark.parametrize("directions", [((1, 0, 0), (0, 1, 0), (0, 0, 1)), SAGITTAL])
def test_frames_in_any_order_are_a_volume(kind, directions, tmp_path):
    truth = volume(directions)
    mixed = [frames(truth)[z] for z in (3, 0, 4, 2, 1)]
    found = dicom.read_series(write(tmp_path, encode(mixed, shared(truth), kind)))
    np.testing.assert_array_equal(found.array, truth.to_ras().array)
    np.testing.assert_allclose(found.affine, truth.to_ras().affine, atol=1e-6)


def test_what_a_frame_says_comes_before_what_all_share(tmp_path):
    truth = volume()
    mixed = frames(truth)
    for z, frame in enumerate(mixed):
        if z:  # the first has the shared values
            frame.groups["PixelValueTransformationSequence"] = {"RescaleSlope": z + 1, "RescaleIntercept": -z}
    common = shared(truth, PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": 7})
    found = dicom.read_series(write(tmp_path, encode(mixed, common, CT)))
    z = np.arange(5)
    expected = truth.array * (z + 1) + np.where(z == 0, 7, -z)
    np.testing.assert_array_equal(found.array, expected)


FRAME_TYPE = "MRImageFrameTypeSequence"
DIFFERENT = {
    "frame type": (FRAME_TYPE, "FrameType", [["ORIGINAL", "PRIMARY", "M"], ["DERIVED", "PRIMARY", "MAP"]], "image type MAP"),
    "component": (FRAME_TYPE, "ComplexImageComponent", ["MAGNITUDE", "PHASE"], "image type T1 MIXED PHASE"),
    "echo": ("MREchoSequence", "EffectiveEchoTime", [2.46, 3.69], "echo time 3.69 ms"),
    "b-value": ("MRDiffusionSequence", "DiffusionBValue", [50.0, 800.0], "b-value 800 s/mm2"),
    "time": ("FrameContentSequence", "TemporalPositionIndex", [1, 2], "time point 2"),
    "acquisition": ("FrameContentSequence", "FrameAcquisitionNumber", [1, 2], "acquisition 2"),
    "stack": ("FrameContentSequence", "StackID", ["1", "2"], "stack 2"),
    "dimension": ("FrameContentSequence", "DimensionIndexValues", [[1, 4], [1, 5]], "dimension 5"),
    "converted": ("UnassignedPerFrameConvertedAttributesSequence", "EchoTime", ["2.46", "3.69"], "echo time 3.69 ms"),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
@pytest.mark.parametrize("files", [1, 2])
def test_frames_are_told_apart_by_what_differs(name, files, tmp_path):
    group, tag, values, label = DIFFERENT[name]
    truths = [volume(seed=seed) for seed in (0, 1)]
    one, other = (frames(truth, **{group: {tag: value}}) for truth, value in zip(truths, values))
    pairs = [frame for pair in zip(one, other) for frame in pair]
    data = {1: [pairs], 2: [one, other]}[files]
    options = {"dimensions": ["InStackPositionNumber", "ReceiveCoilName"], "SeriesInstanceUID": UID}
    write(tmp_path, *(encode(part, shared(truths[0]), **options) for part in data))
    with pytest.raises(
        FileError, match=rf"2 images: {UID}:1 .*{label}, 7 x 6, 5 slices, 1.25 x 2.5 x 4 mm.*series="
    ):
        dicom.read_series(tmp_path)
    for number, truth in enumerate(truths, 1):
        found = dicom.read_series(tmp_path, f"{UID}:{number}")
        np.testing.assert_array_equal(found.array, truth.to_ras().array)


def test_one_file_per_volume_is_a_time_series(tmp_path):
    """As Siemens XA writes it: nothing but the instance number tells the files apart."""
    truths = [volume(seed=seed) for seed in range(6)]
    data = [
        encode(frames(truth), shared(truth), SeriesInstanceUID=UID, InstanceNumber=number)
        for number, truth in enumerate(truths, 1)
    ]
    write(tmp_path, *(data[i] for i in (4, 0, 5, 2, 1, 3)))
    found = dicom.read_series(tmp_path, channels=True)
    np.testing.assert_array_equal(found.array, np.stack([truth.to_ras().array for truth in truths], -1))
    with pytest.raises(
        FileError, match=f"6 images: {UID}:1 to {UID}:6 .several frames, 6 time points, 7 x 6, 5 sl"
    ):
        dicom.read_series(tmp_path)


def test_a_dimension_within_one_image_does_not_split_it(tmp_path):
    """Slices excited together share a trigger delay: its index repeats from place to place, and from file to file."""
    truths, data = [volume(seed=seed) for seed in range(3)], []
    for number, truth in enumerate(truths, 1):
        found = frames(truth)
        for z, frame in enumerate(found):
            frame.groups["FrameContentSequence"]["DimensionIndexValues"] = [z + 1, 1 + z % 3]
        options = {
            "dimensions": ["InStackPositionNumber", "NominalCardiacTriggerDelayTime"],
            "InstanceNumber": number,
        }
        data.append(encode(found, shared(truth), SeriesInstanceUID=UID, **options))
    found = dicom.read_series(write(tmp_path, *data), channels=True)
    np.testing.assert_array_equal(found.array, np.stack([truth.to_ras().array for truth in truths], -1))


def without(found, group):
    for frame in found:
        frame.groups.pop(group)
    return found


FLAWS = {
    "fewer descriptions": (lambda t: encode(frames(t), shared(t), NumberOfFrames=7), "7 frames, but functional groups of 5"),
    "no functional groups": (lambda t: encode(frames(t), shared(t), PerFrameFunctionalGroupsSequence=None), "5 frames"),
    "no position": (lambda t: encode(without(frames(t), "PlanePositionSequence"), shared(t)), "frame 1: no ImagePosition"),
    "no spacing": (lambda t: encode(frames(t), {}), "frame 1: no ImageOrientationPatient"),
    "missing frame": (lambda t: encode([f for z, f in enumerate(frames(t)) if z != 2], shared(t)), "1 slice missing"),
    "cut off": (lambda t: encode(frames(t), shared(t))[:-60], "IM0000: damaged"),
    "colour": (lambda t: encode(frames(t), shared(t), SamplesPerPixel=3, PhotometricInterpretation="RGB"), "colour image"),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAWS)
def test_damaged_objects_are_refused_in_one_line(name, tmp_path):
    make, message = FLAWS[name]
    folder = write(tmp_path, make(volume()))
    with pytest.raises((FileError, GeometryError), match=message) as caught:
        dicom.read_series(folder)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_scanners_field_map_is_what_dcm2niix_makes_of_it():
    """Voxels as stored; their values are those of the DICOM slope, where dcm2niix takes Philips' private one."""
    folder = real.folder("dicom_nifti") / "enhanced_philips_fieldmap"
    with pytest.raises(FileError, match=r"image type T1 M, .*image type T1 FIELD_MAP REAL, ") as caught:
        dicom.read_series(folder)
    uid = str(caught.value).split("2 images: ")[1].split(":")[0]
    scales = (1.27985347985347, 0.0), (0.24420024420024, -500.0)
    for number, (name, (slope, intercept)) in enumerate(zip(("e1", "e2_fieldmaphz"), scales), 1):
        image = nib.load(folder / "Ref" / f"Philips_WIP_B0_NS_801_{name}.nii")
        stored = nib.as_closest_canonical(nib.Nifti1Image(image.dataobj.get_unscaled(), image.affine))
        found = dicom.read_series(folder, f"{uid}:{number}")
        np.testing.assert_array_equal(np.rint((found.array - intercept) / slope), np.asarray(stored.dataobj))
        np.testing.assert_allclose(
            found.array, np.asarray(stored.dataobj) * slope + intercept, rtol=1e-6, atol=1e-3
        )
        np.testing.assert_allclose(found.affine, stored.affine, atol=1e-4)
