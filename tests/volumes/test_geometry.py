"""A label map lies on its image in every reader, whatever the image's header says."""

import itertools

import nibabel as nib
import numpy as np
import pytest

import ukbob_jax as bob

CODES = list(itertools.product(range(5), repeat=2))


def image_at(path, codes, pixdim=None):
    """An image whose sform and qform lie 5 mm apart, in a file."""
    sform, qform = np.diag([-1.0, 2, 3, 1]), np.diag([-1.0, 2, 3, 1])
    sform[:3, 3], qform[:3, 3] = (10, -20, 30), (13, -22, 27)
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), None)
    image.header.set_sform(sform, 1)
    image.header.set_qform(qform, 1)
    image.header["sform_code"], image.header["qform_code"] = codes
    image.header["xyzt_units"] = 10
    if pixdim:
        image.header["pixdim"][1:4] = pixdim
    image.to_filename(path)


def label_of(path):
    volume = bob.read_volume(path, assume_ras=True)
    label = bob.Volume((volume.array > 30).astype(np.uint8), volume.affine, volume.codes, volume.header)
    bob.write_volume(path.with_name("label.nii"), label)
    return path.with_name("label.nii")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("pixdim", [None, (1.5, 2.5, 3.5)])
@pytest.mark.parametrize("codes", CODES)
def test_nibabel_and_itk_lay_the_label_on_its_image(codes, pixdim, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    image_at(tmp_path / "image.nii", codes, pixdim)
    label = label_of(tmp_path / "image.nii")
    ours, theirs = nib.load(label), nib.load(tmp_path / "image.nii")
    np.testing.assert_array_equal(ours.affine, theirs.affine)
    np.testing.assert_array_equal(ours.header["pixdim"][:4], theirs.header["pixdim"][:4])
    ours, theirs = sitk.ReadImage(label), sitk.ReadImage(tmp_path / "image.nii")
    assert ours.GetOrigin() == theirs.GetOrigin() and ours.GetSpacing() == theirs.GetSpacing()
    assert ours.GetDirection() == theirs.GetDirection()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_another_grid_drops_the_header_and_the_same_grid_keeps_it(tmp_path):
    image_at(tmp_path / "image.nii", (2, 1))
    volume = bob.read_volume(tmp_path / "image.nii")
    assert volume.header is not None
    assert volume.to_ras().header is None and volume.crop((0, 0, 0), (2, 2, 2)).header is None
    assert volume.resample(1.0, 0).header is None
    assert volume.to_ras().resample_like(volume, 0).header is volume.header
    bob.write_volume(tmp_path / "b.nii", volume.to_ras())
    np.testing.assert_array_equal(bob.read_volume(tmp_path / "b.nii").affine, volume.to_ras().affine)


@pytest.mark.filterwarnings("ignore:.*sform and qform lie:UserWarning")
def test_a_unit_that_is_not_mm_is_repeated(tmp_path):
    image_at(tmp_path / "image.nii", (1, 1))
    image = nib.load(tmp_path / "image.nii")
    image.header.set_xyzt_units("micron")
    nib.Nifti1Image(np.asarray(image.dataobj), None, image.header).to_filename(tmp_path / "um.nii")
    with pytest.warns(UserWarning, match="converted to mm"):
        volume = bob.read_volume(tmp_path / "um.nii")
    bob.write_volume(tmp_path / "again.nii", volume)
    with pytest.warns(UserWarning, match="converted to mm"):
        np.testing.assert_array_equal(bob.read_volume(tmp_path / "again.nii").affine, volume.affine)
