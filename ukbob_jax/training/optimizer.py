"""AdamW or SGD with warm-up, decay of the rate and clipping, for all parameters or for a chosen part of them."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ukbob_jax.errors import ConfigError

# Decay pulls towards zero, where a gain or an offset has no business: norms, biases, Swin's position biases.
NO_DECAY = r"(^|/)(bias|scale|relative_bias)$"
SAWTOOTH = "sawtooth"
SCHEDULES = ("cosine", "constant", "polynomial", SAWTOOTH)
OPTIMIZERS = ("adamw", "sgd")


class Optimizer(NamedTuple):
    """An optax transformation together with its schedule, so that the step can report the learning rate."""

    init: optax.TransformInitFn
    update: optax.TransformUpdateFn
    learning_rate: optax.Schedule  # number of updates made -> learning rate of the next


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """The configuration's section `optimizer`.

    Attributes:
        learning_rate: the peak, reached after the warm-up.
        name: "adamw", or "sgd" with Nesterov momentum (nnU-Net's: Isensee et al. 2021).
        warmup_steps: the rate rises linearly from 0 during these.
        schedule: after the warm-up, "cosine" or "polynomial", (1 - done) ** power, down to final_fraction at the last
            step, or "constant". "sawtooth": before all that, `decoder_steps` in which the encoder stays as it is: the
            rate of the rest rises linearly in the first half of them and falls as the polynomial to 0 in the second;
            then come warm-up and polynomial of the whole network (fine-tuning of the OpenMind benchmark).
        decoder_steps: of "sawtooth".
        final_fraction: of the peak, at the end of the schedule.
        power: of the polynomial.
        hold_steps: the rate changes only every so many steps, as that of trainers that set it once an epoch; 1: at
            every step.
        weight_decay: of AdamW, decoupled (Loshchilov and Hutter 2019), scaled by the learning rate; not on
            `NO_DECAY`. Of SGD, coupled: times the parameter, added to the clipped gradient of every parameter, as
            `torch.optim.SGD` does.
        clip_norm: largest global norm of the gradient of the trained parameters; None: as it comes.
        b1: decay of Adam's first moment.
        b2: decay of Adam's second moment.
        eps: added to the root of the second moment.
        momentum: of SGD, the share of the last step's direction that stays.
        trainable: regular expression searched for in "/"-joined parameter paths; the others stay as they are and
            cost no optimizer memory. Empty: all are trained.
        frozen: the same the other way round: what it matches stays. "^swin/(patch_embed|stage[12])" freezes the first
            half of the encoder.
        layer_decay: factor on the learning rate per stage from the output to the input: the rate of depth d is the
            peak times layer_decay ** (last - d), so that what sees the image first changes least; 1: none.
    """

    learning_rate: float
    name: str = "adamw"
    warmup_steps: int = 0
    schedule: str = "cosine"
    decoder_steps: int = 0
    final_fraction: float = 0.0
    power: float = 0.9
    hold_steps: int = 1
    weight_decay: float = 1e-5
    clip_norm: float | None = None
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.99
    trainable: str = ""
    frozen: str = ""
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        for name, known in (("name", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"optimizer.{name}: {getattr(self, name)!r} is unknown; choose one of {', '.join(known)}."
                )
        if self.decoder_steps < 2 if self.schedule == SAWTOOTH else self.decoder_steps != 0:
            raise ConfigError(
                f"optimizer.decoder_steps: {self.decoder_steps} with schedule {self.schedule!r}; {SAWTOOTH!r} wants "
                "2 or more, the others 0."
            )
        if self.hold_steps < 1:
            raise ConfigError(f"optimizer.hold_steps: {self.hold_steps} is less than 1.")
        for name in ("warmup_steps", "learning_rate", "weight_decay", "final_fraction", "eps", "power"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"optimizer.{name}: {getattr(self, name)} is not a number from 0 on.")
        for name in ("b1", "b2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optimizer.{name}: {getattr(self, name)} is not in [0, 1).")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ConfigError(
                f"optimizer.clip_norm: {self.clip_norm} is not above 0; a large one, such as 1e9, turns it off."
            )
        for name in ("trainable", "frozen"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise ConfigError(
                    f"optimizer.{name}: {getattr(self, name)!r} is no regular expression: {error}."
                ) from error
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"optimizer.layer_decay: {self.layer_decay} is not in (0, 1]; 1 turns it off.")


def build(
    *, steps: int, stages: Sequence[tuple[str, int]] = (), encoder: str = "", **fields: Any
) -> Optimizer:
    """Build the optimizer of the configuration's section of the same name.

    Args:
        steps: of the whole training, warm-up included.
        stages: of the network (`Architecture.stages`): pattern of parameter paths, depth from 0 at the input on. The
            first that is found counts; a parameter that none finds is at the last depth.
        encoder: pattern of its parameters (`Architecture.parts`), which stay in the first stage of "sawtooth": no
            update, no decay, no moments, and no share in the norm that is clipped. Their moments start afresh after it.
        **fields: of `OptimizerOptions`.
    Raises:
        ConfigError: a field cannot be used, a warm-up as long as the training, a `layer_decay` for which there are no
            `stages`, a "sawtooth" without `encoder`, or (from `init`) a `trainable` or `frozen` which matches no
            parameter, or leaves none to train.
    """
    options = OptimizerOptions(**fields)
    longest = steps - 1 - options.decoder_steps
    if longest < 0:
        raise ConfigError(
            f"optimizer.decoder_steps: {options.decoder_steps} are not fewer than train.steps, {steps}."
        )
    if not options.warmup_steps <= longest:
        less = " - optimizer.decoder_steps" if options.decoder_steps else ""
        raise ConfigError(
            f"optimizer.warmup_steps: {options.warmup_steps} is not in 0..{longest} (train.steps - 1{less})."
        )
    if options.schedule == SAWTOOTH and not encoder:
        raise ConfigError(
            f"optimizer.schedule: {SAWTOOTH!r} is for trainings on labels of a network that says what its encoder is."
        )
    if options.layer_decay != 1 and not stages:
        raise ConfigError(
            f"optimizer.layer_decay: {options.layer_decay}, but this network does not say which stages it has; set "
            "it to 1."
        )
    rate = _schedule(options, steps)
    rule = _adamw if options.name == "adamw" else _sgd
    parts = [] if options.clip_norm is None else [optax.clip_by_global_norm(options.clip_norm)]
    if options.schedule == SAWTOOTH:
        start = options.decoder_steps
        later = _from_step(rule(options, lambda n: rate(n + start)), start)
        parts = [_without(encoder, start), *parts]
        parts.append(
            optax.partition(
                {"now": rule(options, rate), "later": later}, lambda params: _groups(params, encoder)
            )
        )
    else:
        parts.append(rule(options, rate))
    if options.layer_decay != 1:
        parts.append(_scale_by_depth(options.layer_decay, stages))
    transform = optax.chain(*parts)
    if options.trainable or options.frozen:
        transform = optax.partition(
            {"train": transform, "freeze": optax.set_to_zero()},
            lambda params: _choose(params, options.trainable, options.frozen),
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


def _adamw(options: OptimizerOptions, rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.adamw(
        rate,
        b1=options.b1,
        b2=options.b2,
        eps=options.eps,
        weight_decay=options.weight_decay,
        mask=decay_mask,
    )


def _sgd(options: OptimizerOptions, rate: optax.Schedule) -> optax.GradientTransformation:
    """SGD with Nesterov momentum and coupled decay: what `torch.optim.SGD(nesterov=True)` computes."""
    return optax.chain(
        optax.add_decayed_weights(options.weight_decay),
        optax.trace(decay=options.momentum, nesterov=True),
        optax.scale_by_learning_rate(rate),
    )


def _schedule(options: OptimizerOptions, steps: int) -> optax.Schedule:
    """Return number of updates made -> learning rate of the next."""
    peak, warmup, last = options.learning_rate, options.warmup_steps, options.final_fraction
    first, steps = options.decoder_steps, steps - options.decoder_steps
    if options.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, steps - warmup, alpha=last)
    elif options.schedule in ("polynomial", SAWTOOTH):
        after = optax.polynomial_schedule(peak, last * peak, options.power, steps - warmup)
    else:
        after = optax.constant_schedule(peak)
    # (n + 1) / warmup: the first step already learns, and the last of the warm-up is at the peak.
    joined = optax.join_schedules([_rise(peak, warmup), after], [warmup])
    if first:
        rise = first // 2
        fall = optax.polynomial_schedule(peak, 0.0, options.power, first - rise)
        joined = optax.join_schedules([_rise(peak, rise), fall, joined], [rise, first])
    hold = options.hold_steps
    return joined if hold == 1 else lambda n: joined(jnp.asarray(n) // hold * hold)


def _rise(peak: float, steps: int) -> optax.Schedule:
    return lambda n: peak * (n + 1) / max(steps, 1)


class _Late(NamedTuple):
    """State of `_from_step`: updates seen, and the state of what starts late."""

    seen: jax.Array
    inner: Any


def _from_step(inner: optax.GradientTransformation, start: int) -> optax.GradientTransformation:
    """`inner`, whose first update is the one after `start` updates of 0 that leave its state alone."""

    def init(params: Any) -> _Late:
        return _Late(jnp.zeros((), jnp.int32), inner.init(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        started = state.seen >= start
        moved, after = inner.update(updates, state.inner, params)
        moved = jax.tree.map(lambda u: jnp.where(started, u, jnp.zeros_like(u)), moved)
        kept = jax.tree.map(lambda new, old: jnp.where(started, new, old), after, state.inner)
        return moved, _Late(state.seen + 1, kept)

    return optax.GradientTransformation(init, update)


def _without(pattern: str, steps: int) -> optax.GradientTransformation:
    """Gradients of 0 for the parameters that `pattern` finds, in the first `steps` updates."""

    def init(params: Any) -> jax.Array:
        del params
        return jnp.zeros((), jnp.int32)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        held = lambda path: re.search(pattern, path_name(path)) is not None  # noqa: E731
        masked = jax.tree.map_with_path(
            lambda path, u: jnp.where(state < steps, jnp.zeros_like(u), u) if held(path) else u, updates
        )
        return masked, state + 1

    return optax.GradientTransformation(init, update)


def _groups(params: Any, encoder: str) -> Any:
    """A tree like `params` of "later", for the encoder's, and "now"."""
    return jax.tree.map_with_path(
        lambda path, _: "later" if re.search(encoder, path_name(path)) else "now", params
    )


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
