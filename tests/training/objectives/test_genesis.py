"""Models Genesis: how images are spoilt, against the values of its authors' functions."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.errors import ConfigError
from ukbob_jax.training.objectives import genesis, shuffle
from ukbob_jax.training.objectives.genesis import GenesisOptions

SEED = 4100


@pytest.fixture(scope="module")
def found(ssl):
    return ssl("genesis")


def image_of(array):
    """`c x y z` as `x y z c`."""
    return np.moveaxis(array, 0, -1)


def flat_box(draw, size, low, high):
    """Sides and then the start of one box, drawn one after the other as the reference draws them."""
    sides = [draw.randint(low(n), high(n)) for n in size]
    return [draw.randint(3, n - side - 3) for n, side in zip(size, sides)], sides


@pytest.mark.reference
def test_intensity_maps_equal_the_reference(found):
    for case in found.values["bezier"]:
        x, points = np.array(case["x"], np.float32), (np.array(case[p], np.float32) for p in ("p1", "p2"))
        first, second = points
        steep = 1e-3 if first[0] < 0.01 else 1e-5  # an upright tangent, between two of 1000 points
        np.testing.assert_allclose(genesis.bezier(x, first, second), case["increasing"], atol=steep)
        np.testing.assert_allclose(genesis.bezier(x, first, second, True), case["inverted"], atol=steep)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["01", "z"])
@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_mapped_images_equal_the_reference(found, name, seed):
    """The curve's points, and whether it falls, come from the reference's stream."""
    image = found.arrays["mg_x01" if name == "01" else "mg_z"]
    draw = random.Random(seed)
    draw.random()  # whether at all
    first, second = np.array([[draw.random(), draw.random()] for _ in range(2)], np.float32)
    mapped = genesis.bezier(image, first, second, draw.random() < 0.5)
    np.testing.assert_allclose(mapped, found.arrays[f"mg_nonlinear_{name}_{seed}"], atol=2e-5)


@pytest.mark.reference
def test_the_last_windows_are_those_of_the_reference(found):
    """With the reference's windows and its permutations, voxel for voxel."""
    image, want = found.arrays["mg_x01"][0], found.arrays["mg_shuffled"][0]
    size, draw, numbers = image.shape, random.Random(SEED), np.random.RandomState(SEED)
    draw.random()  # whether at all
    sides, starts, contents = [], [], []
    for _ in range(10_000):
        side = [draw.randint(1, n // 10) for n in size]
        start = [draw.randint(0, n - s) for n, s in zip(size, side)]
        window = image[tuple(slice(low, low + s) for low, s in zip(start, side))].flatten()
        numbers.shuffle(window)
        sides.append(side), starts.append(start), contents.append(window)
    starts, sides = np.array(starts, np.int32), np.array(sides, np.int32)
    owner = np.asarray(
        shuffle.last_windows(jnp.asarray(starts), jnp.asarray(sides), size, [n // 10 for n in size])
    )
    assert (image[owner < 0] == want[owner < 0]).all()
    place = np.stack(np.indices(size), -1) - starts[owner]
    number = (place[..., 0] * sides[owner, 1] + place[..., 1]) * sides[owner, 2] + place[..., 2]
    got = [contents[w][p] for w, p in zip(owner[owner >= 0], number[owner >= 0])]
    np.testing.assert_array_equal(got, want[owner >= 0])


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["in", "out"])
def test_painted_images_equal_the_reference(found, kind):
    image, want = image_of(found.arrays["mg_x01"]), image_of(found.arrays[f"mg_{kind}painting"])
    size, draw, numbers = image.shape[:3], random.Random(SEED), np.random.RandomState(SEED)
    boxes, noise = [], np.zeros(image.shape, np.float32)
    if kind == "out":
        noise[..., 0] = numbers.rand(1, *size)[0]
        sides = [n - draw.randint(3 * n // 7, 4 * n // 7) for n in size]
        boxes.append([draw.randint(3, n - s - 3) for n, s in zip(size, sides)] + sides)
    left = 5 if kind == "in" else 4
    while left > 0 and draw.random() < 0.95:
        if kind == "in":
            start, sides = flat_box(draw, size, lambda n: n // 6, lambda n: n // 3)
            noise[(*(slice(low, low + s) for low, s in zip(start, sides)), 0)] = numbers.rand(*sides)
        else:
            sides = [n - draw.randint(3 * n // 7, 4 * n // 7) for n in size]
            start = [draw.randint(3, n - s - 3) for n, s in zip(size, sides)]
        boxes.append([*start, *sides])
        left -= 1
    got = genesis.painted(
        jnp.asarray(image), jnp.asarray(boxes, jnp.int32), jnp.asarray(noise), kind == "out"
    )
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_drawn_boxes_have_the_sides_and_margins_of_the_paper():
    size = (28, 28, 35)
    keys = jax.random.split(jax.random.key(0), 400)
    for outside in (False, True):
        boxes = jax.jit(jax.vmap(lambda key, o=outside: genesis.draw_boxes(key, size, jnp.asarray(o))))(keys)
        boxes = np.asarray(boxes)
        used = (boxes[..., 3:] > 0).all(-1)
        starts, sides = boxes[used][:, :3], boxes[used][:, 3:]
        low, high = ([n - 4 * n // 7, n - 3 * n // 7] if outside else [n // 6, n // 3] for n in size), None
        for axis, (least, most) in enumerate(low):
            assert (sides[:, axis].min(), sides[:, axis].max()) == (least, most), high
        assert starts.min() == 3 and ((starts + sides).max(0) == np.array(size) - 3).all()
        assert used.sum(1).min() == (1 if outside else 0) and used.sum(1).max() == 5


def test_a_share_of_the_crop_is_replaced_as_by_the_reference():
    """The means over 300 seeds there: 0.050 and 0.726."""
    keys = jax.random.split(jax.random.key(0), 200)
    ones = jnp.ones((28, 28, 28, 1))

    @jax.jit
    @jax.vmap
    def share(key):
        found = [
            genesis.painted(ones, genesis.draw_boxes(key, (28, 28, 28), jnp.asarray(o)), 0 * ones, o)
            for o in (False, True)
        ]
        return jnp.stack([1 - x.mean() for x in found])

    inside, outside = np.asarray(share(keys)).mean(0)
    np.testing.assert_allclose([inside, outside], [0.0502, 0.7263], atol=0.012)  # three standard errors


def test_a_shuffle_takes_every_value_from_its_own_window():
    image = jnp.arange(20 * 24 * 30.0).reshape(20, 24, 30, 1).repeat(2, 3)
    moved = np.asarray(jax.jit(lambda key: shuffle.shuffled(key, image, 3000))(jax.random.key(0)))
    assert (moved[..., 0] == moved[..., 1]).all()  # all contrasts alike
    assert 0.4 < (moved[..., 0] != image[..., 0]).mean() < 0.9
    there = np.stack(np.unravel_index(moved[..., 0].astype(int), (20, 24, 30)), -1)
    reach = np.abs(there - np.stack(np.indices((20, 24, 30)), -1)).reshape(-1, 3).max(0)
    assert (reach <= [1, 1, 2]).all() and (reach > 0).all()  # sides of up to a tenth


def test_permutations_are_bijections_and_mix():
    length = np.arange(1, 65)
    window = np.repeat(length - 1, length).astype(np.int32)
    place = np.concatenate([np.arange(n) for n in length]).astype(np.int32)
    longest = length[window].astype(np.int32)
    draws = [
        np.asarray(
            shuffle.permuted(
                jax.random.key(s), jnp.asarray(place), jnp.asarray(longest), jnp.asarray(window), 64
            )
        )
        for s in range(40)
    ]
    for moved in draws:
        for n in length:
            assert sorted(moved[window == n - 1]) == list(range(n))
    to = np.stack(draws)[:, window == 63]  # 40 permutations of 64 places
    assert abs(to.mean() - 31.5) < 1e-6 and 10 < np.abs(to - np.arange(64)).mean() < 32
    assert (to[:, 0] != to[:, 0][0]).any()


@pytest.fixture(scope="module")
def spoilt():
    """100 pairs of one image in each form."""
    image = jnp.asarray(np.random.default_rng(0).normal(size=(14, 16, 20, 2)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 100)
    pairs = {}
    for form in genesis.FORMS:
        options = GenesisOptions(form=form, windows=200)
        pairs[form] = jax.jit(jax.vmap(lambda k, o=options: genesis.pair(k, image, o)))(keys)
    return np.asarray(image), {form: tuple(map(np.asarray, both)) for form, both in pairs.items()}


def test_the_target_is_flipped_and_otherwise_the_image(spoilt):
    image, pairs = spoilt
    ways = [image[::a, ::b, ::c] for a in (1, -1) for b in (1, -1) for c in (1, -1)]
    counts = [sum(np.array_equal(target, way) for target in pairs["paper"][1]) for way in ways]
    assert sum(counts) == 100 and 40 < counts[0] < 85 and counts[1] > 0  # about 0.6; z too
    in_theirs = [
        target for target in pairs["nnssl"][1] if any(np.array_equal(target, way) for way in ways[1::2])
    ]
    assert not in_theirs  # z is never flipped there


def test_the_papers_form_keeps_the_range_of_the_image_and_nnssls_collapses_it(spoilt):
    image, pairs = spoilt
    low, high = image.min((0, 1, 2)), image.max((0, 1, 2))
    seen = pairs["paper"][0]
    assert (seen >= low - 1e-5).all() and (seen <= high + 1e-5).all()
    assert (np.abs(seen - pairs["paper"][1]).max((1, 2, 3, 4)) > 0).mean() > 0.95
    ends = ((pairs["nnssl"][0] == 0) | (pairs["nnssl"][0] == 1)).mean((1, 2, 3, 4))
    assert np.median(ends) > 0.15  # beyond [0, 1], where no noise is
    assert (((seen == low) | (seen == high)).mean()) < 0.02


def test_crops_too_short_for_painting_and_bad_options_are_refused():
    with pytest.raises(ConfigError, match=r"config.data.crop: \(13, 20, 20\) has a side below 14"):
        genesis.pair(jax.random.key(0), jnp.zeros((13, 20, 20, 1)), GenesisOptions())
    for fields, named in (
        ({"flip": 2.0}, "flip: 2.0"),
        ({"windows": 0}, "windows: 0"),
        ({"form": "x"}, "form: 'x'"),
    ):
        with pytest.raises(ConfigError, match=f"config.pretrain.{named}"):
            GenesisOptions(**fields)


@pytest.mark.reference
def test_the_references_targets_are_flipped_inputs_too(found):
    image = found.arrays["mg_x01"]
    for seed in (4100, 4105, 4106):
        for row, source in enumerate((image, image[:, ::-1])):
            target = found.arrays[f"mg_pair_target_{seed}"][row]
            assert any(np.array_equal(target, source[:, ::a, ::b]) for a in (1, -1) for b in (1, -1))
