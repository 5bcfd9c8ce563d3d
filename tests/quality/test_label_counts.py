import numpy as np
import pytest

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import GeometryError
from ukbob_jax.quality.label_counts import LONGEST_AXIS, label_counts

CLASSES = 5


@pytest.fixture(scope="module")
def counted():
    """A map with single voxels, blocks and ignored ones, and its counts."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES - 1, (9, 11, 14)).astype(np.uint8)  # class 4 is absent
    label[2:6, 3:9, 4:12] = 3
    label[rng.uniform(size=label.shape) < 0.05] = IGNORE
    return label, label_counts(label, CLASSES)


@pytest.mark.parametrize("organ", range(CLASSES))
def test_planes_and_moments_are_those_of_every_voxel(counted, organ):
    label, counts = counted
    mask = label == organ
    _, y, z = np.indices(label.shape)
    np.testing.assert_array_equal(counts.along_x[organ], mask.sum((1, 2)))
    np.testing.assert_array_equal(counts.along_y[organ], mask.sum((0, 2)))
    np.testing.assert_array_equal(counts.along_z[organ], mask.sum((0, 1)))
    np.testing.assert_array_equal(counts.y_by_x[organ], (mask * y).sum((1, 2)))
    np.testing.assert_array_equal(counts.z_by_x[organ], (mask * z).sum((1, 2)))
    np.testing.assert_array_equal(counts.z_by_y[organ], (mask * z).sum((0, 2)))


@pytest.mark.parametrize("organ", range(CLASSES))
def test_cells_are_counted_by_the_pattern_of_their_corners(counted, organ):
    label, counts = counted
    framed = np.pad(label, 1, constant_values=IGNORE)
    corners = [
        framed[dx : framed.shape[0] - 1 + dx, dy : framed.shape[1] - 1 + dy, dz : framed.shape[2] - 1 + dz]
        for dx in (0, 1) for dy in (0, 1) for dz in (0, 1)
    ]  # fmt: skip
    pattern = sum((corner == organ).astype(int) << bit for bit, corner in enumerate(corners))
    expected = np.bincount(pattern.ravel(), minlength=256)
    # uniform cells (255) and cells without the class (0) are left out or left to others
    np.testing.assert_array_equal(np.asarray(counts.cells)[organ, 1:255], expected[1:255])


def test_the_highest_label_leaves_ignore_out(counted):
    label, counts = counted
    assert int(counts.highest) == label[label != IGNORE].max() == 3


@pytest.mark.parametrize("shape", [(3, 3), (3, 0, 3), (1, 1, LONGEST_AXIS + 1)])
def test_shapes_that_cannot_be_counted_are_refused(shape):
    with pytest.raises(GeometryError, match=f"need x y z with 1 to {LONGEST_AXIS} voxels each"):
        label_counts(np.zeros(shape, np.uint8), CLASSES)
