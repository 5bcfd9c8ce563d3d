import numpy as np
import pytest

from ukbob_jax import phantom
from ukbob_jax.errors import ConfigError
from ukbob_jax.phantom import grid


@pytest.mark.parametrize("shape", [(96, 96, 96), (64, 32, 128), (7, 5, 3)])
def test_voxels_tile_the_field_of_view(shape):
    edges = [axis[0] - s / 2 for axis, s in zip(grid.axes_mm(shape), phantom.spacing_mm(shape))]
    assert np.allclose(np.multiply(phantom.spacing_mm(shape), shape), phantom.FIELD_OF_VIEW_MM)
    assert np.allclose(edges, (-250, -150, 0), atol=1e-3)


@pytest.mark.parametrize("shape", [(96, 96), (96, 0, 96)])
def test_a_shape_must_be_three_counts(shape):
    with pytest.raises(ConfigError, match="three voxel counts"):
        phantom.subject(0, shape)


def test_affine_gives_the_axes_in_ras():
    shape = (10, 6, 22)
    matrix = phantom.affine(shape)
    assert matrix.dtype == np.float64 and np.all(np.diag(matrix)[:3] > 0)
    for axis, values in enumerate(grid.axes_mm(shape)):
        index = np.zeros((len(values), 4))
        index[:, axis], index[:, 3] = np.arange(len(values)), 1
        assert np.allclose((index @ matrix.T)[:, axis], values, atol=1e-3)
