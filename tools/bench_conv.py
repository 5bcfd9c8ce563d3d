"""Speed of `ukbob_jax.models.kernels.conv` beside XLA's own 3D convolution, shape by shape, forward and with both gradients.

    python -m tools.bench_conv                    the shapes of the demo: crop 64 x 32 x 32, batch 2, width 12
    python -m tools.bench_conv --shapes unetr     those of Swin-UNETR at 96 cubed, widths 12, 24 and 48; minutes
    python -m tools.bench_conv --shapes nnunet --peer torch     those of nnU-Net at 96 cubed, beside PyTorch with oneDNN

The arithmetic counted is the convolution's own (2 x taps x i x o per voxel, three times that with gradients). Candidates
take turns, and the best of `--repeats` rounds counts, so that other programs on the machine disturb the ratios little.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax import devices
from ukbob_jax.models.kernels.conv import conv3d


class Layer(NamedTuple):
    """A convolution with zeros around, as many as half of its kernel."""

    batch: int
    size: tuple[int, int, int]  # voxels of the input
    inputs: int
    outputs: int
    window: tuple[int, int, int] = (3, 3, 3)
    strides: tuple[int, int, int] = (1, 1, 1)


SHAPES: dict[str, tuple[Layer, ...]] = {
    "demo": (
        Layer(2, (64, 32, 32), 4, 12),
        Layer(2, (64, 32, 32), 12, 12),
        Layer(2, (64, 32, 32), 24, 12),
        Layer(2, (32, 16, 16), 12, 12),
        Layer(2, (32, 16, 16), 24, 12),
        Layer(2, (16, 8, 8), 48, 24),
        Layer(2, (8, 4, 4), 96, 48),
        Layer(2, (4, 2, 2), 192, 96),
    ),
    "unetr": tuple(
        Layer(1, (n, n, n), i * width, o * width)
        for width in (12, 24, 48)
        for n, i, o in ((96, 1, 1), (96, 2, 1), (48, 2, 1), (24, 4, 2), (12, 8, 4), (6, 16, 8), (3, 16, 16))
    ),
    "nnunet": (
        Layer(1, (96, 96, 96), 1, 32),
        *(
            Layer(1, (n, n, n), i, i)
            for n, i in ((96, 32), (48, 64), (24, 128), (12, 256), (6, 320), (3, 320))
        ),
        Layer(1, (96, 96, 96), 64, 32),
        *(
            Layer(1, (n, n, n), i, o, strides=(2, 2, 2))
            for n, i, o in ((96, 32, 64), (48, 64, 128), (24, 128, 256), (12, 256, 320), (6, 320, 320))
        ),
        Layer(1, (24, 128, 128), 32, 32, (1, 3, 3)),
        Layer(1, (24, 128, 128), 32, 64, (1, 3, 3), (1, 2, 2)),
        Layer(1, (128, 128, 24), 32, 32, (3, 3, 1)),
        Layer(1, (128, 128, 24), 32, 64, (3, 3, 1), (2, 2, 1)),
    ),
}


def main() -> None:
    devices.tune_cpu()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", choices=tuple(SHAPES), default="demo")
    parser.add_argument("--peer", choices=("lax", "torch"), default="lax")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="file for the rows as JSON")
    options = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}, float32; GFLOP/s")
    peer = options.peer
    print(
        f"{'b x y z i o, kernel, strides':<44}{'forward':>9}{peer:>7}{'ratio':>8}{'+ gradients':>14}{peer:>7}{'ratio':>8}"
    )
    rows = []
    for layer in SHAPES[options.shapes]:
        rows.append(row := measure(layer, options.repeats, peer))
        ours, theirs, ours_all, theirs_all = (
            row[name] for name in ("ours", peer, "ours_gradients", f"{peer}_gradients")
        )
        name = " ".join(str(part).replace(" ", "") for part in layer)
        print(
            f"{name:<44}{ours:9.1f}{theirs:7.1f}{ours / theirs:8.2f}"
            f"{ours_all:14.1f}{theirs_all:7.1f}{ours_all / theirs_all:8.2f}",
            flush=True,
        )
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


def measure(layer: Layer, repeats: int, peer: str) -> dict:
    """GFLOP/s of each candidate for one layer."""
    rng = np.random.default_rng(0)
    padding = tuple((k // 2, k // 2) for k in layer.window)
    size = [(n - 1) // s + 1 for n, s in zip(layer.size, layer.strides)]
    x = rng.standard_normal((layer.batch, *layer.size, layer.inputs)).astype(np.float32)
    kernel = rng.standard_normal((*layer.window, layer.inputs, layer.outputs)).astype(np.float32)
    dy = rng.standard_normal((layer.batch, *size, layer.outputs)).astype(np.float32)
    gflop = 2 * kernel.size * layer.batch * np.prod(size) / 1e9

    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv3d(x, kernel, layer.strides, padding)

    def lax(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, layer.strides, padding, dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
        )

    programs = of_jax(ours, "ours", x, kernel, dy)
    programs |= of_torch(layer, x, kernel, dy) if peer == "torch" else of_jax(lax, "lax", x, kernel, dy)
    best = dict.fromkeys(programs, np.inf)
    for round_ in range(repeats + 1):  # the first compiles
        for name, program in programs.items():
            if name.startswith("lax") and round_ > 2:
                continue  # slow and steady
            start = time.perf_counter()
            program()
            if round_:
                best[name] = min(best[name], time.perf_counter() - start)
    work = {name: gflop * (3 if name.endswith("gradients") else 1) for name in programs}
    return layer._asdict() | {name: float(work[name] / best[name]) for name in programs}


def of_jax(function: Callable, name: str, *arrays: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Forward, and with both gradients."""

    def all_three(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, ...]:
        y, pullback = jax.vjp(function, x, kernel)
        return y, *pullback(dy)

    inputs = tuple(map(jnp.asarray, arrays))
    forward, both = jax.jit(function), jax.jit(all_three)
    return {
        name: lambda: jax.block_until_ready(forward(*inputs[:2])),
        f"{name}_gradients": lambda: jax.block_until_ready(both(*inputs)),
    }


def of_torch(layer: Layer, *arrays: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The same, channels first as PyTorch's networks have them."""
    import torch

    x, kernel, dy = map(torch.from_numpy, arrays)
    x, dy = (a.movedim(-1, 1).contiguous() for a in (x, dy))
    kernel = kernel.permute(4, 3, 0, 1, 2).contiguous()
    options = {"stride": layer.strides, "padding": tuple(k // 2 for k in layer.window)}

    def forward() -> None:
        with torch.inference_mode():
            torch.nn.functional.conv3d(x, kernel, **options)

    def both() -> None:
        inputs = x.detach().requires_grad_(), kernel.detach().requires_grad_()
        torch.autograd.grad(torch.nn.functional.conv3d(*inputs, **options), inputs, dy)

    return {"torch": forward, "torch_gradients": both}


if __name__ == "__main__":
    main()
