"""Label maps on the preprocessed grid."""

import numpy as np
import pytest
from scipy import ndimage

from ukbob_jax.inference.nnunet import labels, resample
from ukbob_jax.inference.nnunet.plans import Resampling

ARGUMENTS = {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}
CASES = (  # shape, spacing, new spacing: isotropic, thick before, thick after, both, halved (ties everywhere)
    ((9, 11, 13), (1.4, 2.2, 0.9), (1.1, 1.3, 1.2)),
    ((10, 15, 16), (8.0, 1.0, 1.0), (2.0, 2.0, 1.0)),
    ((15, 12, 14), (1.0, 1.0, 1.0), (1.0, 6.0, 1.0)),
    ((10, 15, 16), (8.0, 1.0, 1.0), (8.0, 2.0, 1.0)),
    ((12, 12, 12), (1.0, 1.0, 1.0), (2.0, 2.0, 2.0)),
)


def label_map(shape):
    noise = np.random.default_rng(0).normal(size=(5, *shape))
    return ndimage.gaussian_filter(noise, (0, 2, 2, 2)).argmax(0).astype(np.int16) - 1


@pytest.mark.parametrize("order, order_z", [(0, 0), (1, 0), (1, 1)])
@pytest.mark.parametrize("shape, spacing, new", CASES)
def test_labels_are_those_of_nnunet(shape, spacing, new, order, order_z):
    pytest.importorskip("nnunetv2")
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    given, arguments = label_map(shape), {**ARGUMENTS, "order": order, "order_z": order_z}
    wanted = [round(a / b * n) for a, b, n in zip(spacing, new, shape)]
    theirs = resample_data_or_seg_to_shape(given[None], wanted, spacing, new, **arguments)[0]
    np.testing.assert_array_equal(labels.resize(given, wanted, spacing, new, arguments), theirs)


def test_the_label_with_the_largest_share_of_a_voxel_wins_and_the_nearest_at_a_tie():
    row = np.array([0, 0, 0, 1, 1, 2], np.int16).reshape(1, 1, 6)
    found = labels.resize(row, (1, 1, 4), (1, 1, 1), (1, 1, 1.5), ARGUMENTS)
    # voxel centres at 0.25, 1.75, 3.25 and 4.75 of the old ones
    assert found.ravel().tolist() == [0, 0, 1, 2]
    halved = labels.resize(row, (1, 1, 3), (1, 1, 1), (1, 1, 2), ARGUMENTS)
    nearest = ndimage.zoom(row.astype(float), (1, 1, 0.5), order=0, mode="nearest", grid_mode=True)
    assert halved.ravel().tolist() == nearest.ravel().tolist()  # between 0 and 1, and between 1 and 2


def test_thick_slices_are_not_mixed():
    slices = np.zeros((2, 4, 4), np.int16)
    slices[1] = 3
    found = labels.resize(slices, (6, 4, 4), (9, 1, 1), (3, 1, 1), ARGUMENTS)
    assert found[:, 0, 0].tolist() == [0, 0, 0, 3, 3, 3]


def test_the_same_shape_is_left_alone():
    given = label_map((4, 4, 4))
    assert labels.resize(given, (4, 4, 4), (1, 1, 1), (2, 2, 2), ARGUMENTS) is given


def test_an_order_along_z_cuts_each_mask_at_one_half():
    slices = np.zeros((4, 3, 3), np.int16)
    slices[1], slices[2], slices[3] = 1, 1, 2
    found = labels.resize(slices, (3, 3, 3), (9, 1, 1), (12, 1, 1), {**ARGUMENTS, "order_z": 1})
    # at 1/6, 3/2 and 17/6 of the old slices: 5/6 of 0, 1, 5/6 of 2
    assert found[:, 0, 0].tolist() == [0, 1, 2]
    halved = labels.resize(slices, (2, 3, 3), (9, 1, 1), (18, 1, 1), {**ARGUMENTS, "order_z": 1})
    assert not halved.any()  # one half each: none is above it


def test_what_is_outside_the_mask_is_no_background_while_a_voxel_is_decided():
    """Voxels of two by two by two: the label with most of the eight wins, without having half of them."""
    blocks = [[1, 1, 1, 2, 2, 3, 3, 0], [0, 0, 0, 0, 1, 1, 1, 2], [3, 3, 2, 2, 2, 2, 1, 0]]
    ids = np.concatenate([np.reshape(block, (2, 2, 2)) for block in blocks], axis=2)
    nonzero = np.ones(ids.shape, bool)
    nonzero[0, 0, 2:4] = False  # two of the second block's background; at the border, so no hole
    how = Resampling(resample.DEFAULT, ARGUMENTS)
    spacing, halved = (1.0, 1.0, 1.0), (2.0, 2.0, 2.0)
    found = labels.on_array_grid(ids, nonzero, (1, 1, 3), spacing, halved, how, "")
    assert found.ravel().tolist() == [1, 1, 2]
    found = labels.on_array_grid(ids, np.ones_like(nonzero), (1, 1, 3), spacing, halved, how, "")
    assert found.ravel().tolist() == [1, 0, 2]
    for memory in (False, True):  # interpolation of PyTorch: the most, or above one half
        how = Resampling(resample.TORCH, {"is_seg": True, "memefficient_seg_resampling": memory})
        found = labels.on_array_grid(ids, nonzero, (1, 1, 3), spacing, halved, how, "")
        assert found.ravel().tolist() == ([0, 0, 0] if memory else [1, 1, 2])


@pytest.mark.parametrize("extra", [{}, {"memefficient_seg_resampling": True}, {"force_separate_z": False}])
@pytest.mark.parametrize("shape, spacing, new", CASES)
def test_labels_of_pytorchs_interpolation_are_those_of_nnunet(shape, spacing, new, extra):
    pytest.importorskip("nnunetv2")
    from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet

    given, arguments = label_map(shape), {"is_seg": True, **extra}
    given[ndimage.binary_fill_holes(given >= 0) & (given < 0)] = 0  # a hole is inside
    wanted = [round(a / b * n) for a, b, n in zip(spacing, new, shape)]
    theirs = resample_torch_fornnunet(given[None], wanted, spacing, new, **arguments)[0]
    how = Resampling(resample.TORCH, arguments)
    found = labels.on_array_grid(np.maximum(given, 0), given >= 0, wanted, spacing, new, how, "")
    np.testing.assert_array_equal(found, theirs)
