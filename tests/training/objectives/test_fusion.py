"""Volume Fusion in both forms: mixing, draws and loss."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.objectives.conftest import check, last
from ukbob_jax.errors import ConfigError
from ukbob_jax.training import losses
from ukbob_jax.training.objectives import fusion
from ukbob_jax.training.objectives.fusion import FusionOptions

SIZE = (14, 19, 17)


@pytest.mark.reference
def test_boxes_mix_as_in_the_reference(ssl):
    arrays = ssl("fusion").arrays
    mixed, target = fusion.volume_fusion(
        last(arrays["vf_fg"]), last(arrays["vf_bg"]), jnp.asarray(arrays["vf_boxes"], jnp.int32),
        jnp.asarray(arrays["vf_class"], jnp.int32), 5,
    )  # fmt: skip
    np.testing.assert_array_equal(target, last(arrays["vf_target"])[..., 0])
    np.testing.assert_allclose(mixed, last(arrays["vf_mixed"]), rtol=0, atol=1e-6)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["loss_total", "loss_class_missing"])
def test_the_loss_is_the_references_and_one(ssl, name):
    found = ssl("fusion")
    target = last(found.arrays["vf_target"])[..., 0].astype(np.int32)
    target = np.where(target == 3, 0, target) if name == "loss_class_missing" else target
    check(
        lambda x: losses.dice_ce(x, target) - 1,
        found.values[name],
        last(found.arrays["vf_logits"]),
        names=("x",),
        channels_first=("x",),
    )


@pytest.mark.reference
@pytest.mark.parametrize("seed", [4100, 4101])
def test_tiles_are_the_originals(ssl, seed):
    """The grid is found again in the reference's classes; with it and its classes, ours are equal."""
    found = ssl("fusion")
    want = found.arrays[f"vfo_tiled_{seed}_y"][0].astype(np.int32)
    case = found.values["original"][f"tiled_{seed}"]
    cell, first = grid_of(want, case["patchsize_min"], case["patchsize_max"])
    whole = [n // c for n, c in zip(SIZE, cell)]
    starts = [np.arange(w) * c + f for w, c, f in zip(whole, cell, first)]
    classes = want[np.ix_(*starts)]
    rank = np.where(classes > 0, 0.0, 1.0)  # those with a class first
    assert (classes > 0).sum() == int(case["ratio"] * classes.size)
    got = fusion.tiled_classes(SIZE, *map(jnp.asarray, (cell, first, rank, classes)), case["ratio"])
    np.testing.assert_array_equal(got, want)
    front, back = (last(found.arrays[f"vfo_{name}"][None]) for name in "ab")
    image = fusion.mixed(front, back, got[None], 5)
    np.testing.assert_allclose(image, last(found.arrays[f"vfo_tiled_{seed}_x"][None]), atol=1e-6)


def grid_of(want, smallest, largest):
    """Sides and first voxel of the only grid with sides in these ranges that the classes fit, if any does."""
    cell, first = [], []
    for axis, n in enumerate(SIZE):
        flat = np.moveaxis(want, axis, 0).reshape(n, -1)
        edges = set(np.flatnonzero((flat[1:] != flat[:-1]).any(1)) + 1)
        fits = [
            (side, start)
            for side in range(smallest[axis], largest[axis] + 1)
            for start in range(n % side + 1)
            if edges == {e for e in range(start, start + n // side * side + 1, side) if 0 < e < n}
        ]
        assert len(fits) == 1, fits
        cell.append(fits[0][0])
        first.append(fits[0][1])
    return np.array(cell), np.array(first)


def test_drawn_tiles_have_their_share_of_every_class_and_margins_of_background():
    options = FusionOptions(smallest=3, largest=6)
    keys = jax.random.split(jax.random.key(0), 64)
    every = FusionOptions(smallest=3, largest=6, share=1.0)
    classes, whole = (
        np.asarray(jax.vmap(lambda k, o=o: fusion.draw_tiles(k, SIZE, o))(keys)) for o in (options, every)
    )
    assert set(np.unique(classes)) == {0, 1, 2, 3, 4}
    counts = np.bincount(classes.ravel(), minlength=5)[1:]
    assert counts.max() < 1.2 * counts.min()
    share = (classes > 0).sum((1, 2, 3)) / (whole > 0).sum((1, 2, 3))  # of the 12 whole cells or more
    assert (share <= 0.7 + 1e-6).all() and (share > 0.7 - 1 / 12).all()
    assert not (classes[whole == 0]).any() and (whole == 0).any()
    assert len({row.tobytes() for row in classes}) == 64


def test_drawn_boxes_lie_inside_and_their_number_varies():
    options = FusionOptions(form="nnssl", smallest=3, fewest=2, most=7)
    keys = jax.random.split(jax.random.key(0), 200)
    boxes, classes = jax.vmap(lambda key: fusion.draw_boxes(key, SIZE, options))(keys)
    boxes, classes = np.asarray(boxes), np.asarray(classes)
    used = boxes[..., 3] > 0
    assert set(used.sum(1)) == set(range(2, 8)) and set(classes.ravel()) == set(range(5))
    starts, sides = boxes[used][:, :3], boxes[used][:, 3:]
    assert (starts >= 0).all() and (starts + sides <= SIZE).all()
    for axis, n in enumerate(SIZE):
        assert sides[:, axis].min() == 3 and sides[:, axis].max() == int(0.625 * n)
        assert (starts + sides)[:, axis].max() == n  # the last place is reached


def test_a_mixed_image_lies_between_its_two():
    rng = random.Random(0)
    front, back = jnp.full((1, *SIZE, 2), 3.0), jnp.full((1, *SIZE, 2), -1.0)
    boxes = jnp.asarray([[[rng.randrange(5), rng.randrange(5), 2, 4, 6, 8] for _ in range(4)]], jnp.int32)
    image, target = fusion.volume_fusion(front, back, boxes, jnp.asarray([[4, 1, 2, 3]]), 5)
    np.testing.assert_allclose(image[..., 1], -1 + np.asarray(target), atol=1e-6)


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"form": "mine"}, "config.pretrain.form: 'mine'"),
        ({"classes": 1}, "config.pretrain.classes: 1"),
        ({"share": 0.0}, "config.pretrain.share: 0.0"),
        ({"smallest": 40}, "config.pretrain.smallest: 40"),
        ({"fewest": 40}, "config.pretrain.fewest: 40"),
        ({"widest": 1.5}, "config.pretrain.widest: 1.5"),
    ],
)
def test_options_that_cannot_be_used_are_refused(fields, named):
    with pytest.raises(ConfigError, match=named):
        FusionOptions(**fields)
    with pytest.raises(ConfigError, match=r"config.pretrain.smallest: 20 voxels do not fit"):
        fusion.draw_tiles(jax.random.key(0), SIZE, FusionOptions(smallest=20))
