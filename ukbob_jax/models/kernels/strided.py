"""3D convolutions with strides, for CPUs, as matrix products and 2D convolutions of some rows at a time.

A convolution and its gradient by the kernel are products of what every window sees, written out for as many windows as the
cache holds, with the kernel or the gradient. With many channels the convolution is one of planes, those that a window sees
side by side as channels; where the kernel has one voxel along x it always is. The gradient by the input falls into phases:
voxels `stride` apart along an axis meet the same taps of the kernel, so that each phase is a convolution with stride 1 of
the gradient, and no zero is put between its voxels.

Axes: `b` batch, `x y z` voxels, `i` channels in, `o` channels out. A kernel is `kx ky kz i o`.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ukbob_jax.models.kernels.buffers import unwritten

Padding = tuple[tuple[int, int], ...]  # zeros before and after x, y and z

ROWS = 4096  # voxels of a phase, from which a 2D convolution has enough to do
CACHED = 1_500_000  # numbers that one matrix product reads and writes
WIDE, FEW = (
    32,
    64,
)  # channels in and voxels out, from which convolutions of planes are the faster ones (measured)
PLANE = 512  # voxels out of these at a time, at least


class Phase(NamedTuple):
    """Which taps of a kernel the entries `phase + stride * m` of an axis meet, m from 0.

    The j-th of `taps` goes with entry `m + first + j` of the result.
    """

    taps: tuple[int, ...]
    first: int


def convolve(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding) -> jax.Array:
    """Correlate.

    Args:
        x: `b x y z i`, float32 or float64.
        kernel: `kx ky kz i o`, of the same type.
        strides: voxels x y z.
        padding: zeros before and after each axis.
    Returns:
        `b x y z o`, as many voxels as windows fit.
    """
    if kernel.shape[0] == 1 and not any(padding[0]):
        return _of_planes(x[:, :: strides[0]], kernel[0], strides[1:], padding[1:])
    batch, window, outputs = x.shape[0], kernel.shape[:3], kernel.shape[-1]
    size = result_size(x.shape[1:4], window, strides, padding)
    if x.shape[-1] >= WIDE and batch * math.prod(size) >= FEW:
        return _by_planes(x, kernel, size, strides, padding)
    x = _fit_to_windows(x, size, window, strides, padding)
    run, steps = _blocks(batch, size, kernel.size // outputs + outputs)
    kernel = kernel.reshape(-1, outputs)

    def block(n: jax.Array, y: jax.Array) -> jax.Array:
        # The last blocks overlap those before.
        first = [jnp.minimum(m * r, s - r) for m, r, s in zip(divmod(n, steps[1]), run, size)]
        found = _seen(x, first, run, window, strides) @ kernel
        found = found.reshape(batch, *run, *y.shape[3:])
        return lax.dynamic_update_slice(y, found, (0, *first, 0, 0))

    y = unwritten((batch, *size, outputs), kernel)
    return lax.fori_loop(0, steps[0] * steps[1], block, y)


def _by_planes(
    x: jax.Array, kernel: jax.Array, size: Sequence[int], strides: Sequence[int], padding: Padding
) -> jax.Array:
    """`convolve` to `size` voxels as 2D convolutions of what windows see along x, its planes side by side as channels."""
    batch, window, outputs = x.shape[0], kernel.shape[0], kernel.shape[-1]
    x = _fit(x, 1, padding[0][0], strides[0] * (size[0] - 1) + window)
    run = min(size[0], -(-PLANE // (batch * size[1] * size[2])))
    kernel = jnp.moveaxis(kernel, 0, 2).reshape(*kernel.shape[1:3], -1, outputs)  # ky kz (kx i) o

    def planes(n: jax.Array, y: jax.Array) -> jax.Array:
        first = jnp.minimum(n * run, size[0] - run)  # the last ones overlap those before
        reach = strides[0] * (run - 1) + 1
        near = lax.dynamic_slice_in_dim(x, first * strides[0], reach - 1 + window, 1)
        seen = jnp.concatenate([near[:, p : p + reach : strides[0]] for p in range(window)], -1)
        found = _of_planes(seen, kernel, strides[1:], padding[1:])
        return lax.dynamic_update_slice_in_dim(y, found, first, 1)

    y = unwritten((batch, *size, outputs), kernel)
    return lax.fori_loop(0, -(-size[0] // run), planes, y)


def data_gradient(
    dy: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding, size: Sequence[int]
) -> jax.Array:
    """The gradient of `convolve` by its input of `size` voxels, `b x y z i`, from that by its result, `b x y z o`."""
    batch, inputs = dy.shape[0], kernel.shape[3]
    phases = [_phases(k, s, low) for k, s, (low, _) in zip(kernel.shape, strides, padding)]
    counts = [-(-n // s) for n, s in zip(size, strides)]  # entries of a phase
    starts = [min(phase.first for phase in axis) for axis in phases]
    reaches = [max(p.first + len(p.taps) for p in axis) - start for axis, start in zip(phases, starts)]
    for axis, (start, reach, count) in enumerate(zip(starts, reaches, counts), 1):
        dy = _fit(dy, axis, -start, count - 1 + reach)
    run = min(counts[0], -(-ROWS // (batch * counts[1] * counts[2])))  # planes of each phase at a time
    shape = (batch, run, counts[1], 1, counts[2] * strides[2], inputs)
    kernels = {
        (p, q): _kernel_of_phases(kernel, phases[0][p], phases[1][q], phases[2], starts[2], reaches[2])
        for p, q in itertools.product(range(strides[0]), range(strides[1]))
    }

    def rows(seen: jax.Array, p: int, q: int) -> jax.Array:
        """`b run y 1 z i`: every `strides[1]`-th row, both phases of z side by side."""
        phase = phases[1][q]
        if not kernels[p, q].size:
            return jnp.zeros(shape, dy.dtype)
        begin = phase.first - starts[1]
        seen = lax.slice_in_dim(seen, begin, begin + counts[1] - 1 + len(phase.taps), axis=2)
        return _of_planes(seen, kernels[p, q], (1, 1), ((0, 0), (0, 0))).reshape(shape)

    def planes(n: jax.Array, dx: jax.Array) -> jax.Array:
        start = jnp.minimum(n * run, counts[0] - run)
        near = lax.dynamic_slice_in_dim(dy, start, run + reaches[0] - 1, 1)
        done = []
        for p, phase in enumerate(phases[0]):
            begin = phase.first - starts[0]
            taps = [near[:, begin + j : begin + j + run] for j in range(len(phase.taps))]
            seen = jnp.concatenate(taps or [near[:, :run, ..., :0]], -1)  # b run y z (kx o)
            plane = jnp.concatenate([rows(seen, p, q) for q in range(strides[1])], 3)
            done.append(plane.reshape(batch, run, 1, -1, *shape[4:]))
        found = jnp.concatenate(done, 2).reshape(batch, run * strides[0], -1, *shape[4:])
        return lax.dynamic_update_slice_in_dim(dx, found, strides[0] * start, 1)

    whole = [n * s for n, s in zip(counts, strides)]
    dx = unwritten((batch, *whole, inputs), kernel)
    dx = lax.fori_loop(0, -(-counts[0] // run), planes, dx)
    return dx[:, : size[0], : size[1], : size[2]]


def weight_gradient(
    x: jax.Array, dy: jax.Array, window: Sequence[int], strides: Sequence[int], padding: Padding
) -> jax.Array:
    """The gradient of `convolve` by its kernel, `kx ky kz i o`, from that by its result, `b x y z o`."""
    batch, *size, outputs = dy.shape
    wide = window[0] * window[1] * window[2] * x.shape[-1]
    run, steps = _blocks(batch, size, wide + outputs)
    size = [run[0] * steps[0], run[1] * steps[1], size[2]]
    dy = _fit(_fit(dy, 1, 0, size[0]), 2, 0, size[1])
    x = _fit_to_windows(x, size, window, strides, padding)

    def add(n: jax.Array, total: jax.Array) -> jax.Array:
        first = [m * r for m, r in zip(divmod(n, steps[1]), run)]
        near = lax.dynamic_slice(dy, (0, *first, 0, 0), (batch, *run, *dy.shape[3:]))
        # This way round XLA turns the smaller factor.
        return total + near.reshape(-1, outputs).T @ _seen(x, first, run, window, strides)

    total = lax.fori_loop(0, steps[0] * steps[1], add, jnp.zeros((outputs, wide), x.dtype))
    return total.T.reshape(*window, x.shape[-1], outputs)


def result_size(
    size: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Padding
) -> list[int]:
    """How many windows fit along each axis."""
    return [(n + sum(pad) - k) // s + 1 for n, k, s, pad in zip(size, window, strides, padding)]


def _blocks(batch: int, size: Sequence[int], numbers: int) -> tuple[list[int], list[int]]:
    """Windows along x and y at a time, whole rows of them, and how many times, where each window takes so many numbers."""
    rows = max(1, CACHED // (batch * size[2] * numbers))
    run = [max(1, min(size[0], rows // size[1])), min(size[1], rows)]
    return run, [-(-n // r) for n, r in zip(size, run)]


def _fit_to_windows(
    x: jax.Array, size: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Padding
) -> jax.Array:
    """`x` padded with zeros, or cut, to what so many windows along each axis see."""
    for axis, (n, k, s, (low, _)) in enumerate(zip(size, window, strides, padding), 1):
        x = _fit(x, axis, low, s * (n - 1) + k)
    return x


def _seen(
    x: jax.Array, first: Sequence[Any], run: Sequence[int], window: Sequence[int], strides: Sequence[int]
) -> jax.Array:
    """All that the windows of some rows see: `b x y z i` to `(b x y z) (kx ky kz i)`.

    Args:
        x: as far as windows reach, no farther.
        first: window along x and along y.
        run: windows along x and along y.
        window, strides: of the convolution.
    """
    corner = (0, first[0] * strides[0], first[1] * strides[1], 0, 0)
    reach = [s * (r - 1) + k for r, k, s in zip(run, window, strides)]
    x = _along_z(lax.dynamic_slice(x, corner, (x.shape[0], *reach, *x.shape[3:])), window[2], strides[2])
    taps = [
        x[:, p : p + reach[0] - window[0] + 1 : strides[0], q : q + reach[1] - window[1] + 1 : strides[1]]
        for p, q in itertools.product(range(window[0]), range(window[1]))
    ]
    return jnp.concatenate(taps, -1).reshape(-1, len(taps) * x.shape[-1])


def _along_z(x: jax.Array, window: int, stride: int) -> jax.Array:
    """What each window along z sees: `b x y z i` to `b x y n (kz i)`, in runs as long as they lie in memory."""
    *lead, length, inputs = x.shape
    count, blocks = (length - window) // stride + 1, -(-window // stride)
    x = _fit(x, 3, 0, (count + blocks - 1) * stride).reshape(*lead, -1, stride * inputs)
    pieces = [x[:, :, :, t : t + count] for t in range(blocks)]
    pieces[-1] = pieces[-1][..., : (window - (blocks - 1) * stride) * inputs]
    return jnp.concatenate(pieces, -1)


def _of_planes(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding) -> jax.Array:
    """2D convolutions: `b x y z i` with `ky kz i o`."""
    batch, count, *plane = x.shape
    y = lax.conv_general_dilated(
        x.reshape(-1, *plane), kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y.reshape(batch, count, *y.shape[1:])


def _phases(window: int, stride: int, low: int) -> list[Phase]:
    """Entry p of an axis with `low` zeros before it meets tap t at entry (p + low - t) / stride of the result."""
    found = []
    for phase in range(stride):
        shift, tap = divmod(phase + low, stride)
        taps = tuple(range(tap, window, stride))[::-1]
        found.append(Phase(taps, shift - len(taps) + 1))
    return found


def _kernel_of_phases(
    kernel: jax.Array, x: Phase, y: Phase, z: Sequence[Phase], start: int, reach: int
) -> jax.Array:
    """`ky reach (kx o) (phases of z, i)`: what a voxel of the result gives to one phase of x and y and all of z."""
    taps = _take(_take(kernel, x.taps, 0), y.taps, 1)
    wide = []
    for phase in z:
        part = _take(taps, phase.taps, 2)
        before = phase.first - start if phase.taps else 0
        after = reach - before - len(phase.taps)
        wide.append(jnp.pad(part, ((0, 0), (0, 0), (before, after), (0, 0), (0, 0))))
    taps = jnp.stack(wide, 4)  # kx ky reach i z o
    kx, ky, reach, inputs, count, outputs = taps.shape
    return jnp.transpose(taps, (1, 2, 0, 5, 4, 3)).reshape(ky, reach, kx * outputs, count * inputs)


def _take(kernel: jax.Array, taps: Sequence[int], axis: int) -> jax.Array:
    """Evenly spaced taps, the last first."""
    if not taps:
        return lax.slice_in_dim(kernel, 0, 0, axis=axis)
    step = taps[0] - taps[1] if len(taps) > 1 else 1
    return lax.rev(lax.slice_in_dim(kernel, taps[-1], taps[0] + 1, step, axis), (axis,))


def _fit(x: jax.Array, axis: int, before: int, length: int) -> jax.Array:
    """`x` with so many zeros before an axis, cut or filled up with zeros to a length; a negative number cuts."""
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (before, length - before - x.shape[axis], 0)
    return lax.pad(x, jnp.zeros((), x.dtype), config) if any(config[axis]) else x
