import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.errors import ConfigError
from ukbob_jax.training import losses

# MONAI's names of the variants -> our function and its options; the reference holds value and gradient of each.
SOFTMAX = {
    "dice_softmax": {"lambda_ce": 0.0},
    "dice_softmax_squared": {"lambda_ce": 0.0, "squared": True},
    "dice_softmax_nobg": {"lambda_ce": 0.0, "include_background": False},
    "dice_softmax_batch": {"lambda_ce": 0.0, "batch": True},
    "dice_softmax_jaccard": {"lambda_ce": 0.0, "jaccard": True},
    "dice_softmax_smooth0": {"lambda_ce": 0.0, "smooth_nr": 0.0, "smooth_dr": 1e-6},
    "dicece_softmax": {},
    "dicece_softmax_squared": {"squared": True},
    "dicece_softmax_squared_smooth0": {"squared": True, "smooth_nr": 0.0, "smooth_dr": 1e-6},
    "dicece_softmax_nobg": {"include_background": False},
    "dicece_softmax_batch": {"batch": True},
    "dicece_softmax_lambdas": {"lambda_dice": 0.3, "lambda_ce": 1.7},
}
SIGMOID = {
    "dice_sigmoid_multilabel": {"lambda_ce": 0.0},
    "dice_bce_multilabel": {},
    "dice_bce_multilabel_squared": {"squared": True},
    "dice_bce_multilabel_squared_smooth0": {"squared": True, "smooth_nr": 0.0, "smooth_dr": 1e-6},
    "dice_bce_multilabel_batch": {"batch": True},
    "dicece_sigmoid_first_channel_only": {},
}
INPUTS = ("random", "class_missing", "only_background", "confident_right", "extreme_logits")


def variant(reference, name):
    """logits `b x y z k`, labels `b x y z`, multi-label targets `b x y z k`; see the reference's README."""
    data = np.load(reference / "losses_metrics" / "loss_inputs.npz")
    logits = np.moveaxis(data["logits"], 1, -1)
    labels, multi = data["labels"][:, 0], np.moveaxis(data["multilabel"], 1, -1)
    if name == "class_missing":
        labels, multi = np.where(labels == 2, 0, labels), multi * (np.arange(4) != 2).astype(np.uint8)
    elif name == "only_background":
        labels, multi = np.zeros_like(labels), np.zeros_like(multi)
    elif name == "confident_right":
        logits = 12.0 * np.eye(4, dtype=np.float32)[labels]
    elif name == "extreme_logits":
        logits = logits * np.float32(200)
    return jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(multi)


@pytest.mark.reference
@pytest.mark.parametrize("name", [*SOFTMAX, *SIGMOID])
def test_value_and_gradient_equal_monai(reference, name):
    expected = json.loads((reference / "losses_metrics" / "losses.json").read_text())
    function, options = (losses.dice_ce, SOFTMAX) if name in SOFTMAX else (losses.dice_bce, SIGMOID)
    for inputs in INPUTS:
        logits, labels, multi = variant(reference, inputs)
        channels = 1 if name.endswith("first_channel_only") else 4
        targets = labels if name in SOFTMAX else multi[..., :channels]
        value, gradient = compiled(function, **options[name])(logits[..., :channels], targets)
        found = [value, np.linalg.norm(gradient), projection(gradient)]
        wanted = [expected[inputs][name][key] for key in ("value", "grad_l2", "grad_proj")]
        # The tolerance the reference suggests for float32: 1e-5 relative plus 2e-6 absolute.
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-6, err_msg=inputs)


def nnunets(logits, target, kind, batch, ignored=False):
    """nnU-Net's loss by torch, from its definition: cross entropy minus soft Dice, smooth 1e-5 (compound_losses.py).

    Args:
        logits: tensor `b k x y z`.
        target: `b x y z` ids, for "bce" the regions `b k x y z`; 255 means ignored.
        ignored: whether the data set has an ignore label.
    """
    torch = pytest.importorskip("torch")
    if kind == "ce":
        k, valid = logits.shape[1], (target != 255)[:, None].float()
        whole = torch.nn.functional.cross_entropy(logits, target, ignore_index=255)
        true = torch.nn.functional.one_hot(torch.where(target == 255, 0, target), k).movedim(-1, 1).float()
        p, true = torch.softmax(logits, 1)[:, 1:], true[:, 1:]  # without background
    else:
        valid, true = (target[:, :1] != 255).float(), (target == 1).float()
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits, true, reduction="none")
        # With an ignore label the sum over regions and voxels is divided by the number of voxels alone.
        whole = (each * valid).sum() / valid.sum() if ignored else each.mean()
        p = torch.sigmoid(logits)
    axes = (0, 2, 3, 4) if batch else (2, 3, 4)
    both, predicted, present = ((a * valid).sum(axes) for a in (p * true, p, true))
    return whole - ((2 * both + 1e-5) / (present + predicted + 1e-5)).mean()


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("kind", ["ce", "bce"])
def test_value_and_gradient_equal_nnunet(kind, batch, ignored):
    """Ours is one more, as 1 - Dice is; its regions with an ignore label are lambda_ce = number of regions."""
    torch = pytest.importorskip("torch")
    z, labels = random_case(shape=(3, 4, 5, 6), classes=4)
    labels[:, 0] = 255 if ignored else labels[:, 0]
    labels[1][labels[1] == 2] = 0
    regions = ((1, 2, 3), (2, 3), (3,), (1,))
    if kind == "ce":
        ours = functools.partial(losses.dice_ce, include_background=False, batch=batch)
        target = torch.tensor(labels)
    else:
        ours = functools.partial(losses.dice_bce_regions, regions=regions, batch=batch)
        ours = functools.partial(ours, lambda_ce=4.0 if ignored else 1.0)
        masks = [np.where(labels == 255, 255, np.isin(labels, ids)) for ids in regions]
        target = torch.tensor(np.stack(masks, axis=1))
    value, gradient = jax.value_and_grad(ours)(z, labels)
    logits = torch.tensor(np.moveaxis(z, -1, 1).copy(), requires_grad=True)
    theirs = nnunets(logits, target, kind, batch, ignored)
    theirs.backward()
    np.testing.assert_allclose(value - 1, theirs.item(), rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(np.moveaxis(gradient, -1, 1), logits.grad.numpy(), rtol=1e-4, atol=1e-7)


def projection(gradient):
    """The reference's order-sensitive checksum of an array `b k x y z`."""
    flat = np.moveaxis(np.asarray(gradient, np.float64), -1, 1).ravel()
    return flat @ np.cos(0.7 * np.arange(flat.size) + 0.3) / np.sqrt(flat.size)


def random_case(seed=0, shape=(2, 3, 4, 5), classes=6):
    rng = np.random.default_rng(seed)
    return 3 * rng.normal(size=(*shape, classes)).astype(np.float32), rng.integers(0, classes, shape)


@functools.cache
def compiled(function, **options):
    """Value and gradient; compiled, because one program is sooner made than thirty of one operation each."""
    return jax.jit(jax.value_and_grad(functools.partial(function, **options)))


@pytest.mark.parametrize(
    "function, options",
    [
        (losses.dice_ce, {}),
        (losses.dice_ce, {"squared": True}),
        (losses.dice_ce, {"batch": True}),
        (losses.dice_ce, {"ce_weight": (1, 2, 3, 4, 5, 6)}),
        (losses.dice_bce_labels, {}),
        (losses.dice_bce_labels, {"batch": True}),
    ],
)
def test_ignored_voxels_count_as_if_they_were_not_there(function, options):
    logits, labels = random_case()
    rest, _ = compiled(function, **options)(np.delete(logits, 1, axis=1), np.delete(labels, 1, axis=1))
    logits[:, 1], labels[:, 1] = 1e4, 255
    whole, gradient = compiled(function, **options)(logits, labels)
    np.testing.assert_allclose(whole, rest, rtol=2e-6)
    assert not np.any(gradient[:, 1]) and np.all(np.any(gradient[:, 0], axis=-1))


@pytest.mark.parametrize(
    "function, options",
    [
        (losses.dice_ce, {}),
        (losses.dice_ce, {"smooth_nr": 0.0, "include_background": False}),
        (losses.dice_ce, {"batch": True, "squared": True}),
        (losses.dice_bce_labels, {}),
    ],
)
def test_a_case_ignored_as_a_whole_counts_as_if_it_were_not_there(function, options):
    """Not as a perfect one (or, without smoothing above the line, a wrong one) that pulls the mean of Dice."""
    logits, labels = random_case()
    alone, _ = compiled(function, **options)(logits[:1], labels[:1])
    labels[1] = 255
    value, gradient = compiled(function, **options)(logits, labels)
    np.testing.assert_allclose(value, alone, rtol=2e-6)
    assert not np.any(gradient[1])


@pytest.mark.parametrize("function", [losses.dice_ce, losses.dice_bce_labels])
def test_nothing_to_learn_from_is_zero_loss_and_gradient(function):
    logits, labels = random_case()
    value, gradient = compiled(function)(logits, np.full_like(labels, 255))
    assert value == 0 and not np.any(gradient)


def test_unannotated_classes_are_part_of_the_background():
    logits, labels = random_case()
    annotated = np.array([[True, True, False, True, False, True]] * 2)
    merged = logits[..., [0, 1, 3, 5]]
    merged[..., 0] = np.log(np.exp(logits[..., [0, 2, 4]]).sum(axis=-1))
    merged_labels = np.array([0, 1, 0, 2, 0, 3])[labels]
    value, _ = compiled(losses.dice_ce)(logits, labels, annotated=annotated)
    np.testing.assert_allclose(value, compiled(losses.dice_ce)(merged, merged_labels)[0], rtol=2e-6)


def test_the_background_may_be_split_among_unannotated_classes_at_will():
    logits, labels = random_case()
    annotated = np.array([[True] * 6, [True, True, False, True, False, True]])
    _, gradient = compiled(losses.dice_ce)(logits, labels, annotated=annotated)
    # Only p_0 + p_2 + p_4 matters, so the pull on each of the three is in proportion to its probability.
    p, pull = np.exp(logits[1]), np.asarray(gradient[1])
    np.testing.assert_allclose(pull[..., 2] * p[..., 0], pull[..., 0] * p[..., 2], rtol=1e-4, atol=1e-6)


def test_all_classes_annotated_is_the_plain_loss():
    logits, labels = random_case()
    value, _ = compiled(losses.dice_ce)(logits, labels, annotated=np.ones((2, 6), bool))
    np.testing.assert_allclose(value, compiled(losses.dice_ce)(logits, labels)[0], rtol=1e-6)


def test_sigmoid_channels_without_annotation_take_no_part():
    logits, labels = random_case()
    annotated = np.array([[True, True, False, True, True, True]] * 2)
    value, gradient = compiled(losses.dice_bce_labels)(logits, labels, annotated=annotated)
    assert not np.any(gradient[..., [0, 2]]) and np.all(gradient[..., 1])
    targets = labels[..., None] == np.array([1, 3, 4, 5])
    expected, _ = compiled(losses.dice_bce)(logits[..., [1, 3, 4, 5]], targets)
    np.testing.assert_allclose(value, expected, rtol=2e-6)


@pytest.mark.parametrize("function", [losses.dice_ce, losses.dice_bce_labels])
@pytest.mark.parametrize("label", [6, 254, -1])
def test_a_label_outside_the_classes_is_nan(function, label):
    logits, labels = random_case()
    labels[0, 0, 0, 0] = label
    assert np.isnan(compiled(function)(logits, labels)[0])


@pytest.mark.parametrize("function", [losses.dice_ce, losses.dice_bce_labels])
def test_compiled_equals_eager_and_uint8_equals_int32(function):
    logits, labels = random_case()
    value, _ = compiled(function)(logits, labels.astype(np.uint8))
    np.testing.assert_allclose(value, function(logits, labels), rtol=2e-6)


def test_bfloat16_logits_are_summed_in_float32():
    logits, labels = random_case(shape=(1, 32, 32, 32))
    half = jnp.asarray(logits, jnp.bfloat16)
    exact, _ = compiled(losses.dice_ce)(half.astype(jnp.float32), labels)
    value, gradient = compiled(losses.dice_ce)(half, labels)
    assert value.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(value, exact, rtol=1e-6)


def test_a_gradient_with_73_classes_stores_no_more_than_two_arrays_like_the_logits():
    logits, labels = random_case(shape=(1, 16, 16, 16), classes=73)
    program = compiled(losses.dice_ce).lower(logits, labels).compile()
    assert program.memory_analysis().temp_size_in_bytes < 2.5 * logits.nbytes


def test_wrong_shapes_are_refused_with_what_was_found():
    logits, labels = random_case()
    with pytest.raises(ValueError, match=r"labels has shape \(2, 3, 4, 5, 1\)"):
        losses.dice_ce(logits, labels[..., None])
    with pytest.raises(ValueError, match="targets has shape"):
        losses.dice_bce(logits, labels)
    with pytest.raises(ValueError, match="annotated has shape"):
        losses.dice_ce(logits, labels, annotated=np.ones((2, 5), bool))


def test_ce_weight_moves_cross_entropy_alone():
    logits, labels = random_case()
    weight = np.array([1.0, 2.0, 0.5, 3.0, 1.0, 4.0])
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=-1, keepdims=True)
    surprise = -np.log(np.take_along_axis(p, labels[..., None], axis=-1)[..., 0])
    plain = losses.dice_ce(logits, labels, lambda_ce=0.0)
    both = losses.dice_ce(logits, labels, ce_weight=weight.tolist())
    expected = float(plain) + (surprise * weight[labels]).sum() / weight[labels].sum()
    np.testing.assert_allclose(both, expected, rtol=1e-5)


def test_options_may_be_given_as_one_value_or_by_keyword():
    logits, labels = random_case()
    options = losses.DiceOptions(squared=True, include_background=False)
    by_keyword = losses.dice_ce(logits, labels, squared=True, include_background=False)
    assert losses.dice_ce(logits, labels, options=options) == by_keyword
    assert losses.dice_ce(logits, labels, options=options, squared=False) != by_keyword
    with pytest.raises(TypeError, match="sqared"):
        losses.dice_ce(logits, labels, sqared=True)
    with pytest.raises(ConfigError, match=r"config\.loss\.smooth_dr: -1 is not a number from 0 on"):
        losses.DiceOptions(smooth_dr=-1)


def test_the_sigmoid_loss_can_leave_the_background_out_of_dice():
    logits, labels = random_case()
    targets = labels[..., None] == np.arange(6)
    options = {"lambda_ce": 0.0, "include_background": False}
    found = losses.dice_bce_labels(logits, labels, **options)
    np.testing.assert_allclose(
        found, losses.dice_bce(logits[..., 1:], targets[..., 1:], lambda_ce=0.0), rtol=1e-6
    )


REGIONS = ((1, 2, 3, 4), (1, 3, 4), (3, 4))  # BraTS: whole tumour, core, enhancing


def region_case(seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, 4, 3, 5, 3)).astype(np.float32)
    label = rng.choice([0, 1, 2, 4], (2, 4, 3, 5)).astype(np.uint8)
    targets = np.stack([np.isin(label, values) for values in REGIONS], axis=-1)
    return logits, label, targets


def test_regions_are_the_sigmoid_loss_of_their_masks_and_ignored_voxels_do_not_count():
    logits, label, targets = region_case()
    found = losses.dice_bce_regions(logits, label, regions=REGIONS)
    np.testing.assert_allclose(found, losses.dice_bce(logits, targets), rtol=1e-6)
    label[0, :2] = 255
    expected = losses.dice_bce(logits, targets, valid=label != 255)
    np.testing.assert_allclose(losses.dice_bce_regions(logits, label, regions=REGIONS), expected, rtol=1e-6)


def test_a_value_of_no_region_gives_nan_and_other_numbers_of_regions_an_error():
    logits, label, _ = region_case()
    label[0, 0, 0, 0] = 7
    assert np.isnan(losses.dice_bce_regions(logits, label, regions=REGIONS))
    with pytest.raises(ValueError, match="regions has shape"):
        losses.dice_bce_regions(logits, label, regions=REGIONS[:2])


def test_arrays_of_numpy_are_as_good_outside_a_compiled_function():
    logits, labels = random_case(shape=(2, 2, 2, 2), classes=3)
    annotated = np.array([[True, True, True], [True, False, True]])
    table = np.ones((2, 256), bool)
    assert np.isfinite(losses.dice_ce(logits, labels, annotated=annotated))
    assert np.isfinite(losses.dice_bce_labels(logits, labels, annotated=annotated))
    assert np.isfinite(losses.dice_bce_regions(logits, labels, regions=((1, 2), (2,), (1,)), annotated=table))


def test_a_region_takes_part_where_all_its_values_are_annotated():
    logits, label, targets = region_case()
    annotated = np.ones((2, 256), bool)
    annotated[1, 2] = False  # oedema was not labelled in the second case: its whole tumour is not known
    part = np.array([[True, True, True], [False, True, True]])
    expected = losses.dice_bce(logits, targets, annotated=part)
    found = losses.dice_bce_regions(logits, label, regions=REGIONS, annotated=annotated)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
