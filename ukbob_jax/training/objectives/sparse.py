"""The encoder of a convolutional network on the visible cells of its maps alone, as sparse convolutions would have it.

Tian et al. 2023 (SparK): every convolution's output is 0 in hidden cells, and norms take their statistics over the
visible ones. Networks need not know: their calls are intercepted (`flax.linen.intercept_methods`).
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from ukbob_jax.errors import ConfigError
from ukbob_jax.models import architecture
from ukbob_jax.models.blocks import Norm
from ukbob_jax.models.kernels.dtypes import at_least_float32
from ukbob_jax.models.kernels.norm import EPSILON, STATISTICS, shift_and_activate
from ukbob_jax.training.objectives import forward

Fill = Callable[
    [list[jax.Array], list[jax.Array | None]], list[jax.Array]
]  # maps, their visible cells -> maps
PER_CELL = ("layer",)  # kinds of `Norm` whose statistics see one cell each
PER_SAMPLE = ("instance", "instance_affine")


def visible_at(visible: jax.Array, size: Sequence[int], block: int) -> jax.Array | None:
    """Tell which cells of a map are visible: those with any visible voxel.

    Where a cell is longer than a block along every axis, all are (as in nnssl): nearly every one of them has one.

    Args:
        visible: bool `b x y z`, of the voxels; whole blocks are visible or hidden.
        size: cells of the map along x y z, each of the same number of voxels.
        block: side of a block, voxels.
    Returns:
        bool `b *size`, or None: all are visible.
    """
    sides = [-(-n // cells) for n, cells in zip(visible.shape[1:], size)]  # voxels of a cell
    if all(side > block for side in sides):
        return None
    rest = [(0, cells * side - n) for n, cells, side in zip(visible.shape[1:], size, sides)]
    cells = [length for pair in zip(size, sides) for length in pair]
    return jnp.pad(visible, ((0, 0), *rest)).reshape(-1, *cells).any((2, 4, 6))


def sparse_norm(
    x: jax.Array,
    visible: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    residual: jax.Array | None = None,
    slope: float = 1.0,
    epsilon: float = EPSILON,
) -> jax.Array:
    """Instance norm with mean and (biased) variance over the visible cells; hidden ones are 0.

    Args:
        x: `b x y z c`, any float type; the arithmetic is at least float32.
        visible: bool `b x y z`.
        scale, bias: of each channel; both or neither.
        residual: of the shape of `x`, added after scale and bias.
        slope: of the leaky ReLU that follows; 1 leaves it out.
        epsilon: added to the variance.
    Returns:
        As `x`; 0 everywhere in samples without a visible cell.
    """
    wide, seen = x.astype(at_least_float32(x.dtype)), visible[..., None]
    space = tuple(range(1, x.ndim - 1))
    count = jnp.maximum(seen.sum(space, keepdims=True), 1).astype(wide.dtype)
    mean = jnp.where(seen, wide, 0).sum(space, keepdims=True) / count
    centred = jnp.where(seen, wide - mean, 0)
    rstd = jax.lax.rsqrt(jnp.square(centred).sum(space, keepdims=True) / count + epsilon)
    normal = centred * checkpoint_name(rstd, STATISTICS)
    return jnp.where(seen, shift_and_activate(normal, scale, bias, residual, slope), 0).astype(x.dtype)


@contextlib.contextmanager
def encoder(model: nn.Module, visible: jax.Array, block: int, fill: Fill | None = None) -> Iterator[None]:
    """While it lasts, the encoder of `model` sees visible cells alone, whether it is applied by itself or in the network.

    Args:
        model: a network whose encoder has convolutions and instance or layer norms, and nothing else with parameters.
        visible: bool `b x y z`, of the voxels of its input.
        block: side of the blocks that are visible or hidden as a whole, voxels.
        fill: what becomes of the encoder's maps before others take them.
    Raises:
        ConfigError: at the network's pass: it has other layers, or does not take its maps from its encoder's method.
    """
    met = _Encoder(model, visible, block, fill)
    with nn.intercept_methods(met):
        yield
    if not met.passed:
        raise ConfigError(
            f"config.model.name: network {met.name!r} does not take its maps from its method {met.features!r}, so that "
            "hidden cells cannot be kept out; take --config=configs/pretrain.py:simmim."
        )


class _Encoder:
    """An interceptor of Flax: (next function, its arguments, whose method it is) -> result."""

    def __init__(self, model: nn.Module, visible: jax.Array, block: int, fill: Fill | None) -> None:
        said = architecture.of(model)
        self.name, self.features = said.name, forward.features_of(model)
        # Networks pad at the end, with zeros, which are visible: nothing is hidden there.
        pads = [(0, -n % m) for n, m in zip(visible.shape[1:], said.multiple(model))]
        self.visible = jnp.pad(visible, ((0, 0), *pads), constant_values=True)
        self.kind, self.block, self.fill = type(model), block, fill
        self.inside = self.passed = False

    def __call__(self, call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if not self.inside:
            if not isinstance(module, self.kind) or context.method_name != self.features:
                return call(*args, **kwargs)
            return self._encode(call, args, kwargs)
        if context.method_name != "__call__" and context.method_name.startswith(("_", "setup")):
            return call(*args, **kwargs)  # its public caller is looked at
        if isinstance(module, Norm):
            return self._normalise(module, call, args, kwargs)
        found = call(*args, **kwargs)
        own = {k: v for k, v in module.variables.get("params", {}).items() if hasattr(v, "ndim")}
        if not own:
            return found
        if not (set(own) <= {"kernel", "bias"} and own["kernel"].ndim == found.ndim == self.visible.ndim + 1):
            raise self._unfit(module)
        return self._masked(found)

    def _encode(self, call: Callable[..., Any], args: Any, kwargs: Any) -> list[jax.Array]:
        self.inside = self.passed = True
        try:
            maps = call(*args, **kwargs)
        finally:
            self.inside = False
        return maps if self.fill is None else self.fill(maps, [self._of(level) for level in maps])

    def _normalise(self, module: Norm, call: Callable[..., Any], args: Any, kwargs: Any) -> jax.Array:
        given = inspect.signature(type(module).__call__).bind(module, *args, **kwargs)
        given.apply_defaults()
        x, residual, slope = (given.arguments[name] for name in ("x", "residual", "slope"))
        if x.ndim != self.visible.ndim + 1:
            raise self._unfit(module)
        visible = self._of(x)
        if module.kind not in (*PER_CELL, *PER_SAMPLE):
            raise ConfigError(
                f"config.model.name: network {self.name!r} has norms of kind {module.kind!r} in its encoder, which know "
                "no hidden cells; this method wants instance norms."
            )
        if visible is None or module.kind in PER_CELL:
            return self._masked(call(*args, **kwargs))
        scale, bias = (module.variables.get("params", {}).get(name) for name in ("scale", "bias"))
        x = x.astype(jnp.promote_types(x.dtype, module.dtype))
        return sparse_norm(x, visible, scale, bias, residual, slope, module.epsilon).astype(module.dtype)

    def _unfit(self, module: nn.Module) -> ConfigError:
        return ConfigError(
            f"config.model.name: network {self.name!r} has layers {type(module).__name__} in its encoder, which see "
            "hidden cells; this method is for convolutional ones. Take --config=configs/pretrain.py:simmim, or "
            "--config.model.name=resenc_unet."
        )

    def _of(self, x: jax.Array) -> jax.Array | None:
        """Visible cells of a map `b x y z c`; None: all."""
        return visible_at(self.visible, x.shape[1:-1], self.block)

    def _masked(self, x: jax.Array) -> jax.Array:
        visible = self._of(x)
        return x if visible is None else jnp.where(visible[..., None], x, jnp.zeros((), x.dtype))
