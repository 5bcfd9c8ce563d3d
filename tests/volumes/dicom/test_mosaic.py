"""Siemens mosaics: tiles to slices, where they lie, and what a header must say."""

import nibabel as nib
import numpy as np
import pytest

from tests.volumes import real
from tests.volumes.dicom.mosaic_files import csa_header, mosaic
from tests.volumes.dicom.series_files import volume, write
from ukbob_jax.errors import FileError, GeometryError
from ukbob_jax.volumes import dicom

OBLIQUE = np.linalg.qr(np.array([[1, 0.2, 0.1], [-0.15, 1, 0.3], [0.1, -0.25, 1]]))[0].T * [[-1], [-1], [-1]]
UID = "1.2.3.4"
# Directions of `volume` as columns; a flip of the last is a stack against the cross product of rows and columns.
DIRECTIONS = {
    "axial": np.diag([-1, -1, 1]),
    "sagittal": np.array([[0, 0, -1], [-1, 0, 0], [0, -1, 0]]),
    "oblique": OBLIQUE,
}


def right_handed(directions) -> np.ndarray:
    """With the slices along the cross product of rows and columns."""
    return np.array(directions) * [1, 1, np.sign(np.linalg.det(np.array(directions, float)))]


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize(
    "said, backwards",
    [("tag", False), ("bytes", False), ("csa", False), ("both", False), ("csa", True), ("both", True)],
)  # without a CSA header slices go along the cross product
def test_tiles_become_slices_at_their_places(name, said, backwards, tmp_path):
    truth = volume(right_handed(DIRECTIONS[name]))
    normal = np.diag([-1, -1, 1]) @ truth.affine[:3, 2] / truth.spacing_mm[2] * (-1 if backwards else 1)
    tags = {"SliceNormalVector": list(map(float, normal)), "NumberOfImagesInMosaic": [5]}
    csa = None if said in ("tag", "bytes") else csa_header(**tags)
    one = mosaic(truth, count=said if said == "bytes" else said != "csa", csa=csa, backwards=backwards)
    found = dicom.read_series(write(tmp_path, [one]))
    np.testing.assert_array_equal(found.array, truth.to_ras().array)
    np.testing.assert_allclose(found.affine, truth.to_ras().affine, atol=1e-6)


def test_several_mosaics_are_a_time_series(tmp_path):
    truths = [volume(right_handed(OBLIQUE), seed) for seed in range(3)]
    write(tmp_path, [mosaic(truth, n, SeriesInstanceUID=UID) for n, truth in enumerate(truths, 1)])
    with pytest.raises(FileError, match=f"3 images: {UID}:1 .*acquisition 1, 7 x 6, 5 slices.*{UID}:3"):
        dicom.read_series(tmp_path)
    expected = np.stack([truth.to_ras().array for truth in truths], -1)
    np.testing.assert_array_equal(dicom.read_series(tmp_path, channels=True).array, expected)
    np.testing.assert_array_equal(dicom.read_series(tmp_path, f"{UID}:2").array, expected[..., 1])
    np.testing.assert_array_equal(
        dicom.read_series(tmp_path, f"{UID}:2-3", channels=True).array, expected[..., 1:]
    )


FLAWS = {
    "no count": ({"count": False}, r"a mosaic that does not say how many slices.*\(0019,100A\)"),
    "CSA cut off": ({"count": False, "csa": csa_header(NumberOfImagesInMosaic=[5])[:60]}, "does not say how many"),
    "CSA is text": ({"count": False, "csa": b"no header"}, "does not say how many"),
    "no step": ({"SpacingBetweenSlices": None}, "without SpacingBetweenSlices"),
    "other normal": ({"csa": csa_header(SliceNormalVector=[1.0, 0.0, 0.0])}, "SliceNormalVector"),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAWS)
def test_a_mosaic_that_does_not_say_enough_is_refused(name, tmp_path):
    options, message = FLAWS[name]
    folder = write(tmp_path, [mosaic(volume(right_handed(DIRECTIONS["axial"])), **options)])
    with pytest.raises(GeometryError, match=rf"IM0000: .*{message}") as caught:
        dicom.read_series(folder)
    assert "\n" not in str(caught.value)


def test_a_mosaic_of_another_number_of_tiles_is_refused(tmp_path):
    one = mosaic(volume(right_handed(DIRECTIONS["axial"])))
    one = one._replace(pixels=one.pixels[:-1])
    with pytest.raises(GeometryError, match="5 slices, 3 x 3 tiles, does not fit 17 rows and 21 columns"):
        dicom.read_series(write(tmp_path, [one]))


def test_private_blocks_may_lie_elsewhere(tmp_path):
    """Where another program has taken the first block, Siemens' is the second."""
    one = mosaic(volume(right_handed(DIRECTIONS["axial"])), count=False)
    for place, creator in ((0x00190010, "ANOTHER"), (0x00190011, "SIEMENS MR HEADER")):
        one.dataset.add_new(place, "LO", creator)
    one.dataset.add_new(0x0019100A, "US", 4)
    one.dataset.add_new(0x0019110A, "US", 5)
    assert dicom.read_series(write(tmp_path, [one])).shape == (7, 6, 5)


def test_a_mosaic_that_is_cut_off_is_named(tmp_path):
    folder = write(tmp_path, [mosaic(volume(right_handed(DIRECTIONS["axial"])))])
    (folder / "IM0000").write_bytes((folder / "IM0000").read_bytes()[:-40])
    with pytest.raises(FileError, match="IM0000: damaged"):
        dicom.read_series(folder)


@pytest.mark.parametrize(
    "series, expected", [("mr_0003", "EPI_PE=AP_3"), ("mr_0005", "EPI_PE=RL_5"), ("mr_0006", "EPI_PE=LR_6")]
)
def test_a_scanners_mosaics_are_what_dcm2niix_makes_of_them(series, expected):
    folder = real.folder("dicom_nifti") / "nih_siemens_mosaic"
    truth = nib.as_closest_canonical(nib.load(folder / "Ref" / f"{expected}.nii"))
    found = dicom.read_series(folder / series, channels=True)
    np.testing.assert_array_equal(found.array, np.asarray(truth.dataobj))
    np.testing.assert_allclose(found.affine, truth.affine, atol=1e-5)
