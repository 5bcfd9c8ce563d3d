"""Heads on earlier decoder steps: their loss, their gradient, and that nothing else sees them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.toy import CLASSES
from ukbob_jax import weights
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.training import losses

TINY = SwinUNETR(1, 3, feature_size=4, num_heads=(1, 2, 2, 4), window_size=2, depths=(1, 1, 1, 1))
DEEP = dataclasses.replace(TINY, deep_supervision=4)
SIZE = (32, 32, 32)
STRIDES = tuple((2**level,) * 3 for level in range(5))  # of DEEP's logits


def pyramid(rng, size, levels, classes=CLASSES):
    """Logits as the network gives them for maps of `size`: whole, then of the padded size, halved and halved again."""
    padded = [-(-s // 32) * 32 for s in size]
    sizes = [size, *([s // 2**level for s in padded] for level in range(1, levels + 1))]
    return [rng.normal(size=(2, *one, classes)).astype(np.float32) for one in sizes]


def soft_dice_and_cross_entropy(logits, labels):
    """Of one resolution, voxel by voxel from the definition, in float64; 255 is ignored."""
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=-1, keepdims=True)
    seen = labels != 255
    surprise = [-np.log(p[i][labels[i]]) for i in map(tuple, np.argwhere(seen))]
    terms = []
    for case in range(len(labels)):
        for k in range(p.shape[-1]):
            t, q = (labels[case] == k)[seen[case]], p[case, ..., k][seen[case]]
            terms.append(1 - (2 * q[t].sum() + 1e-5) / (q.sum() + t.sum() + 1e-5))
    return np.mean(terms) + np.mean(surprise)


@pytest.mark.parametrize("size", [(32, 32, 32), (20, 9, 33)])
def test_the_loss_is_the_weighted_sum_over_sizes_by_hand(size):
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 3, 255], (2, *size)).astype(np.uint8)
    logits = pyramid(rng, size, 2)
    expected = 0.0
    for level, weight in enumerate((4 / 7, 2 / 7, 1 / 7)):
        s = 2**level
        middles = np.ix_(
            *(range(s // 2, n, s) for n in size)
        )  # first voxel beyond the middle of each coarse one
        few = np.stack([one[middles] for one in labels])
        x, y, z = few.shape[1:]
        expected += weight * soft_dice_and_cross_entropy(logits[level][:, :x, :y, :z], few)
    # float32 sums of 32**3 terms against float64
    np.testing.assert_allclose(
        jax.jit(losses.deep(losses.dice_ce, STRIDES[:3]))(logits, labels), expected, rtol=2e-6
    )


def test_nnunet_leaves_out_the_lowest_resolution():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, (2, *SIZE)).astype(np.uint8)
    logits = pyramid(rng, SIZE, 2)
    weights_of = np.array([1, 1 / 2, 0])  # `nnUNetTrainer._build_loss`
    each = [
        losses.dice_ce(maps, labels[:, *(slice(s // 2, None, s) for s in stride)])
        for maps, stride in zip(logits, STRIDES)
    ]
    found = losses.deep(losses.dice_ce, STRIDES[:3], lowest=False)(logits, labels)
    np.testing.assert_allclose(found, weights_of @ np.array(each) / weights_of.sum(), rtol=1e-6)
    only = losses.deep(losses.dice_ce, STRIDES[:1], lowest=False)
    assert only(logits[:1], labels) == each[0]


def test_coarse_labels_are_those_of_nearest_exact_interpolation():
    torch = pytest.importorskip("torch")
    labels = np.random.default_rng(0).integers(0, 256, (2, *SIZE)).astype(np.uint8)
    given = []
    loss = losses.deep(lambda z, few: given.append(few) or jnp.float32(0), STRIDES)
    loss(pyramid(np.random, SIZE, 4, 1), labels)
    for level, few in enumerate(given):
        size = [n // 2**level for n in SIZE]
        whole = torch.tensor(labels[:, None].astype(np.float32))
        theirs = torch.nn.functional.interpolate(whole, size=size, mode="nearest-exact")[:, 0]
        np.testing.assert_array_equal(few, theirs.numpy().astype(np.uint8))


@pytest.mark.parametrize("loss", ["dice_ce", "dice_bce_labels", "regions"])
def test_nothing_labelled_or_nothing_annotated_is_no_loss_at_any_size(loss):
    """Regions nest, and partly annotated cases keep their meaning: the options reach every size."""
    rng = np.random.default_rng(0)
    function, values = getattr(losses, loss, None), [0, 1, 2, 3]
    if loss == "regions":
        function = functools.partial(losses.dice_bce_regions, regions=((1, 2, 4), (1, 4), (4,), (2,)))
        values = [0, 1, 2, 4]
    function = jax.jit(losses.deep(function, STRIDES[:3]))
    labels, logits = rng.choice(values, (2, *SIZE)).astype(np.uint8), pyramid(rng, SIZE, 2)
    assert function(logits, np.full_like(labels, 255)) == 0
    whole = function(logits, labels)
    first = function([z[:1] for z in logits], labels[:1])
    annotated = np.ones((2, 256 if loss == "regions" else CLASSES), bool)
    np.testing.assert_allclose(function(logits, labels, annotated=annotated), whole, rtol=1e-6)
    annotated[1, 1:] = False
    partly = function(logits, labels, annotated=annotated)
    if loss == "dice_ce":  # background against everything: its probability is 1, its surprise 0
        assert 0 < partly < whole
    else:  # the second case does not count
        np.testing.assert_allclose(partly, first, rtol=1e-5)


def test_strides_may_differ_from_axis_to_axis():
    labels = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 9)).astype(np.uint8)
    given = []
    loss = losses.deep(lambda z, few: given.append((z.shape, few)) or jnp.float32(1), ((1, 1, 1), (1, 2, 3)))
    logits = [np.zeros((2, 4, 6, 9, 3), np.float32), np.zeros((2, 4, 4, 3, 3), np.float32)]  # y is padded
    assert loss(logits, labels) == 1 and [shape for shape, _ in given] == [(2, 4, 6, 9, 3), (2, 4, 3, 3, 3)]
    np.testing.assert_array_equal(given[1][1], labels[:, :, 1::2, 1::3])
    with pytest.raises(ValueError, match="1 logits, but strides of 2"):
        loss(logits[:1], labels)


def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *SIZE, 1)))["params"]


def test_off_is_the_same_tree_and_on_adds_heads_alone():
    plain, with_heads = shapes(TINY), shapes(DEEP)
    heads = {"aux_0", "aux_1", "aux_2", "aux_3"}
    assert set(with_heads) - set(plain) == heads and not heads & set(plain)
    assert {name: tree for name, tree in with_heads.items() if name not in heads} == plain


def test_inference_and_export_know_nothing_of_the_heads():
    image = jax.ShapeDtypeStruct((1, *SIZE, 1), jnp.float32)
    programs = [
        jax.make_jaxpr(model.apply)({"params": shapes(TINY)}, image)
        for model in (TINY, DEEP)  # with the same weights: without heads
    ]
    assert str(programs[0]) == str(programs[1])
    values = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes(DEEP))
    exported = weights.to_monai(values, DEEP)
    assert {name: value.shape for name, value in exported.items()} == {
        name: value.shape
        for name, value in weights.to_monai(weights.from_monai(exported, TINY), TINY).items()
    }
    assert jax.tree.structure(weights.from_monai(exported, DEEP)) == jax.tree.structure(shapes(TINY))


@pytest.mark.slow
def test_a_head_sends_gradient_to_the_deepest_step_without_the_last_ones():
    image = np.random.default_rng(0).normal(size=(1, *SIZE, 1)).astype(np.float32)
    variables = DEEP.init(jax.random.key(0), image)
    labels = np.random.default_rng(1).integers(0, 3, (1, *SIZE)).astype(np.uint8)

    @jax.jit
    def gradients(params):
        def loss(params):
            logits = DEEP.apply({"params": params}, image, train=True)
            return losses.deep(losses.dice_ce, STRIDES)(
                [jax.lax.stop_gradient(logits[0]), *logits[1:]], labels
            )

        return jax.grad(loss)(params)

    largest = jax.tree.map(lambda g: float(jnp.abs(g).max()), gradients(variables["params"]))
    for head in ("aux_0", "aux_1", "aux_2", "aux_3"):
        assert largest[head]["kernel"] > 0
    assert largest["decoder5"]["upsample"]["kernel"] > 0 and largest["swin"]["patch_embed"]["kernel"] > 0
    assert max(jax.tree.leaves((largest["decoder1"], largest["head"]))) == 0


@pytest.mark.parametrize("levels", [-1, 5])
def test_other_numbers_of_steps_are_refused(levels):
    with pytest.raises(ValueError, match=rf"deep_supervision {levels} must be 0 to 4"):
        dataclasses.replace(TINY, deep_supervision=levels).init(
            jax.random.key(0), np.zeros((1, *SIZE, 1), np.float32)
        )
