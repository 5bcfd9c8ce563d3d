"""Where crops lie and how they are read."""

import numpy as np
import pytest

from tests.data.conftest import SHAPE, TRAIN, image_of, label_of
from ukbob_jax.data.options import Crops, Labels
from ukbob_jax.data.source import ScanSource
from ukbob_jax.data.transforms import PlaceCrops, ReadBatch, rows_of
from ukbob_jax.data.unpack import unpack
from ukbob_jax.errors import FileError

CROP = (8, 30, 6)  # longer than the scan along y


@pytest.fixture
def sample(store):
    return ScanSource(store, TRAIN, Labels("auto"))[1]


def places(store, sample, number=50, **options):
    step = PlaceCrops(store, "auto", Crops(CROP, **options), batch_size=4)
    return [step.random_map(sample, np.random.default_rng(seed)) for seed in range(number)]


def test_crops_lie_inside_and_take_the_whole_of_a_short_axis(store, sample):
    for [place] in places(store, sample):
        assert place.size.tolist() == [8, 20, 6] and place.start[1] == 0
        assert (place.start >= 0).all() and (place.start + place.size <= SHAPE).all()


def test_a_centred_crop_holds_a_voxel_of_a_class(store, sample):
    label = label_of(1)
    for [place] in places(store, sample, foreground=1.0):
        window = tuple(slice(low, low + n) for low, n in zip(place.start, place.size))
        assert label[window].any()


def test_views_stay_inside_however_far_they_may_shift(store, sample):
    for views in places(store, sample, views=3, max_shift=100):
        assert len(views) == 3
        for place in views:
            assert (place.start >= 0).all() and (place.start + place.size <= SHAPE).all()


def nnunets(store, sample, index, number=60, crop=CROP):
    step = PlaceCrops(store, "auto", Crops(crop, 0.33, sampling="nnunet"), batch_size=4)
    found = [step.random_map(sample._replace(index=index), np.random.default_rng(n)) for n in range(number)]
    return [place for [place] in found]


def test_nnunet_centres_the_last_rows_of_a_batch(store, sample):
    """Two voxels of organ 9 are all that is drawn in a third of the centred crops, and in no other."""
    corners = np.argwhere(label_of(1) == 9) - np.array(CROP) // 2
    for index in range(8):  # 4 * (1 - 0.33) rounds to 3
        starts = [place.start - place.before for place in nnunets(store, sample, index)]
        centred = [start for start in starts if any(start[0] == c[0] and start[2] == c[2] for c in corners)]
        assert (len(centred) > 8) == (index % 4 == 3)


def test_nnunet_lets_a_centred_crop_reach_beyond_the_upper_ends_alone(store, sample):
    crop = (12, 30, 16)  # along y 10 voxels more than the scan
    centred, anywhere = (nnunets(store, sample, index, crop=crop) for index in (3, 0))
    for place in anywhere:
        assert place.before.tolist() == [0, 5, 0] and place.size.tolist() == [12, 20, 16]
    over = [place for place in centred if (place.start + crop > SHAPE)[[0, 2]].any()]
    assert over and all(place.before[[0, 2]].tolist() == [0, 0] for place in centred)
    for place in over:
        np.testing.assert_array_equal(place.size[[0, 2]], np.minimum(crop, SHAPE - place.start)[[0, 2]])


def test_nnunet_puts_the_odd_voxel_on_either_side(store, sample):
    before = [place.before[1] for place in nnunets(store, sample, 0, crop=(8, 23, 8))]
    assert set(before) == {1, 2}


@pytest.mark.parametrize("sampling, outside", [("nnunet", 0), ("balanced", 255)])
def test_beyond_the_scan_is_background_to_nnunet(store, sample, sampling, outside):
    step = PlaceCrops(store, "auto", Crops((30, 30, 30), 1.0, sampling=sampling), batch_size=1)
    places = step.random_map(sample, np.random.default_rng(0))
    [place] = places
    found = unpack(ReadBatch(store, "auto", (30, 30, 30), "window:0:1000").map(places))
    before = (30 - place.size) // 2 if place.before is None else place.before
    inside = tuple(slice(b, b + n) for b, n in zip(before, place.size))
    beyond = np.ones((30,) * 3, bool)
    beyond[inside] = False
    scan = tuple(slice(low, low + n) for low, n in zip(place.start, place.size))
    np.testing.assert_array_equal(found["label"][0][inside], label_of(1)[scan])
    np.testing.assert_allclose(found["image"][0][inside], image_of(1)[scan] / 1000, rtol=1e-6)
    assert (found["label"][0][beyond] == outside).all() and not found["image"][0][beyond].any()


def test_crops_may_be_centred_on_regions(store):
    regions = ((5, 7, 9), (9,), (1, 2))
    of_regions = ScanSource(store, TRAIN, Labels("auto", regions=regions))[1]
    assert of_regions.classes == {0: (5, 7, 9), 1: (9,)}


def test_rows_are_the_views_of_one_sample_after_the_other():
    assert rows_of([["a0", "a1"], ["b0", "b1"]]) == ["a0", "a1", "b0", "b1"]


@pytest.mark.parametrize("label_set", ["auto", None])
def test_a_batch_holds_the_voxels_as_stored(store, sample, label_set):
    [[place]] = places(store, sample, number=1)
    batch = ReadBatch(store, label_set, CROP, "zscore").map([place])
    middle = (slice(None), slice(5, 25), slice(None))  # y: 30 voxels for 20
    window = tuple(slice(low, low + n) for low, n in zip(place.start, place.size))
    stored = np.moveaxis(batch["stored"][0], 0, -1)
    np.testing.assert_array_equal(stored[middle], image_of(1)[window])
    assert not stored[:, :5].any() and not stored[:, 25:].any() and batch["size"].tolist() == [[8, 20, 6]]
    assert ("label" in batch) == ("lookup" in batch) == (label_set is not None)
    if label_set:
        np.testing.assert_array_equal(batch["label"][0][middle], label_of(1)[window])


@pytest.mark.parametrize("label_set", ["auto", None])
def test_a_crop_that_cannot_be_read_counts_for_nothing(store, sample, monkeypatch, label_set):
    def broken(subject, *_):
        raise FileError(f"subject {subject}, image: damaged.")

    [[place]] = places(store, sample, number=1)
    monkeypatch.setattr(store, "fetch", broken)
    with pytest.raises(FileError, match="subject s1, image: damaged"):
        ReadBatch(store, label_set, CROP, "zscore").map([place])
    with pytest.warns(UserWarning, match=r"subject s1, image: damaged\. Such crops are ignored"):
        batch = ReadBatch(store, label_set, CROP, "zscore", "skip").map([place])
    assert not batch["stored"].any()
    if label_set:
        assert (batch["label"] == 255).all()
    else:
        assert batch["size"].tolist() == [[0, 0, 0]]  # nothing of the row is the scan's
