"""Whole scans from overlapping windows, in one compiled program per volume shape.

`sliding_window` returns the blended logits. For many classes on a whole body, `slabs.segment` gives the same labels
without ever holding classes x volume.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import core, lax

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.windows import grid as grids
from ukbob_jax.inference.windows.window import Window
from ukbob_jax.volumes import array_checks

Apply = Callable[[Any, jax.Array], jax.Array]


WANTS_VALUES = (  # what JAX raises where a function needs the values of its arrays, as numpy does
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.ConcretizationTypeError,
)


def sliding_window(
    predict: Callable[[jax.Array], jax.Array],
    volume: jax.Array | np.ndarray,
    roi: Sequence[int],
    overlap: float | Sequence[float] = Window.overlap,
    blend: str = Window.blend,
    batch: int = Window.batch,
) -> jax.Array:
    """Blend the predictions of overlapping windows into logits for the whole volume.

    The numbers are those of MONAI's `sliding_window_inference`; a volume smaller than the window is surrounded by
    zeros. `predict` is traced into one program with the
    loop, always on exactly `batch` windows; the program is kept for as long as the same `predict` (by `==` and hash)
    comes with the same shapes and window. A `predict` made anew for each call is compiled anew, and arrays that it
    closes over stay those of the first call, as in `jax.jit`: hand parameters to `sliding_window_params` instead.
    A `predict` that cannot be traced, since it needs the values (numpy, another framework), is called batch by batch
    on the host.

    Args:
        predict: `b *roi c` -> `b *roi k`.
        volume: `x y z c`.
        roi: window, voxels, x y z; 0 or less takes the whole axis.
        overlap: fraction of a window that its neighbour covers, in [0, 1); one number, or one per axis.
        blend: "gaussian" or "constant".
        batch: windows in a call of `predict`.

    Returns:
        logits `x y z k`, float32.

    Raises:
        ConfigError: settings that cannot be used, a volume that is not `x y z c`.
    """
    window, volume = Window(roi, overlap, blend, batch), check_volume(volume)
    array_checks.check_finite("volume", volume)
    try:
        return _logits(_Closed(predict), None, volume, window)
    except WANTS_VALUES:
        if isinstance(volume, core.Tracer):  # inside the caller's jit there are no values to hand out
            raise
        return _logits_on_host(predict, np.asarray(volume), window)


def sliding_window_params(
    apply: Apply, variables: Any, volume: jax.Array | np.ndarray, window: Window
) -> jax.Array:
    """`sliding_window` with `predict(x) = apply(variables, x)`; new values in `variables` compile nothing.

    Args:
        apply: `(variables, b *roi c)` -> `b *roi k`; for a Flax module `ModuleApply(module)`.
        variables: any pytree of arrays; for a Flax module `{"params": params, **model_state}`.
        volume: `x y z c`.
        window: its size, and how it slides.
    """
    return _logits(apply, variables, check_volume(volume), window)


def check_volume(volume: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """`volume` if it is `x y z c`, with no axis of length 0; else a ConfigError."""
    if np.ndim(volume) != 4 or 0 in np.shape(volume):
        raise ConfigError(
            f"volume of shape {np.shape(volume)} is not x y z c; one channel is volume[..., None]."
        )
    return volume


def pad_volume(
    volume: jax.Array | np.ndarray, grid: grids.Grid, shape: tuple[int, int, int]
) -> jax.Array | np.ndarray:
    """Put a volume, `x y z c`, where its windows expect it in a volume of `shape` that is 0 elsewhere.

    numpy arrays are padded on the host, where a new shape compiles nothing.
    """
    xp = np if isinstance(volume, np.ndarray) else jnp
    width = [(b, p - s - b) for b, p, s in zip(grid.before, shape, volume.shape)]
    return xp.pad(volume, [*width, (0, 0)])


def cut(volume: jax.Array, starts: jax.Array, roi: Sequence[int]) -> jax.Array:
    """Windows of a volume, `x y z ...` -> `b *roi ...`, with corners `starts`, `b 3`."""
    rest = volume.shape[3:]
    return jax.vmap(lambda s: lax.dynamic_slice(volume, (*s, *(0,) * len(rest)), (*roi, *rest)))(starts)


@dataclasses.dataclass(frozen=True)
class ModuleApply:
    """`module.apply` that is equal for equal modules, so that they share compiled programs.

    `module.apply` itself is equal for the same object only.
    """

    module: nn.Module

    def __call__(self, variables: Any, x: jax.Array) -> jax.Array:
        """Logits `b x y z k` of windows `b x y z c`."""
        return cast(jax.Array, self.module.apply(variables, x))


@dataclasses.dataclass(frozen=True)
class _Closed:
    """A prediction that takes no variables, seen as one that does; equal where the prediction is."""

    predict: Callable[[jax.Array], jax.Array]

    def __call__(self, variables: None, x: jax.Array) -> jax.Array:
        return self.predict(x)


@functools.partial(jax.jit, static_argnames="apply")
def traced(apply: Apply, variables: Any, x: jax.Array) -> jax.Array:
    """`apply(variables, x)`, traced once for all that asks: its shape, its memory, and every program it is part of.

    Args:
        apply: equal ones share a trace, such as `ModuleApply`s of equal modules.
        variables: of the network.
        x: windows, `b x y z c`.
    """
    return apply(variables, x)


def num_outputs(
    apply: Apply, variables: Any, batch: int, roi: Sequence[int], channels: int, dtype: Any
) -> int:
    """Channels of the prediction; a ConfigError if its voxels are not the window's."""
    windows = jax.ShapeDtypeStruct((batch, *roi, channels), dtype)
    out = jax.eval_shape(functools.partial(traced, apply), variables, windows)
    _check_output(out.shape, (batch, *roi, channels))
    return out.shape[4]


def _check_output(out: tuple[int, ...], windows: tuple[int, ...]) -> None:
    """Raise a ConfigError unless a prediction of shape `out` has the voxels of its `windows`, both `b x y z c`."""
    if len(out) != 5 or out[:4] != windows[:4]:
        raise ConfigError(f"predict gave shape {out} for windows {windows}; b x y z k is needed.")


@functools.partial(jax.jit, static_argnames=("apply", "window"))
def _logits(apply: Apply, variables: Any, volume: jax.Array, window: Window) -> jax.Array:
    volume = jnp.asarray(volume)
    shape = volume.shape[:3]
    grid = grids.windows(shape, window.roi, window.overlap)
    starts, counts = grids.batches(grid.starts, window.batch, exact=True)
    weight = jnp.asarray(grids.blend_weights(grid.roi, window.blend))[..., None]
    padded = jnp.asarray(pad_volume(volume, grid, grid.padded))
    k = num_outputs(apply, variables, starts.shape[1], grid.roi, volume.shape[3], volume.dtype)

    def add_window(sums: tuple, xs: tuple) -> tuple[tuple, None]:
        start, count, logits = xs  # 3, scalar, *roi k
        w = weight * count
        return tuple(add_at(total, part, (*start, 0)) for total, part in zip(sums, (logits * w, w))), None

    def add_batch(sums: tuple, xs: tuple) -> tuple[tuple, None]:
        logits = traced(apply, variables, cut(padded, xs[0], grid.roi)).astype(jnp.float32)
        return lax.scan(add_window, sums, (*xs, logits))[0], None

    zeros = (jnp.zeros((*grid.padded, k), jnp.float32), jnp.zeros((*grid.padded, 1), jnp.float32))
    total, weights = lax.scan(add_batch, zeros, (jnp.asarray(starts), jnp.asarray(counts)))[0]
    logits = lax.slice(total, (*grid.before, 0), tuple(b + s for b, s in zip(grid.before, shape)) + (k,))
    return logits / lax.slice(
        weights, (*grid.before, 0), tuple(b + s for b, s in zip(grid.before, shape)) + (1,)
    )


def _logits_on_host(predict: Callable[[jax.Array], Any], volume: np.ndarray, window: Window) -> jax.Array:
    """`_logits` for a prediction that cannot be traced."""
    grid = grids.windows(volume.shape[:3], window.roi, window.overlap)
    weight = grids.blend_weights(grid.roi, window.blend)[..., None]
    padded = pad_volume(volume, grid, grid.padded)
    total, weights = np.zeros((*grid.padded, 0), np.float32), np.zeros((*grid.padded, 1), np.float32)
    for starts, counts in zip(*grids.batches(grid.starts, window.batch, exact=True)):
        places = [tuple(slice(a, a + r) for a, r in zip(start, grid.roi)) for start in starts]
        x = np.stack([padded[place] for place in places])
        logits = np.asarray(predict(jnp.asarray(x)), np.float32)
        _check_output(logits.shape, x.shape)
        total = total if total.shape[3] else np.zeros((*grid.padded, logits.shape[4]), np.float32)
        for place, count, part in zip(places, counts, logits):
            total[place] += part * weight * count
            weights[place] += weight * count
    inside = tuple(slice(b, b + s) for b, s in zip(grid.before, grid.shape))
    return jnp.asarray(total[inside] / weights[inside])


def add_at(total: jax.Array, part: jax.Array, start: tuple) -> jax.Array:
    """Add `part` to `total` at `start`, in place inside a loop."""
    return lax.dynamic_update_slice(total, lax.dynamic_slice(total, start, part.shape) + part, start)
