"""Which program a scan needs, and whether it fits: asked before anything is compiled."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ukbob_jax.inference.windows import grid as grids
from ukbob_jax.inference.windows import memory
from ukbob_jax.inference.windows.memory import Plan

HOST_BYTES = (
    16  # per voxel of the scan as stored, beside its channels: labels, entropy, confidence, resampling
)


class Planner:
    """Remembers the buckets met so far; a new one is planned, checked and announced."""

    def __init__(
        self,
        model: nn.Module,
        variables: tuple[Any, Any],
        members: int,
        roi: Sequence[int],
        announce: Callable[[Plan], None] | None,
    ) -> None:
        """Args: the network, its (params, other collections), how many are averaged, and its window."""
        self.model = model
        self.variables = variables
        self.members = members
        self.roi = roi
        self.announce = announce
        self.plans: dict[tuple, Plan] = {}  # one per compiled program
        self._peaks: dict[tuple, tuple[int, int]] = {}

    def check(
        self,
        shape: tuple[int, ...],
        native: tuple[int, int, int],
        views: int,
        adapts: bool,
        *,
        overlap: float | Sequence[float],
        batch: int,
    ) -> Plan:
        """The plan for a scan of `x y z c`; the same as before for a scan of the same bucket.

        Args:
            native: x y z of the file, onto which labels are brought back.
            views: how many are averaged.
            adapts: whether gradients are taken.

        Raises:
            ConfigError: it does not fit; names smaller settings.
        """
        grid = grids.windows(shape[:3], self.roi, overlap)
        key = (
            grid.bucket,
            shape[3],
            views,
            adapts,
            overlap if np.ndim(overlap) == 0 else tuple(overlap),
            batch,
        )
        if key in self.plans:
            return self.plans[key]
        plan = self.plan(grid, shape[3], native, views, adapts, batch)
        smaller = {}
        if batch > 1:
            smaller["a batch of 1 window"] = lambda: self.plan(grid, shape[3], native, views, adapts, 1)
        if adapts:
            smaller["no adaptation and a batch of 1"] = lambda: self.plan(
                grid, shape[3], native, views, False, 1
            )
        memory.check(plan, smaller)
        self.plans[key] = plan
        if self.announce is not None:
            self.announce(plan)
        return plan

    def plan(
        self,
        grid: grids.Grid,
        channels: int,
        native: tuple[int, int, int],
        views: int,
        adapts: bool,
        batch: int,
    ) -> Plan:
        """What a scan with these windows takes."""
        batch = min(batch, len(grid.starts))
        classes, network = self._peak(grid.roi, channels, batch, adapts)
        voxels, planes = math.prod(grid.bucket), math.prod(grid.bucket) // grid.bucket[grid.axis]
        several = views > 1 or self.members > 1
        window = 4 * batch * math.prod(grid.roi) * classes
        device = jax.local_devices()[0]
        host = (
            HOST_BYTES * math.prod(native) + 8 * math.prod(native) * channels
            if device.platform == "cpu"
            else 0
        )
        return Plan(
            bucket=grid.bucket,
            windows=len(grid.starts),
            weights=memory.tree_bytes(self.variables) * (self.members + int(adapts)),
            scan=voxels * (4 * channels + 9) + host,
            sums=4 * planes * grid.roi[grid.axis] * (classes + 1),
            network=network + (3 * window if several else 0),
            available=memory.available(device),
        )

    def _peak(self, roi: tuple[int, int, int], channels: int, batch: int, adapts: bool) -> tuple[int, int]:
        """Classes, and bytes of activations of a call; with gradients, one window at a time is adapted to."""
        key = (roi, channels, batch, adapts)
        if key not in self._peaks:
            params, state = self.variables

            def forward(params: Any, x: jax.Array) -> jax.Array:
                return self.model.apply({"params": params, **state}, x)

            x = jax.ShapeDtypeStruct((batch, *roi, channels), jnp.float32)
            out = jax.eval_shape(forward, params, x)
            most = memory.peak(forward, params, x)
            if adapts:
                one = jax.ShapeDtypeStruct((1, *roi, channels), jnp.float32)
                most = max(most, memory.peak(jax.grad(lambda p, x: forward(p, x).sum()), params, one))
            self._peaks[key] = out.shape[-1], most
        return self._peaks[key]
