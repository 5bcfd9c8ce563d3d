"""Dice with cross entropy, for labels that exclude each other (softmax) and for those that may overlap (sigmoid).

Values and gradients equal MONAI's `DiceCELoss(softmax=True)` and `DiceLoss(sigmoid=True) + BCEWithLogitsLoss()`.
All arithmetic is float32, whatever the type of the logits. Letters: b batch, v voxels, k classes.

A case may carry labels for some classes only (`annotated`). With softmax, a background voxel of such a case may
belong to any other class: their probability is added to the background's (marginal loss, Shi et al. 2021) and they
have no Dice term. With sigmoid, their channels and the background's take no part for that case.

Labels may be believed to different degrees (`weights` w, `b k`): every mean over cases and classes becomes a weighted
one. A class's Dice term counts w times; with softmax a voxel counts w of its label times in cross entropy, with sigmoid
a channel w times. Each is divided by the sum of what counted, so that weights of 1 give the plain loss.

People may belong to `groups` (`b`): those whose group has the larger Dice loss then weigh more, see `error_bounds`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import ConfigError
from ukbob_jax.regions import membership
from ukbob_jax.training import error_bounds
from ukbob_jax.training.softmax_sums import softmax_sums
from ukbob_jax.volumes import array_checks


@dataclasses.dataclass(frozen=True)
class DiceOptions:
    """How Dice is computed, and how much it and cross entropy weigh in their sum.

    Attributes:
        include_background: False leaves class 0 out of Dice; cross entropy always has it.
        squared: squares in Dice's denominator, sum(p^2) + sum(t^2).
        jaccard: Dice's denominator becomes 2 (sum(p) + sum(t) - sum(p t)).
        batch: Dice of the whole batch per class, instead of per case.
        smooth_nr: added to Dice's numerator.
        smooth_dr: added to Dice's denominator.
        lambda_dice: factor on Dice.
        lambda_ce: factor on cross entropy, binary or not.
        gamma: of `error_bounds`, where samples have groups.
        bound: form of `error_bounds`, "present" or "released".
        num_groups: of all people, for the form "released".
    """

    include_background: bool = True
    squared: bool = False
    jaccard: bool = False
    batch: bool = False
    smooth_nr: float = 1e-5
    smooth_dr: float = 1e-5
    lambda_dice: float = 1.0
    lambda_ce: float = 1.0
    gamma: float = 1.0
    bound: str = "present"
    num_groups: int = 0

    def __post_init__(self) -> None:
        for name in ("smooth_nr", "smooth_dr", "lambda_dice", "lambda_ce", "gamma"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"config.loss.{name}: {getattr(self, name)} is not a number from 0 on.")
        if self.bound not in error_bounds.FORMS:
            raise ConfigError(
                f"config.loss.bound: {self.bound!r} is unknown; choose one of {', '.join(error_bounds.FORMS)}."
            )


def dice_ce(
    logits: jax.Array,
    labels: jax.Array,
    *,
    options: DiceOptions = DiceOptions(),
    ce_weight: Sequence[float] | None = None,
    ignore: int = IGNORE,
    annotated: jax.Array | None = None,
    weights: jax.Array | None = None,
    groups: jax.Array | None = None,
    **changes: float | bool,
) -> jax.Array:
    """Soft Dice loss of the softmax plus cross entropy: lambda_dice * Dice + lambda_ce * CE.

    Dice is the mean over b and k of 1 - (2 sum(p t) + smooth_nr) / (sum(p) + sum(t) + smooth_dr). A case all of whose
    voxels are ignored takes no part in that mean.

    Args:
        logits: `b x y z k`.
        labels: `b x y z`, integers in 0..k-1, or `ignore`.
        options: of Dice and of the sum.
        ce_weight: `k`, factors on the voxels of cross entropy, which is then divided by the sum of the factors used.
        ignore: label of voxels that take no part in any sum.
        annotated: `b k` bool, the classes that were labelled in each case; None: all. Class 0 always is.
        weights: `b k`, from 0, how much each class's label counts in each case; None: 1.
        groups: `b` int, whose errors bound each other, -1: not known; None: no groups.
        **changes: fields of `DiceOptions`, such as `squared=True`, that replace those of `options`.
    Returns:
        Scalar, float32. Every voxel ignored: 0. NaN if a label is neither a class nor `ignore`, because values
        cannot raise inside a compiled function.
    Raises:
        ValueError: the shapes do not belong together.
    """
    options = dataclasses.replace(options, **changes)
    labels = array_checks.label_array("labels", labels)
    _check_shapes("labels", labels.shape, logits.shape[:-1], logits)
    b, k = logits.shape[0], logits.shape[-1]
    z = logits.reshape(b, -1, k)  # b v k
    labels = labels.reshape(b, -1).astype(jnp.int32)  # b v
    valid = labels != ignore
    unknown = jnp.any(valid & ((labels < 0) | (labels >= k)))
    if annotated is not None:
        _check_shapes("annotated", annotated.shape, (b, k), logits)
        annotated = jnp.asarray(annotated, bool).at[:, 0].set(True)
        z, labels = _merge_into_background(z.astype(jnp.float32), labels, annotated)

    voxel_factors = valid.astype(jnp.float32)
    if ce_weight is not None:
        voxel_factors *= jnp.asarray(ce_weight, jnp.float32)[jnp.clip(labels, 0, k - 1)]
    if weights is not None:
        weights = _checked_weights(weights, (b, k), logits)
        voxel_factors *= jnp.take_along_axis(weights, jnp.clip(labels, 0, k - 1), axis=1)
    found: Any = softmax_sums(z, labels, valid, voxel_factors, options.squared)
    *sums, surprise = found
    dice = _dice(tuple(sums), _part(valid, annotated, k), options, weights, groups)
    ce = surprise / jnp.maximum(jnp.sum(voxel_factors), 1e-30)
    return jnp.where(unknown, jnp.nan, options.lambda_dice * dice + options.lambda_ce * ce)


def dice_bce(
    logits: jax.Array,
    targets: jax.Array,
    *,
    options: DiceOptions = DiceOptions(),
    valid: jax.Array | None = None,
    annotated: jax.Array | None = None,
    weights: jax.Array | None = None,
    groups: jax.Array | None = None,
    **changes: float | bool,
) -> jax.Array:
    """Soft Dice loss of the sigmoid plus binary cross entropy, each a mean over everything.

    This is not MONAI's `DiceCELoss(sigmoid=True)`, which on several channels adds a softmax cross entropy.

    Args:
        logits: `b x y z k`.
        targets: `b x y z k`, 0 or 1 (bool, integer or float).
        options: of Dice and of the sum.
        valid: `b x y z` bool, False where a voxel takes no part; None: all do.
        annotated: `b k` bool, channels that take part in each case; None: all.
        weights: `b k`, from 0, how much each channel counts in each case; None: 1.
        groups: `b` int, whose errors bound each other, -1: not known; None: no groups.
        **changes: fields of `DiceOptions`, such as `squared=True`, that replace those of `options`.
    Returns:
        Scalar, float32. Nothing takes part: 0.
    Raises:
        ValueError: the shapes do not belong together.
    """
    options = dataclasses.replace(options, **changes)
    _check_shapes("targets", targets.shape, logits.shape, logits)
    b, k = logits.shape[0], logits.shape[-1]
    z = logits.reshape(b, -1, k).astype(jnp.float32)  # b v k
    true = targets.reshape(b, -1, k).astype(bool)
    if valid is None:
        valid = jnp.ones(logits.shape[:-1], bool)
    _check_shapes("valid", valid.shape, logits.shape[:-1], logits)
    valid = valid.reshape(b, -1)
    sums = _sums(jax.nn.sigmoid(z), true, valid, options.squared)
    if weights is not None:
        weights = _checked_weights(weights, (b, k), logits)
    dice = _dice(sums, _part(valid, annotated, k), options, weights, groups)

    surprise = jax.nn.softplus(z) - jnp.where(true, z, 0.0)  # -t log p - (1 - t) log(1 - p), without overflow
    per_channel = jnp.einsum("bv,bvk->bk", valid.astype(jnp.float32), surprise)
    voxels = jnp.sum(valid, axis=1, dtype=jnp.float32).reshape(b, 1)
    part = jnp.ones((b, k), jnp.float32) if annotated is None else annotated.astype(jnp.float32)
    counted = part if weights is None else part * weights
    least = 1.0 if weights is None else 1e-30  # a voxel, unless it may count less
    bce = jnp.sum(per_channel * counted) / jnp.maximum(jnp.sum(voxels * counted), least)
    return options.lambda_dice * dice + options.lambda_ce * bce


def dice_bce_labels(
    logits: jax.Array,
    labels: jax.Array,
    *,
    ignore: int = IGNORE,
    annotated: jax.Array | None = None,
    weights: jax.Array | None = None,
    groups: jax.Array | None = None,
    options: DiceOptions = DiceOptions(),
    **changes: float | bool,
) -> jax.Array:
    """Return `dice_bce` with one channel per class of an integer label map (the paper's loss for Swin-BOB).

    Args:
        logits: `b x y z k`.
        labels: `b x y z`, integers in 0..k-1, or `ignore`.
        ignore: label of voxels that take no part in any sum.
        annotated: `b k` bool, the classes that were labelled in each case; None: all.
        weights: `b k`, from 0, how much each class's channel counts in each case; None: 1.
        groups: `b` int, whose errors bound each other, -1: not known; None: no groups.
        options: of Dice and of the sum.
        **changes: fields of `DiceOptions` that replace those of `options`.
    Returns:
        Scalar, float32; NaN if a label is neither a class nor `ignore`.
    Raises:
        ValueError: the shapes do not belong together.
    """
    labels = array_checks.label_array("labels", labels)
    _check_shapes("labels", labels.shape, logits.shape[:-1], logits)
    k = logits.shape[-1]
    labels = labels.astype(jnp.int32)
    valid = labels != ignore
    if annotated is not None:
        annotated = jnp.asarray(annotated, bool)
        annotated = annotated.at[:, 0].set(jnp.all(annotated[:, 1:], axis=1))
    targets = labels[..., None] == jnp.arange(k).reshape(1, 1, 1, 1, k)
    loss = dice_bce(
        logits,
        targets,
        valid=valid,
        annotated=annotated,
        weights=weights,
        groups=groups,
        options=options,
        **changes,
    )
    return jnp.where(jnp.any(valid & ((labels < 0) | (labels >= k))), jnp.nan, loss)


def dice_bce_regions(
    logits: jax.Array,
    labels: jax.Array,
    *,
    regions: Sequence[Sequence[int]],
    ignore: int = IGNORE,
    annotated: jax.Array | None = None,
    weights: jax.Array | None = None,
    groups: jax.Array | None = None,
    options: DiceOptions = DiceOptions(),
    **changes: float | bool,
) -> jax.Array:
    """Return `dice_bce` with one channel per region of a label map, where regions may overlap (BraTS: WT, TC, ET).

    Args:
        logits: `b x y z k`.
        labels: `b x y z`, integers: 0, a value of some region, or `ignore`.
        regions: k of them, each the label values that make it up.
        ignore: label of voxels that take no part in any sum.
        annotated: `b n` bool, the label values that each case was annotated for; a region takes part where all of its
            were. None: all.
        weights: `b n`, from 0, how much the label of each value counts in each case; a region counts as much as the
            least of its values. None: 1.
        groups: `b` int, whose errors bound each other, -1: not known; None: no groups.
        options: of Dice and of the sum.
        **changes: fields of `DiceOptions` that replace those of `options`.
    Returns:
        Scalar, float32; NaN if a label is neither 0, nor a region's, nor `ignore`.
    Raises:
        ValueError: the shapes do not belong together.
    """
    labels = array_checks.label_array("labels", labels)
    _check_shapes("labels", labels.shape, logits.shape[:-1], logits)
    _check_shapes("regions", (len(regions),), logits.shape[-1:], logits)
    table = membership(regions)  # value, k
    labels = labels.astype(jnp.int32)
    valid = labels != ignore
    known = table.any(axis=-1) | (np.arange(256) == 0)
    unknown = valid & ((labels < 0) | (labels > 255) | ~jnp.take(known, jnp.clip(labels, 0, 255)))
    if annotated is not None:
        whole = jnp.asarray(annotated, bool)[:, :, None] | ~table[None, : annotated.shape[1]]
        annotated = jnp.all(whole, axis=1)  # b k
    if weights is not None:
        given = jnp.asarray(weights, jnp.float32)[:, :, None]
        weights = jnp.min(given, axis=1, where=table[None, : given.shape[1]], initial=jnp.inf)  # b k
    targets = jnp.take(table, jnp.clip(labels, 0, 255), axis=0)
    loss = dice_bce(
        logits,
        targets,
        valid=valid,
        annotated=annotated,
        weights=weights,
        groups=groups,
        options=options,
        **changes,
    )
    return jnp.where(jnp.any(unknown), jnp.nan, loss)


def deep(
    loss: Callable[..., jax.Array], strides: Sequence[Sequence[int]], lowest: bool = True
) -> Callable[..., jax.Array]:
    """`loss` at several resolutions, for the logits of deep supervision: sum(2**-i loss_i) / sum(2**-i).

    Weights halve from one of the logits to the next, as nnU-Net's do. At stride s along an axis a voxel of the logits
    stands for s voxels of the label map, and is compared with the one beyond their common middle, as `nearest-exact`
    interpolation takes it. That is a label somebody gave: ids are not mixed, ignored voxels stay ignored, regions keep
    lying inside each other, and thin structures keep their share of the voxels, which a majority vote would take from
    them.

    Args:
        loss: (logits, labels, **options) -> scalar; labels `b x y z`.
        strides: of each of the logits, voxels x y z of the label map per voxel (`Architecture.strides`), finest first.
        lowest: False leaves out the last, of the lowest resolution, as nnU-Net does; an only one stays.
    Returns:
        (logits, labels, **options) -> scalar, where logits are a list, `b x y z k` each.
    Raises:
        ValueError: (from what is returned) another number of logits than of strides.
    """
    counted = len(strides) if lowest else max(1, len(strides) - 1)

    def summed(logits: Sequence[jax.Array], labels: jax.Array, **options: jax.Array) -> jax.Array:
        if len(logits) != len(strides):
            raise ValueError(f"there are {len(logits)} logits, but strides of {len(strides)}.")
        total = jnp.float32(0)
        for level, (maps, stride) in enumerate(zip(logits[:counted], strides)):
            few = labels[:, *(slice(s // 2, None, s) for s in stride)]
            size = few.shape[1:]  # beyond lies the network's padding
            total += loss(maps[:, *(slice(s) for s in size)], few, **options) / 2**level
        return total / sum(2.0**-level for level in range(counted))

    return summed


LABEL_LOSSES = {"dice_ce": dice_ce, "dice_bce": dice_bce_labels}  # what `config.loss` may name


def _sums(p: jax.Array, true: jax.Array, valid: jax.Array, squared: bool) -> tuple[jax.Array, ...]:
    """Return sums over the valid voxels of p t, of p (or p^2), and of t; each `b k`, from `b v k` and `b v`.

    They are products with the vector of valid voxels, which on CPU is twice as fast as masking and summing, and
    adds in blocks, so that a million small float32 terms keep their accuracy.
    """
    valid = valid.astype(jnp.float32)
    both = jnp.einsum("bv,bvk->bk", valid, jnp.where(true, p, 0.0))
    predicted = jnp.einsum("bv,bvk->bk", valid, p * p if squared else p)
    present = jnp.einsum("bv,bvk->bk", valid, true.astype(jnp.float32))
    return both, predicted, present


def _part(valid: jax.Array, annotated: jax.Array | None, k: int) -> jax.Array:
    """Return which classes have a Dice term in which case, `b k`: annotated ones, where any voxel counts (valid `b v`)."""
    seen = jnp.repeat(jnp.any(valid, axis=1, keepdims=True), k, axis=1)
    return seen if annotated is None else seen & jnp.asarray(annotated, bool)


def _dice(
    sums: tuple[jax.Array, ...],
    part: jax.Array,
    options: DiceOptions,
    weights: jax.Array | None = None,
    groups: jax.Array | None = None,
) -> jax.Array:
    """Return the mean Dice loss over the classes (and cases) that take part (`b k` bool), from the sums of `_sums`.

    `weights`, `b k`: of the terms in that mean. In the Dice of a batch a case's sums count w times, and the class as
    much as its cases do on average. `groups`, `b`: their probabilities are scaled first, see `error_bounds`.
    """
    if groups is not None:
        sums = _scaled(sums, part, groups, options)
    if options.batch:
        if weights is not None:
            sums = tuple(weights * s for s in sums)
            cases = jnp.maximum(jnp.sum(part, axis=0, keepdims=True), 1)
            weights = jnp.sum(jnp.where(part, weights, 0.0), axis=0, keepdims=True) / cases
        sums = tuple(jnp.sum(jnp.where(part, s, 0.0), axis=0, keepdims=True) for s in sums)
        part = jnp.any(part, axis=0, keepdims=True)
    if not options.include_background:
        part = part.at[:, 0].set(False)
    terms = _terms(sums, options)
    if weights is None:
        return jnp.sum(jnp.where(part, terms, 0.0)) / jnp.maximum(jnp.sum(part), 1)
    counted = jnp.where(part, weights, 0.0)
    return jnp.sum(jnp.where(part, weights * terms, 0.0)) / jnp.maximum(jnp.sum(counted), 1e-30)


def _terms(sums: tuple[jax.Array, ...], options: DiceOptions) -> jax.Array:
    """Return the Dice loss of each class (and case, or whatever the sums are of), `b k`."""
    both, predicted, present = sums
    denominator = predicted + present
    if options.jaccard:
        denominator = 2.0 * (denominator - both)
    return 1.0 - (2.0 * both + options.smooth_nr) / (denominator + options.smooth_dr)


def _scaled(
    sums: tuple[jax.Array, ...], part: jax.Array, groups: jax.Array, options: DiceOptions
) -> tuple[jax.Array, ...]:
    """Return the sums of `_sums` as if each case's probabilities were multiplied by its group's weight."""
    if groups.shape != part.shape[:1]:
        raise ValueError(f"groups have shape {groups.shape}, but there are {part.shape[0]} cases.")
    alike = error_bounds.same(groups)  # b b
    of_group = tuple(_summed(alike, jnp.where(part, s, 0.0)) for s in sums)
    counted = jnp.any(alike[:, :, None] & part[None], axis=1)
    if options.bound == "present":
        counted &= of_group[2] > 0
    if not options.include_background:
        counted = counted.at[:, 0].set(False)
    losses = error_bounds.group_losses(_terms(of_group, options), counted)
    kept = error_bounds.weights(losses, groups, options.gamma, options.bound, options.num_groups)[:, None]
    both, predicted, present = sums
    return kept * both, (kept**2 if options.squared else kept) * predicted, present


def _summed(alike: jax.Array, sums: jax.Array) -> jax.Array:
    """Sum `b k` over the cases of each case's group, in full float32 on every device."""
    return jnp.matmul(alike.astype(jnp.float32), sums, precision=jax.lax.Precision.HIGHEST)


def _checked_weights(weights: jax.Array, shape: tuple[int, int], logits: jax.Array) -> jax.Array:
    _check_shapes("weights", weights.shape, shape, logits)
    return jnp.asarray(weights, jnp.float32)


def _merge_into_background(
    z: jax.Array, labels: jax.Array, annotated: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Logits `b v k` and labels `b v` in which a case's unannotated classes (`b k` False) are background."""
    b, _, k = z.shape
    kept = annotated.reshape(b, 1, k)
    is_background = (jnp.arange(k) == 0).reshape(1, 1, k)
    nowhere = jnp.float32(-1e30)  # exp(nowhere) is 0, and unlike -inf its differences are finite
    background = jax.nn.logsumexp(jnp.where(is_background | ~kept, z, nowhere), axis=-1, keepdims=True)
    z = jnp.where(is_background, background, jnp.where(kept, z, nowhere))
    was_labelled = jnp.take_along_axis(annotated, jnp.clip(labels, 0, k - 1), axis=1)
    return z, jnp.where(was_labelled, labels, 0)


def _check_shapes(name: str, shape: tuple[int, ...], wanted: tuple[int, ...], logits: jax.Array) -> None:
    if tuple(shape) != tuple(wanted):
        raise ValueError(f"{name} has shape {shape}, but logits {logits.shape} (b x y z k) need {wanted}.")
