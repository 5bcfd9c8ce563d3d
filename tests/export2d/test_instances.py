"""All components of all classes at once, compared with scipy's labels of one mask at a time."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, spatial

from ukbob_jax.errors import ValuesError
from ukbob_jax.export2d import instances, png

EIGHT = np.ones((3, 3), int)


def volume(seed=0, shape=(6, 21, 17), classes=5, smooth=True):
    values = np.random.default_rng(seed).random((classes, *shape))
    if smooth:
        values = ndimage.gaussian_filter(values, (0, 0, 1.2, 1.2))
    return values.argmax(0).astype(np.uint8)


def masks(found, i):
    h, w = (n - 1 for n in found.ids.shape[1:])
    return found.ids[found.slices[i], :h, 1:][:, :w] == found.components[i]


def one_by_one(labels, least):
    for s, image in enumerate(labels):
        for organ in np.unique(image[image > 0]):
            pieces, count = ndimage.label(image == organ, EIGHT)
            kept = [pieces == piece for piece in range(1, count + 1)]
            kept = [m for m in kept if m.sum() >= least * m.size and not m.all()]
            for number, mask in enumerate(sorted(kept, key=lambda m: np.flatnonzero(m)[0])):
                yield s, organ, number, mask


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("least", [0.0, 8 / 357])
def test_components_are_those_of_each_mask_alone(smooth, least):
    labels = volume(smooth=smooth)
    found, wanted = instances.find(labels, least), list(one_by_one(labels, least))
    assert len(found.slices) == len(wanted) > 20
    for i, (s, organ, number, mask) in enumerate(wanted):
        assert (found.slices[i], found.organs[i], found.numbers[i]) == (s, organ, number)
        np.testing.assert_array_equal(masks(found, i), mask)
        rows = np.flatnonzero(mask.any(1))
        assert (found.tops[i], found.bottoms[i]) == (rows[0], rows[-1])


def test_what_is_left_out_is_counted():
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[0, 0, 0], labels[0, 2:, 2:] = 1, 1  # a pixel, and a block that stays
    labels[1] = 2  # all of the slice
    found = instances.find(labels, 2 / 20)
    assert (found.small, found.full, len(found.slices)) == (1, 1, 1)
    assert found.nonempty.tolist() == [[0, 1], [1, 2]]
    empty = instances.find(labels * 0, 0.1)
    assert len(empty.slices) == len(empty.nonempty) == empty.small == 0


@pytest.mark.parametrize("distance", [1.9, 2.0, 3.0])
def test_components_that_are_near_become_one(distance):
    labels = volume(3, shape=(4, 18, 20), classes=4)
    alone, together = instances.find(labels), instances.find(labels, merge_pixels=distance)
    for s, organ in alone.nonempty:
        mine = [i for i in range(len(alone.slices)) if (alone.slices[i], alone.organs[i]) == (s, organ)]
        groups = [[masks(alone, i)] for i in mine]
        joined = True
        while joined:  # as the words say: as long as two are near, they are one
            joined = False
            for a in range(len(groups)):
                for b in range(a + 1, len(groups)):
                    pixels = [np.argwhere(np.any(groups[g], 0)) for g in (a, b)]
                    if not joined and spatial.distance.cdist(*pixels).min() <= distance:
                        groups[a] += groups.pop(b)
                        joined = True
                        break
                if joined:
                    break
        ours = [
            i for i in range(len(together.slices)) if (together.slices[i], together.organs[i]) == (s, organ)
        ]
        wanted = sorted((np.any(group, 0) for group in groups), key=lambda m: np.flatnonzero(m)[0])
        assert len(ours) == len(wanted)
        for i, mask in zip(ours, wanted):
            np.testing.assert_array_equal(masks(together, i), mask)
    if distance >= 2:
        assert len(together.slices) < len(alone.slices)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 9), st.integers(2, 9)),
    classes=st.integers(2, 5),
    seed=st.integers(0, 99),
    distance=st.sampled_from([0.0, 2.0]),
)
def test_masks_make_the_labels_again(shape, classes, seed, distance):
    """Through the PNG files: every pixel is in one mask of its class, unless its instance covers the slice."""
    labels = np.random.default_rng(seed).integers(0, classes, shape).astype(np.uint8)
    found = instances.find(labels, merge_pixels=distance)
    back = np.zeros_like(labels)
    for i, s in enumerate(found.slices):
        place = int(found.components[i]), int(found.tops[i]), int(found.bottoms[i])
        with Image.open(io.BytesIO(png.mask(found.ids[s], *place, shape[1]))) as image:
            inside = np.array(image) > 0
        assert not back[s][inside].any()
        back[s][inside] = found.organs[i]
    full = [len(np.unique(image)) == 1 and image[0, 0] > 0 for image in labels]
    assert found.full == sum(full)
    np.testing.assert_array_equal(back, np.where(np.array(full)[:, None, None], 0, labels))


def test_more_instances_than_names_are_refused():
    labels = np.zeros((1, 64, 64), np.uint8)
    labels[0, ::2, ::2] = 1
    with pytest.raises(ValuesError, match="1024 instances in a slice"):
        instances.find(labels)
