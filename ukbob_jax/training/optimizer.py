"""AdamW with warm-up, cosine decay and clipping, for all parameters or for a chosen part of them."""

import re
from typing import Any, NamedTuple

import jax
import optax

from ukbob_jax.errors import ConfigError

# Decay pulls towards zero, where a gain or an offset has no business: norms, biases, Swin's position biases.
NO_DECAY = r"(^|/)(bias|scale|relative_position_bias_table)$"
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
    trainable: str | None = None,
) -> Optimizer:
    """The optimizer of the configuration's section of the same name; every argument is a field of it.

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
            cost no optimizer memory. None: all are trained.
    Raises:
        ConfigError: an unknown schedule, a warm-up as long as the training, or (from `init`) a `trainable`
            which matches no parameter.
    """
    if schedule not in SCHEDULES:
        raise ConfigError(
            f"optimizer.schedule: {schedule!r} is unknown; choose one of {', '.join(SCHEDULES)}."
        )
    if not 0 <= warmup_steps < steps:
        raise ConfigError(
            f"optimizer.warmup_steps: {warmup_steps} is not in 0..{steps - 1} (train.steps - 1)."
        )
    rate = _schedule(schedule, learning_rate, warmup_steps, steps, final_fraction)
    parts = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    parts.append(optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decay_mask))
    transform = optax.chain(*parts)
    if trainable is not None:
        transform = optax.partition(
            {"train": transform, "freeze": optax.set_to_zero()}, lambda params: _choose(params, trainable)
        )
    return Optimizer(transform.init, transform.update, rate)


def decay_mask(params: Any) -> Any:
    """A tree like `params`: True where weight decay applies."""
    return jax.tree.map_with_path(lambda path, _: not re.search(NO_DECAY, path_name(path)), params)


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


def _choose(params: Any, trainable: str) -> Any:
    names = jax.tree.map_with_path(
        lambda path, _: "train" if re.search(trainable, path_name(path)) else "freeze", params
    )
    if "train" not in jax.tree.leaves(names):
        first = path_name(jax.tree_util.tree_leaves_with_path(params)[0][0])
        raise ConfigError(f"optimizer.trainable: {trainable!r} matches no parameter; one is named {first!r}.")
    return names
