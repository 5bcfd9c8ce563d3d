"""Real MGZ, MHA, NRRD, DICOM SEG and RTSTRUCT against the files beside them."""

import nibabel as nib
import numpy as np
import pytest

import ukbob_jax as bob
from tests.volumes import real
from ukbob_jax.errors import MismatchError, ValuesError
from ukbob_jax.volumes.formats import dicom_seg, rtstruct
from ukbob_jax.volumes.nifti import read_label_names

pytest.importorskip("SimpleITK")
pytest.importorskip("pydicom")


def same(a: bob.Volume, b: bob.Volume) -> None:
    np.testing.assert_array_equal(a.array, b.array)
    np.testing.assert_allclose(a.affine, b.affine, atol=1e-3)


def test_one_scan_in_three_formats_is_one_volume():
    folder = real.folder("formats")
    mgz, mha, nrrd = (bob.read_volume(folder / name) for name in ("mgh.mgz", "mha.mha", "nrrd.nhdr"))
    same(mgz, mha)
    same(mgz, nrrd)
    assert mgz.array.sum(dtype=np.int64) == 79944614 and mgz.array.dtype == np.int16
    np.testing.assert_allclose(mgz.affine[0], [-3.4375, 0, 0, 108.281], atol=1e-3)


def test_a_dicom_segmentation_equals_its_nrrd_and_lies_on_its_series():
    folder = real.folder("dicom_seg") / "dcmqi"
    found = bob.read_volume(folder / "liver.dcm", kind="label").to_ras()
    same(found, bob.read_volume(folder / "liver_seg.nrrd", kind="label").to_ras())
    assert int(found.array.sum()) == 107098 and read_label_names(folder / "liver.dcm") == {1: "Liver"}
    image, label = bob.read_pair(folder / "ct-3slice", folder / "liver.dcm")
    assert image.shape == label.shape
    same(label, found)


def test_a_label_map_object_is_filled_to_its_images_grid():
    folder = real.folder("dicom_seg") / "dcmqi"
    whole = folder / "sparse_labelmap_noppv_seg.nrrd"
    _, label = bob.read_pair(whole, folder / "sparse-labelmap-noppv.dcm")
    same(label, bob.read_volume(whole, kind="label").to_ras())
    middle = label.array[:, :, 1]  # the slice without a frame
    assert not middle.any() and label.array.any()
    with pytest.raises(MismatchError, match="labelled voxels lie outside"):
        bob.read_pair(folder / "ct-3slice", folder / "sparse-labelmap-noppv.dcm")


def test_frames_that_are_no_whole_bytes_are_unpacked_right():
    folder = real.folder("dicom_seg") / "dcmqi" / "23x38x3"
    _, label = bob.read_pair(folder / "image", folder / "seg" / "label.seg")
    same(label, bob.read_volume(folder / "nrrd" / "label.nrrd", kind="label").to_ras())
    assert label.array.any()


def test_fractional_segments_are_refused_unless_a_threshold_is_given():
    path = real.folder("dicom_seg") / "highdicom" / "seg_image_ct_true_fractional.dcm"
    with pytest.raises(ValuesError, match=r"fractional\.dcm: fractional segments, which are no labels"):
        bob.read_volume(path, kind="label")
    half, full = (int((dicom_seg.read(path, t).array == 1).sum()) for t in (0.2, 0.5))
    assert 0 < full < half


def test_segments_of_slicer_have_names_and_their_images_grid():
    folder = real.folder("dicom_seg") / "slicerio"
    image, label = bob.read_pair(folder / "CTChest4.nrrd", folder / "Segmentation.seg.nrrd", num_classes=8)
    assert image.shape == label.shape == (128, 128, 34)
    names = read_label_names(folder / "Segmentation.seg.nrrd")
    assert names[1] == "ribs" and names[5] == "right lung" and len(names) == 7


@pytest.mark.parametrize("modality", ["CT", "MR_T1", "PET"])
def test_contours_fill_the_voxels_of_the_mask_beside_them(modality):
    folder = real.folder("sts_gtv")
    image = bob.read_volume(folder / "nifti" / "STS_025" / f"{modality}_image.nii.gz")
    path = folder / "dicom" / "STS_025" / modality / "mask" / "RS.dcm"
    masks = rtstruct.read_masks(path, image)
    assert list(masks) == [f"GTV_Mass_{modality}"]
    truth = folder / "nifti" / "STS_025" / f"{modality}_mask.nii.gz"
    same(masks[f"GTV_Mass_{modality}"], bob.read_volume(truth, kind="label"))
    _, label = bob.read_pair(path.parents[1] / "image", path)
    same(label, bob.read_volume(truth, kind="label").to_ras())


def test_float_labels_of_real_maps_are_whole():
    folder = real.folder("sct_spinal_cord")
    found = bob.read_volume(folder / "t2" / "t2_seg-manual_labeled.nii.gz", kind="label")
    np.testing.assert_array_equal(
        found.array, nib.load(folder / "t2" / "t2_seg-manual_labeled.nii.gz").get_fdata()
    )
