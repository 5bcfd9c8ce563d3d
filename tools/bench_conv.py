"""Speed of `ukbob_jax.models.kernels.conv` beside XLA's own 3D convolution, shape by shape, forward and with both gradients.

    python -m tools.bench_conv                    the shapes of the demo: crop 64 x 32 x 32, batch 2, width 12
    python -m tools.bench_conv --shapes unetr     those of Swin-UNETR at 96 cubed, widths 12, 24 and 48; minutes

The arithmetic counted is the convolution's own (2 x 27 x i x o per voxel, three times that with gradients). Candidates
take turns, and the best of `--repeats` rounds counts, so that other programs on the machine disturb the ratios little.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax import devices
from ukbob_jax.models.kernels.conv import conv3d

Shape = tuple[int, int, int, int, int, int]  # b x y z i o

DEMO: tuple[Shape, ...] = (
    (2, 64, 32, 32, 4, 12),
    (2, 64, 32, 32, 12, 12),
    (2, 64, 32, 32, 24, 12),
    (2, 32, 16, 16, 12, 12),
    (2, 32, 16, 16, 24, 12),
    (2, 16, 8, 8, 48, 24),
    (2, 8, 4, 4, 96, 48),
    (2, 4, 2, 2, 192, 96),
)
UNETR: tuple[Shape, ...] = tuple(
    (1, n, n, n, i * width, o * width)
    for width in (12, 24, 48)
    for n, i, o in ((96, 1, 1), (96, 2, 1), (48, 2, 1), (24, 4, 2), (12, 8, 4), (6, 16, 8), (3, 16, 16))
)


def main() -> None:
    devices.tune_cpu()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", choices=("demo", "unetr"), default="demo")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="file for the rows as JSON")
    options = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}, float32; GFLOP/s")
    print(f"{'b x y z i o':<26}{'forward':>9}{'lax':>7}{'ratio':>8}{'+ gradients':>14}{'lax':>7}{'ratio':>8}")
    rows = []
    for shape in DEMO if options.shapes == "demo" else UNETR:
        rows.append(row := measure(shape, options.repeats))
        ours, lax, ours_all, lax_all = (
            row[name] for name in ("ours", "lax", "ours_gradients", "lax_gradients")
        )
        print(
            f"{' '.join(map(str, shape)):<26}{ours:9.1f}{lax:7.1f}{ours / lax:8.1f}"
            f"{ours_all:14.1f}{lax_all:7.1f}{ours_all / lax_all:8.1f}",
            flush=True,
        )
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


def measure(shape: Shape, repeats: int) -> dict:
    """GFLOP/s of each candidate for one shape."""
    *volume, inputs, outputs = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((*volume, inputs)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 3, inputs, outputs)), jnp.float32)
    dy = jnp.asarray(rng.standard_normal((*volume, outputs)), jnp.float32)
    gflop = 2 * 27 * inputs * outputs * np.prod(volume) / 1e9

    def all_three(function: Callable) -> Callable:
        def run(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, ...]:
            y, pullback = jax.vjp(function, x, kernel)
            return y, *pullback(dy)

        return run

    programs = {
        "ours": (jax.jit(conv3d), (x, kernel), gflop),
        "lax": (jax.jit(plain), (x, kernel), gflop),
        "ours_gradients": (jax.jit(all_three(conv3d)), (x, kernel, dy), 3 * gflop),
        "lax_gradients": (jax.jit(all_three(plain)), (x, kernel, dy), 3 * gflop),
    }
    best = dict.fromkeys(programs, np.inf)
    for round_ in range(repeats + 1):  # the first compiles
        for name, (program, arguments, _) in programs.items():
            if name.startswith("lax") and round_ > 2:
                continue  # slow and steady
            start = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            if round_:
                best[name] = min(best[name], time.perf_counter() - start)
    return {"shape": shape} | {name: float(work / best[name]) for name, (_, _, work) in programs.items()}


def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's own convolution."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


if __name__ == "__main__":
    main()
