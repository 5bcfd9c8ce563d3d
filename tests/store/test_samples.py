import numpy as np

from tests.store.conftest import AFFINE, SHAPE, volume
from ukbob_jax.store import samples, schema
from ukbob_jax.store.reader import Store
from ukbob_jax.store.samples import draw, valid
from ukbob_jax.store.writer import StoreWriter


def test_samples_are_voxels_of_their_class(store):
    _, label = volume(0)
    samples = store.samples("sub-0", "auto")
    assert sorted(samples) == [1, 2, 3, 4]
    for organ, voxels in samples.items():
        assert voxels.shape == (schema.SAMPLES, 3) and voxels.dtype == np.int32
        assert len(np.unique(voxels, axis=0)) == schema.SAMPLES
        assert (label[tuple(voxels.T)] == organ).all()
        np.testing.assert_array_equal(store.sample("sub-0", "auto", organ), voxels)


def test_few_voxels_are_all_sampled_and_ignore_is_not(tmp_path):
    image, _ = volume(0)
    label = np.zeros(SHAPE, np.uint8)
    label[3, 4, 5] = label[30, 20, 10] = 9
    label[0] = 255
    StoreWriter(tmp_path).write("a", image, AFFINE, {"auto": label, "empty": label * 0}, source="")
    samples = Store.open(tmp_path).samples("a", "auto")
    assert {organ: voxels.tolist() for organ, voxels in samples.items()} == {9: [[3, 4, 5], [30, 20, 10]]}
    assert Store.open(tmp_path).samples("a", "empty") == {}


def test_drawn_voxels_are_of_their_class_distinct_and_the_same_each_time():
    label = np.random.default_rng(0).choice(
        np.array([0, 2, 9, 255], np.uint8), (20, 30, 10), p=[0.5, 0.3, 0.01, 0.19]
    )
    present, drawn = draw(label)
    assert present == [2, 9] and drawn.shape == (2, schema.SAMPLES, 3) and drawn.dtype == np.int16
    for organ, row in zip(present, drawn):
        voxels = valid(row)
        assert len(voxels) == min(schema.SAMPLES, (label == organ).sum()) == len(np.unique(voxels, axis=0))
        assert (label[tuple(voxels.T)] == organ).all()
    np.testing.assert_array_equal(draw(label.copy())[1], drawn)


def test_centres_in_anatomy_are_not_anonymised():
    anatomy, anonymised = np.zeros((2, 4, 4, 4), np.uint8)
    anatomy[1:3], anonymised[2:] = 1, 1
    labels = {"mask/anatomy": anatomy, "mask/anonymisation": anonymised, "auto": anatomy * 7}
    assert np.flatnonzero(samples.centres("mask/anatomy", labels).any((1, 2))).tolist() == [1]
    for name in ("mask/anonymisation", "auto"):
        assert samples.centres(name, labels) is labels[name]
    assert samples.centres("mask/anatomy", {"mask/anatomy": anatomy}) is anatomy


def test_samples_are_spread_over_the_class():
    label = np.ones((16, 16, 64), np.uint8)
    (row,) = draw(label)[1]
    voxels = valid(row)
    # the mean of 512 uniform draws has a spread of n / sqrt(12 * 512); five times that is far out
    centre = (np.array(label.shape) - 1) / 2
    assert (np.abs(voxels.mean(0) - centre) < 5 * np.array(label.shape) / np.sqrt(12 * 512)).all()


def test_a_map_of_background_has_no_samples():
    present, drawn = draw(np.zeros((3, 4, 5), np.uint8))
    assert present == [] and drawn.shape == (0, schema.SAMPLES, 3)


def test_voxels_do_not_depend_on_how_many_are_sorted_at_a_time(monkeypatch):
    """Stores written before blocks were sorted have these voxels too: one block is one sort of the whole."""
    label = np.random.default_rng(1).integers(0, 5, (20, 30, 40)).astype(np.uint8)
    label[:, :10] = 0  # blocks without some class
    present, whole = draw(label)
    monkeypatch.setattr(samples, "BLOCK", 1000)
    blocks = draw(label)
    assert blocks[0] == present
    np.testing.assert_array_equal(blocks[1], whole)
