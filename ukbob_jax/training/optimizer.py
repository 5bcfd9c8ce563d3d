"""AdamW with warm-up, cosine decay and clipping, for all parameters or for a chosen part of them."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import optax

from ukbob_jax.errors import ConfigError

# Decay pulls towards zero, where a gain or an offset has no business: norms, biases, Swin's position biases.
NO_DECAY = r"(^|/)(bias|scale|relative_bias)$"
SCHEDULES = ("cosine", "constant")


class Optimizer(NamedTuple):
    """An optax transformation together with its schedule, so that the step can report the learning rate."""

    init: optax.TransformInitFn
    update: optax.TransformUpdateFn
    learning_rate: optax.Schedule  # number of updates made -> learning rate of the next


def build(
    *,
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    schedule: str = "cosine",
    final_fraction: float = 0.0,
    weight_decay: float = 1e-5,
    clip_norm: float | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    trainable: str = "",
    frozen: str = "",
    layer_decay: float = 1.0,
    stages: Sequence[tuple[str, int]] = (),
) -> Optimizer:
    """The optimizer of the configuration's section of the same name; every argument but `stages` is a field of it.

    Args:
        learning_rate: the peak, reached after the warm-up.
        steps: of the whole training, warm-up included.
        warmup_steps: the rate rises linearly from 0 during these.
        schedule: after the warm-up, "cosine" (down to final_fraction at the last step) or "constant".
        final_fraction: of the peak, at the end of the cosine.
        weight_decay: decoupled (Loshchilov and Hutter 2019), scaled by the learning rate; not on `NO_DECAY`.
        clip_norm: largest global norm of the gradient of the trained parameters; None: as it comes.
        b1: decay of Adam's first moment.
        b2: decay of Adam's second moment.
        eps: added to the root of the second moment.
        trainable: regular expression searched for in "/"-joined parameter paths; the others stay as they are and
            cost no optimizer memory. Empty: all are trained.
        frozen: the same the other way round: what it matches stays. "^swin/(patch_embed|stage[12])" freezes the first
            half of the encoder.
        layer_decay: factor on the learning rate per stage from the output to the input: the rate of depth d is the
            peak times layer_decay ** (last - d), so that what sees the image first changes least; 1: none.
        stages: of the network (`Architecture.stages`): pattern of parameter paths, depth from 0 at the input on. The
            first that is found counts; a parameter that none finds is at the last depth.
    Raises:
        ConfigError: an unknown schedule, a warm-up as long as the training, a `layer_decay` that is not in (0, 1] or
            for which there are no `stages`, a rate, decay or norm below 0, a pattern that is no regular expression,
            or (from `init`) a `trainable` or `frozen` which matches no parameter, or leaves none to train.
    """
    if schedule not in SCHEDULES:
        raise ConfigError(
            f"optimizer.schedule: {schedule!r} is unknown; choose one of {', '.join(SCHEDULES)}."
        )
    if not 0 <= warmup_steps < steps:
        raise ConfigError(
            f"optimizer.warmup_steps: {warmup_steps} is not in 0..{steps - 1} (train.steps - 1)."
        )
    if not 0 <= learning_rate < float("inf"):
        raise ConfigError(f"optimizer.learning_rate: {learning_rate} is not a number from 0 on.")
    if not 0 <= weight_decay < float("inf"):
        raise ConfigError(f"optimizer.weight_decay: {weight_decay} is not a number from 0 on.")
    if clip_norm is not None and not clip_norm > 0:
        raise ConfigError(
            f"optimizer.clip_norm: {clip_norm} is not above 0; a large one, such as 1e9, turns it off."
        )
    for field, pattern in (("trainable", trainable), ("frozen", frozen)):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"optimizer.{field}: {pattern!r} is no regular expression: {error}.") from error
    if not 0 < layer_decay <= 1:
        raise ConfigError(f"optimizer.layer_decay: {layer_decay} is not in (0, 1]; 1 turns it off.")
    if layer_decay != 1 and not stages:
        raise ConfigError(
            f"optimizer.layer_decay: {layer_decay}, but this network does not say which stages it has; set it to 1."
        )
    rate = _schedule(schedule, learning_rate, warmup_steps, steps, final_fraction)
    parts = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    parts.append(optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decay_mask))
    if layer_decay != 1:
        parts.append(_scale_by_depth(layer_decay, stages))
    transform = optax.chain(*parts)
    if trainable or frozen:
        transform = optax.partition(
            {"train": transform, "freeze": optax.set_to_zero()},
            lambda params: _choose(params, trainable, frozen),
        )
    return Optimizer(transform.init, transform.update, rate)


def decay_mask(params: Any) -> Any:
    """A tree like `params`: True where weight decay applies."""
    return jax.tree.map_with_path(lambda path, _: not re.search(NO_DECAY, path_name(path)), params)


def depth(name: str, stages: Sequence[tuple[str, int]]) -> int:
    """The depth of the parameter called `name`, from 0 at the input to the last of `stages`."""
    last = max(at for _, at in stages)
    return next((at for pattern, at in stages if re.search(pattern, name)), last)


def path_name(path: tuple) -> str:
    """A parameter's path as the regular expressions of this package see it: `encoder/norm1/scale`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _schedule(kind: str, peak: float, warmup: int, steps: int, final_fraction: float) -> optax.Schedule:
    if kind == "cosine":
        after = optax.cosine_decay_schedule(peak, steps - warmup, alpha=final_fraction)
    else:
        after = optax.constant_schedule(peak)
    # (n + 1) / warmup: the first step already learns, and the last of the warm-up is at the peak.
    return optax.join_schedules([lambda n: peak * (n + 1) / max(warmup, 1), after], [warmup])


def _scale_by_depth(layer_decay: float, stages: Sequence[tuple[str, int]]) -> optax.GradientTransformation:
    last = max(at for _, at in stages)

    def scaled(updates: Any, params: Any = None) -> Any:
        return jax.tree.map_with_path(
            lambda path, update: update * layer_decay ** (last - depth(path_name(path), stages)), updates
        )

    return optax.stateless(scaled)


def _choose(params: Any, trainable: str, frozen: str) -> Any:
    """A tree like `params` of "train" and "freeze"."""
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for field, pattern in (("trainable", trainable), ("frozen", frozen)):
        if pattern and not any(re.search(pattern, name) for name in names):
            raise ConfigError(
                f"optimizer.{field}: {pattern!r} matches no parameter; one is named {names[0]!r}."
            )
    train = [bool(re.search(trainable, name)) and not (frozen and re.search(frozen, name)) for name in names]
    if not any(train):
        raise ConfigError(f"optimizer.frozen: {frozen!r} leaves no parameter to train.")
    return jax.tree.unflatten(jax.tree.structure(params), ["train" if t else "freeze" for t in train])
