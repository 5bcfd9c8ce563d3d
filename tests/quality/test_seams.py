import functools

import jax
import numpy as np
import pytest
from scipy import ndimage

from ukbob_jax.errors import MismatchError
from ukbob_jax.quality import measure, seams

SHAPE, CLASSES = (9, 8, 14), 6


def example(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, SHAPE).astype(np.uint8)
    station = np.zeros(SHAPE, np.int32) + (np.arange(SHAPE[2]) > 6)
    station[:4, :, 11:] = 2  # a step in the seam, so that it also runs along x
    return labels, station


def slow(labels: np.ndarray, station: np.ndarray) -> np.ndarray:
    """Voxels that a dilation of any other station reaches."""
    cross = ndimage.generate_binary_structure(3, 1)
    near = np.zeros(SHAPE, bool)
    for one in np.unique(station):
        near |= (station == one) & ndimage.binary_dilation(station != one, cross)
    return np.bincount(labels[near], minlength=CLASSES)


@pytest.mark.parametrize("seed", range(3))
def test_counts_the_voxels_that_a_dilation_finds(seed):
    labels, station = example(seed)
    expected = slow(labels, station)
    np.testing.assert_array_equal(seams.contact(labels, station, CLASSES), expected)
    inside = jax.jit(functools.partial(seams.contact, num_classes=CLASSES))
    np.testing.assert_array_equal(inside(labels, station), expected)


def test_measures_give_the_share_of_every_organ():
    labels, _ = example()
    per_slice = (np.arange(SHAPE[2]) > 6).astype(np.int32)  # slices 6 and 7 meet
    found = measure(labels, (1.0, 1.0, 1.0), CLASSES, station=per_slice)
    expected = [np.mean(np.isin(np.nonzero(labels == k)[2], (6, 7))) for k in range(CLASSES)]
    np.testing.assert_allclose(found.seam_contact, expected)
    assert not measure(labels, (1.0, 1.0, 1.0), CLASSES).seam_contact.any()


def test_the_border_of_what_no_station_saw_is_no_seam():
    labels, station = example()
    station[:] = 1
    station[..., :3], station[..., -2:] = seams.IGNORE, -1
    assert not seams.contact(labels, station, CLASSES).any()


def test_refuses_a_map_of_another_shape():
    labels, station = example()
    with pytest.raises(MismatchError, match="one number per voxel"):
        seams.contact(labels, station[1:], CLASSES)
