"""Probes: the classifiers against independent ones, where voxels are looked up, and which are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny_network import Tiny
from ukbob_jax.data import whole
from ukbob_jax.errors import ConfigError
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.training.probes import classify, probe, voxels
from ukbob_jax.training.probes.voxels import ProbeOptions

SHAPE, CROP = (10, 12, 20), (8, 16, 8)


def clouds(seed, n, spread):
    """Points around three centres in five dimensions, and which centre each is of."""
    rng = np.random.default_rng(seed)
    centres = 3 * np.eye(3, 5)
    classes = rng.integers(0, 3, n)
    return (centres[classes] + spread * rng.normal(size=(n, 5))).astype(np.float32), classes


def test_nearest_neighbours_are_those_found_one_by_one():
    (train, classes), (test, _) = clouds(0, 300, 1.5), clouds(1, 270, 1.5)
    found = classify.knn(train, classes, test, neighbours=5, num_classes=3)
    for row, guess in zip(test, np.asarray(found)):
        nearest = np.argsort(((train.astype(np.float64) - row) ** 2).sum(1))[:5]
        votes = np.bincount(classes[nearest], minlength=3)
        assert votes[guess] == votes.max()


def test_of_as_many_votes_the_nearer_count():
    train, classes = np.array([[1.0], [-0.5], [2.0], [-4.0]], np.float32), np.array([0, 1, 0, 1])
    assert classify.knn(train, classes, np.zeros((1, 1), np.float32), neighbours=2, num_classes=2) == 1
    assert classify.knn(train, classes, np.ones((1, 1), np.float32), neighbours=4, num_classes=2) == 0


def test_ridge_is_the_least_squares_solution_of_the_augmented_problem():
    """Rows weighted by their class, and one more row per column for the penalty, solved by another routine."""
    (train, classes), (test, _) = clouds(2, 120, 2.0), clouds(3, 200, 2.0)
    weight = 1 / (3 * np.bincount(classes)[classes])
    mean, wanted = weight @ train.astype(np.float64), np.eye(3)[classes]
    root = np.sqrt(weight)[:, None]
    left = np.vstack([root * (train - mean), np.sqrt(0.3) * np.eye(5)])
    right = np.vstack([root * (wanted - weight @ wanted), np.zeros((5, 3))])
    solution = np.linalg.lstsq(left, right, rcond=None)[0]
    expected = np.argmax((test - mean) @ solution + weight @ wanted, axis=1)
    np.testing.assert_array_equal(classify.ridge(train, classes, test, strength=0.3, num_classes=3), expected)


def test_clear_classes_are_told_apart_and_noise_is_at_chance():
    for spread, low, high in ((0.2, 0.99, 1.0), (1e4, 0.2, 0.47)):
        (train, classes), (test, true) = clouds(4, 400, spread), clouds(5, 400, spread)
        train, test = classify.standardised(train, test)
        guesses = (
            classify.knn(train, classes, test, neighbours=9, num_classes=3),
            classify.ridge(train, classes, test, strength=0.1, num_classes=3),
        )
        for guess in guesses:
            assert low <= classify.balanced_accuracy(np.asarray(guess), true) <= high


def test_every_class_counts_the_same_in_the_accuracy():
    true = np.array([0] * 8 + [1] * 2)
    assert classify.balanced_accuracy(np.zeros(10, int), true) == 0.5
    assert classify.balanced_accuracy(true, true) == 1.0


def test_constant_columns_become_zero():
    train = np.stack([np.full(5, 0.1, np.float32), np.arange(5, dtype=np.float32)], axis=1)
    found, other = classify.standardised(train, train + 1)
    assert not found[:, 0].any() and not other[:, 0].any()
    np.testing.assert_allclose(found[:, 1].std(), 1, rtol=1e-6)


def test_a_linear_map_is_interpolated_exactly_between_its_centres():
    """A map at half the size along y and z that holds the world's position gives it back, but at the edges."""
    size = (4, 8, 12)
    centres = np.meshgrid(np.arange(4), 2 * np.arange(4) + 0.5, 2 * np.arange(6) + 0.5, indexing="ij")
    level = jnp.asarray(np.stack(centres, axis=-1), jnp.float32)
    places = np.array([[0, 1, 1], [3, 6, 10], [2, 3, 7]], np.float32)
    np.testing.assert_allclose(voxels.at_places(level, size, jnp.asarray(places)), places, atol=1e-5)
    edge = voxels.at_places(level, size, jnp.zeros((1, 3)))
    np.testing.assert_allclose(edge, [[0, 0.5, 0.5]], atol=1e-6)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three scans whose brightness tells two structures and the background apart, a third with half the labels."""
    path = tmp_path_factory.mktemp("probe") / "store"
    with StoreWriter(path) as writer:
        for number, split in enumerate(("train", "val", "val")):
            rng = np.random.default_rng(number)
            cells = rng.permutation(np.arange(16) % 3).reshape(2, 2, 4)
            label = cells.repeat(5, 0).repeat(6, 1).repeat(5, 2).astype(np.uint8)
            label[0] = 255
            image = (100 + 200 * label.astype(np.int16) * (label < 255))[..., None] + rng.integers(
                0, 20, (*SHAPE, 1), dtype=np.int16
            )
            about = {"annotated": (1, 2, 3)} if number == 2 else {}
            writer.write(
                f"s{number}", image, np.eye(4), {"manual": label}, source=str(number), split=split,
                contrasts=("t1",), **about,
            )  # fmt: skip
    return Store.open(path)


def test_windows_hold_every_voxel_that_was_drawn_once(store):
    windows = voxels.draw(store, "manual", "s0", CROP, 30, (0, 0))
    label = store.read("s0", "label/manual")
    found = np.concatenate([window.places + window.start for window in windows]).astype(int)
    classes = np.concatenate([window.classes for window in windows])
    assert len(np.unique(found, axis=0)) == len(found) == 90
    np.testing.assert_array_equal(label[tuple(found.T)], classes)
    np.testing.assert_array_equal(np.bincount(classes), [30, 30, 30])
    for window in windows:
        assert (window.places >= 0).all() and (window.places < CROP).all()
        image = whole.read_window(store, "s0", ("t1",), "zscore", window.start, CROP)
        inside = window.places.astype(int)
        expected = whole.read_image(store, "s0", ("t1",), "zscore")[tuple((inside + window.start).T)]
        np.testing.assert_array_equal(image[tuple(inside.T)], expected)
    again = voxels.draw(store, "manual", "s0", CROP, 30, (0, 0))
    jax.tree.map(np.testing.assert_array_equal, [w.places for w in again], [w.places for w in windows])


def test_no_background_is_drawn_where_other_structures_may_lie(store):
    windows = voxels.draw(store, "manual", "s2", CROP, 5, (0, 0))
    assert set(np.concatenate([window.classes for window in windows])) == {1, 2}


def test_tiles_cover_the_scan_and_small_ones_lie_in_the_middle():
    starts = whole.tiles((10, 12, 20), CROP)
    assert [s.tolist() for s in starts] == [[0, 2], [-2], [0, 6, 12]]


def test_a_network_that_shows_brightness_is_found_to_know_structures(store):
    options = ProbeOptions(every=1, label="manual", voxels=20, neighbours=3)
    model = Tiny(1, 1)
    ask = probe.build(
        options, model, store=store, split=store.split, contrasts=("t1",), normalize="zscore", crop=CROP
    )
    variables = model.init(jax.random.key(0), jnp.zeros((1, *CROP, 1)))
    numbers = ask(variables)
    assert numbers == ask(variables)
    assert numbers["probe/chance"] == pytest.approx(1 / 3)
    assert 0.6 < numbers["probe/knn"] <= 1 and 0.6 < numbers["probe/linear"] <= 1
    blind = jax.tree.map(jnp.zeros_like, variables)
    assert ask(blind)["probe/linear"] == pytest.approx(1 / 3)
    assert np.isnan(ask(jax.tree.map(lambda p: p * jnp.nan, variables))["probe/knn"])


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"label": "auto"}, "config.probe.test_split: no subject of 'val' in .* has the label set 'auto'"),
        ({"test_split": "test"}, "config.probe.test_split: .*no split 'test'"),
        ({"test_split": "train"}, "config.probe.train_split: .* and is not on the other side too"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_field(store, changes, named):
    options = ProbeOptions(**{"every": 1, "label": "manual", **changes})
    with pytest.raises(ConfigError, match=named):
        probe.build(
            options,
            Tiny(1, 1),
            store=store,
            split=store.split,
            contrasts=("t1",),
            normalize="zscore",
            crop=CROP,
        )


@pytest.mark.parametrize(
    "field, value, named",
    [
        ("every", -1, "config.probe.every: -1 is less than 0"),
        ("voxels", 0, "config.probe.voxels: 0 is less than 1"),
        ("kind", ("svm",), "config.probe.kind: 'svm' is unknown; choose from knn, linear"),
        ("ridge", 0.0, "config.probe.ridge: 0.0 is not above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(field, value, named):
    with pytest.raises(ConfigError, match=named):
        ProbeOptions(**{field: value})
