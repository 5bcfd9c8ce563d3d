"""What the pages of the report show."""

import numpy as np

from ukbob_jax.evaluation.pages.labels import middle_voxel


def test_planes_go_through_the_label_even_where_its_centre_does_not():
    mask = np.zeros((9, 5, 5), bool)
    mask[[0, 1, 8], 2, 2] = True  # the mean, x = 3, is outside
    np.testing.assert_array_equal(middle_voxel(mask), (1, 2, 2))
