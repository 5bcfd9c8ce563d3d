"""Which program a scan needs, and whether it fits in memory; decided before anything is compiled."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ukbob_jax.inference.windows import grid as grids
from ukbob_jax.inference.windows import memory, sliding
from ukbob_jax.inference.windows.memory import MemoryEstimate
from ukbob_jax.inference.windows.window import Window

# bytes per voxel of the scan as stored, beside its channels: labels, entropy, confidence, resampling
HOST_BYTES = 16


class Planner:
    """Remembers the buckets met so far; memory for a new one is estimated, checked and announced."""

    def __init__(
        self,
        model: nn.Module,
        variables: tuple[Any, Any],
        members: int,
        announce: Callable[[MemoryEstimate], None] | None,
    ) -> None:
        """Remember the network.

        Args:
            model: Flax module.
            variables: its parameters, and its other collections.
            members: how many networks are averaged.
            announce: called with every new estimate that fits.
        """
        self.model = model
        self.variables = variables
        self.members = members
        self.announce = announce
        self.estimates: dict[tuple, MemoryEstimate] = {}  # one per compiled program
        self._peaks: dict[tuple, tuple[int, int]] = {}

    def check(
        self,
        shape: tuple[int, ...],
        native: tuple[int, ...],
        views: int,
        adapts: bool,
        window: Window,
    ) -> MemoryEstimate:
        """Estimate the memory for a scan; the estimate is kept for scans of the same bucket.

        Args:
            shape: of the scan as the network takes it, x y z c.
            native: x y z of the file, onto whose grid labels are resampled.
            views: how many are averaged.
            adapts: whether gradients are taken.
            window: its size, and how it slides.

        Raises:
            ConfigError: the scan does not fit; the message names smaller settings.
        """
        grid = grids.windows(shape[:3], window.roi, window.overlap)
        key = (grid.bucket, shape[3], views, adapts, window.overlap, window.batch)
        if key in self.estimates:
            return self.estimates[key]

        def estimate(adapts: bool, batch: int) -> MemoryEstimate:
            return self._estimate(grid, shape[3], native, views, adapts, batch)

        first = estimate(adapts, window.batch)
        smaller: dict[str, Callable[[], MemoryEstimate]] = {}
        if window.batch > 1:
            smaller["a batch of 1 window"] = lambda: estimate(adapts, 1)
        if adapts:
            smaller["no adaptation and a batch of 1"] = lambda: estimate(False, 1)
        memory.check(first, smaller)
        self.estimates[key] = first
        if self.announce is not None:
            self.announce(first)
        return first

    def _estimate(
        self,
        grid: grids.Grid,
        channels: int,
        native: tuple[int, ...],
        views: int,
        adapts: bool,
        batch: int,
    ) -> MemoryEstimate:
        """Memory for a scan with these windows."""
        batch = min(batch, len(grid.starts))
        classes, network = self._peak(grid.roi, channels, batch, adapts)
        voxels, planes = math.prod(grid.bucket), math.prod(grid.bucket) // grid.bucket[grid.axis]
        several = views > 1 or self.members > 1
        window = 4 * batch * math.prod(grid.roi) * classes
        device = jax.local_devices()[0]
        host = (HOST_BYTES + 8 * channels) * math.prod(native) if device.platform == "cpu" else 0
        return MemoryEstimate(
            bucket=grid.bucket,
            windows=len(grid.starts),
            weights=memory.tree_bytes(self.variables) * (self.members + int(adapts)),
            scan=voxels * (4 * channels + 9) + host,
            sums=4 * planes * grid.roi[grid.axis] * (classes + 1),
            network=network + (3 * window if several else 0),
            available=memory.available(device),
        )

    def _peak(self, roi: tuple[int, int, int], channels: int, batch: int, adapts: bool) -> tuple[int, int]:
        """Classes, and bytes of activations of a call. Adaptation takes gradients of one window at a time."""
        key = (roi, channels, batch, adapts)
        if key not in self._peaks:
            params, state = self.variables
            apply = sliding.ModuleApply(self.model)
            forward = functools.partial(sliding.traced, apply)
            variables = {"params": params, **state}
            classes = sliding.num_outputs(apply, variables, batch, roi, channels, jnp.float32)
            x = jax.ShapeDtypeStruct((batch, *roi, channels), jnp.float32)
            most = memory.peak(forward, variables, x)
            if adapts:
                one = jax.ShapeDtypeStruct((1, *roi, channels), jnp.float32)
                gradient = jax.grad(lambda p, x: apply({"params": p, **state}, x).sum())
                most = max(most, memory.peak(gradient, params, one))
            self._peaks[key] = classes, most
        return self._peaks[key]
