import numpy as np
import pytest

from ukbob_jax.errors import ValuesError
from ukbob_jax.volumes import voxels


def test_integer_images_stay_and_floats_become_float32():
    whole = np.arange(8, dtype=np.uint16).reshape(2, 2, 2)
    assert voxels.image("x", whole, "refuse") is whole
    found = voxels.image("x", whole / 3, "refuse")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, (whole / 3).astype(np.float32))


def test_not_finite_voxels_are_refused_or_set_to_zero():
    array = np.ones((2, 3, 4))
    array[0, 2, 1], array[1, 0, 0] = np.nan, 1e300  # beyond float32: infinite there
    with pytest.raises(
        ValuesError, match=r"^x: 2 of 24 voxels are NaN or infinite, the first at \(0, 2, 1\)"
    ):
        voxels.image("x", array, "refuse")
    with pytest.warns(UserWarning, match="2 NaN or infinite voxels set to zero"):
        found = voxels.image("x", array, "zero")
    assert found.sum() == 22 and found[0, 2, 1] == found[1, 0, 0] == 0


@pytest.mark.parametrize(
    "ids, num_classes, dtype",
    [
        ([0, 3, 255], 4, np.uint8),
        ([0.0, 3.0, 255.0], 4, np.uint8),
        ([0, 255], None, np.uint8),
        ([0, 256], None, np.uint16),
        ([0, 299], 300, np.uint16),
    ],
)
def test_labels_take_the_smallest_type_that_holds_them(ids, num_classes, dtype):
    found = voxels.label("x", np.array(ids), num_classes)
    assert found.dtype == dtype and found.tolist() == ids


@pytest.mark.parametrize(
    "array, num_classes, message",
    [
        ([0.0, 0.5, 0.5], 4, r"label values 0\.5 \(2 voxels\) are not whole numbers"),
        ([0, -1], 4, r"label values -1 \(1 voxel\) are negative"),
        ([4, 9, 9, 255, 256], 4, r"4 \(1 voxel\), 9 \(2 voxels\), 256 \(1 voxel\) are not among .* 0 to 3"),
        ([np.nan, 1, np.inf], 4, "2 label voxels are NaN or infinite"),
        ([65536], None, "are not among the classes 0 to 65535"),
        (range(10, 22), 4, "and 4 more are not among"),
    ],
)
def test_what_is_no_label_is_refused_with_ids_and_counts(array, num_classes, message):
    with pytest.raises(ValuesError, match=f"^x: .*{message}"):
        voxels.label("x", np.array(array), num_classes)


def test_labels_that_were_rounded_elsewhere_are_made_whole_with_a_warning():
    given = np.array([0, 1, 1.9999999, 14.0004], np.float32)
    with pytest.warns(UserWarning, match=r"^x: labels are up to 0\.0004 away from whole numbers"):
        found = voxels.label("x", given, None)
    assert found.dtype == np.uint8 and found.tolist() == [0, 1, 2, 14]


def test_refused_values_are_shown_with_every_digit():
    with pytest.raises(ValuesError, match=r"1\.9989 \(1 voxel\), 3\.0012345 \(1 voxel\) are not whole"):
        voxels.label("x", np.array([0, 1.9989, 3.0012345]), None)
