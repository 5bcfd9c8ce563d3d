"""Where crops lie and how they are read."""

import numpy as np
import pytest

from tests.data.conftest import SHAPE, TRAIN, image_of, label_of
from ukbob_jax.data.options import Crops, Labels
from ukbob_jax.data.source import ScanSource
from ukbob_jax.data.transforms import PlaceCrops, ReadBatch, rows_of
from ukbob_jax.errors import FileError

CROP = (8, 30, 6)  # longer than the scan along y


@pytest.fixture
def sample(store):
    return ScanSource(store, TRAIN, Labels("auto"))[1]


def places(store, sample, number=50, **options):
    step = PlaceCrops(store, "auto", Crops(CROP, **options))
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
