import numpy as np
import pytest
from nibabel.affines import voxel_sizes

from tests.volumes.grids import oblique
from ukbob_jax.errors import GeometryError
from ukbob_jax.volumes import affine


@pytest.mark.parametrize("seed", range(5))
def test_spacing_is_nibabels_and_turning_shears_nothing(seed):
    matrix = oblique(seed)
    np.testing.assert_allclose(affine.spacing(matrix), voxel_sizes(matrix))
    assert affine.shear(matrix) < 1e-12
    affine.check(matrix, "x")
    affine.check_shear(matrix, "x")


@pytest.mark.parametrize("degrees", [90.0, 89.99, 60.0])
def test_shear_is_the_cosine_between_two_axes(degrees):
    matrix = np.eye(4)
    angle = np.deg2rad(degrees)
    matrix[:2, 1] = 3 * np.cos(angle), 3 * np.sin(angle)
    assert affine.shear(matrix) == pytest.approx(np.cos(angle), abs=1e-12)


def test_sheared_axes_are_refused():
    matrix = np.eye(4)
    matrix[0, 1] = 0.01
    with pytest.raises(
        GeometryError, match=r"^x: the affine is sheared: cosine 0\.00999\d* .* at most 0\.001"
    ):
        affine.check_shear(matrix, "x")


@pytest.mark.parametrize(
    "matrix, message",
    [
        (np.eye(3), r"shape \(3, 3\); expected \(4, 4\)"),
        (np.diag([1, np.inf, 1, 1]), "holds NaN or infinity"),
        (np.diag([1, 0, 1, 1.0]), "voxel spacing"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "determinant"),
    ],
)
def test_what_maps_no_voxel_is_refused(matrix, message):
    with pytest.raises(GeometryError, match=f"^x: .*{message}"):
        affine.check(matrix, "x")


def test_corner_distance_of_a_shift_and_of_a_turn():
    shifted = np.eye(4)
    shifted[:3, 3] = 3, 4, 12
    assert affine.corner_distance_mm(np.eye(4), shifted, (5, 6, 7)) == pytest.approx(13)
    turned = np.diag([-1.0, -1, 1, 1])  # by half a circle: the far corner goes to the other side
    assert affine.corner_distance_mm(np.eye(4), turned, (4, 5, 9, 2)) == pytest.approx(2 * np.hypot(3, 4))
