"""Swin-UNETR here beside MONAI's on PyTorch: forward and train step, same machine, same run, taking turns.

    python -m tools.bench_model                                   64 cubed, width 12: a few minutes
    python -m tools.bench_model --full                            96 cubed, widths 12, 24 and 48, 73 classes
    python -m tools.bench_model --size 64 32 32 --batch 2         the demo's crop
    python -m tools.bench_model --full --batch 2 --dtype bfloat16 on a GPU

A train step is Dice + cross entropy, gradients and AdamW. PyTorch runs with its best settings: oneDNN on a CPU;
`torch.compile`, automatic mixed precision and channels-last on a GPU. MONAI and torch are needed (pip install
ukbob-jax[torch]). Ratios are MONAI's time over ours, above 1 is faster than MONAI; CPU seconds are given too, since
they depend less on what else the machine does. Peak memory is the compiler's own account for us; for PyTorch the
allocator's on a GPU, the growth of a fresh process on a CPU. FLOPs are those of our program before any rearrangement;
the share of peak is relative to a large matrix product of the same type, timed in the same run.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ukbob_jax import devices
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.training.losses import dice_ce

KINDS = ("forward", "train step")
LEARNING_RATE = 1e-4


class Case(NamedTuple):
    """One model and batch."""

    size: tuple[int, int, int]  # voxels
    width: int
    classes: int
    channels: int
    batch: int
    dtype: str


class Program(NamedTuple):
    """Something to time: `run` blocks until its result is there."""

    run: Callable[[], Any]
    compile_s: float
    flops: float
    device_bytes: int  # peak; 0 where the framework does not say


def main() -> None:
    devices.tune_cpu()
    options = arguments()
    print(f"{machine()}; seconds are minima over {options.repeats} rounds, medians in the JSON")
    print(
        f"{'x y z':<12}{'width':>6} {'':8}{'ours':>8}{'MONAI':>8}{'ratio':>7}{'median':>8}{'CPU ratio':>11}"
        f"{'GFLOP/s':>9}{'of peak':>9}{'compile s':>11}{'peak MB':>9}{'MONAI':>8}"
    )
    rows = []
    for width in options.widths:
        case = Case(
            tuple(options.size), width, options.classes, options.channels, options.batch, options.dtype
        )
        for row in measure(case, options.repeats):
            rows.append(row)
            print(line(row), flush=True)
    if options.out:
        options.out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=3, help="voxels x y z; default 64 64 64")
    parser.add_argument("--widths", type=int, nargs="+", help="feature sizes; default 12")
    parser.add_argument("--full", action="store_true", help="96 cubed, widths 12, 24 and 48")
    parser.add_argument("--classes", type=int, default=73)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file for the rows as JSON")
    options = parser.parse_args()
    options.size = options.size or ((96, 96, 96) if options.full else (64, 64, 64))
    options.widths = options.widths or ((12, 24, 48) if options.full else (12,))
    return options


def measure(case: Case, repeats: int) -> list[dict]:
    """One row for the forward pass and one for the train step."""
    ours, theirs, peak = our_programs(case), monai_programs(case), matmul_flops(case.dtype)
    programs = {f"ours {k}": v.run for k, v in ours.items()} | {
        f"monai {k}": v.run for k, v in theirs.items()
    }
    wall, cpu = take_turns(programs, repeats)
    rows = []
    for kind, program in ours.items():
        mine, peer = f"ours {kind}", f"monai {kind}"
        speed = program.flops / min(wall[mine])
        rows.append(
            case._asdict()
            | {"kind": kind, "ours_s": min(wall[mine]), "monai_s": min(wall[peer])}
            | {
                "ours_median_s": statistics.median(wall[mine]),
                "monai_median_s": statistics.median(wall[peer]),
            }
            | {"ratio": min(wall[peer]) / min(wall[mine]), "cpu_ratio": min(cpu[peer]) / min(cpu[mine])}
            | {"median_ratio": statistics.median(wall[peer]) / statistics.median(wall[mine])}
            | {"gflop": program.flops / 1e9, "gflop_per_s": speed / 1e9, "share_of_peak": speed / peak}
            | {"compile_s": program.compile_s, "monai_compile_s": theirs[kind].compile_s}
            | {"peak_mb": program.device_bytes / 1e6}
            | {"monai_peak_mb": monai_peak_bytes(case, kind, theirs[kind]) / 1e6}
        )
    return rows


def our_programs(case: Case) -> dict[str, Program]:
    """Our forward pass and train step, compiled ahead of time."""
    forward, step, optimizer = our_functions(case)
    image, label = batch(case)
    shapes = jax.eval_shape(model(case).init, jax.random.key(0), image)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape) * 0.02, a.dtype), shapes)
    # The step writes the next parameters and moments where the last ones lay, as PyTorch does.
    programs = (
        compiled(forward, (params, image)),
        compiled(step, (params, optimizer.init(params), image, label), donated=2),
    )
    return dict(zip(KINDS, programs))


def model(case: Case) -> SwinUNETR:
    return SwinUNETR(case.channels, case.classes, feature_size=case.width, dtype=jnp.dtype(case.dtype))


def our_functions(case: Case) -> tuple[Callable, Callable, optax.GradientTransformation]:
    """Forward pass (params, image), train step (params, state, image, label), and the step's optimizer."""
    optimizer = optax.adamw(LEARNING_RATE)

    def forward(params: Any, image: jax.Array) -> jax.Array:
        return model(case).apply({"params": params}, image)

    def step(params: Any, state: Any, image: jax.Array, label: jax.Array) -> tuple:
        loss, gradient = jax.value_and_grad(lambda p: dice_ce(forward(p, image), label))(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    return forward, step, optimizer


def compiled(function: Callable, inputs: tuple, donated: int = 0) -> Program:
    """`function`, whose first `donated` results take the place of so many first inputs at the next call."""
    traced = jax.jit(function, donate_argnums=tuple(range(donated))).trace(*inputs)
    # The program for GPUs is the plain one: no loop bodies that the cost analysis would count once only.
    flops = traced.lower(lowering_platforms=("cuda",)).cost_analysis()["flops"]
    start = time.perf_counter()
    program = traced.lower().compile()
    seconds = time.perf_counter() - start
    memory = program.memory_analysis()
    used = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    held = jax.tree.map(jnp.copy, inputs) if donated else inputs

    def run() -> None:
        nonlocal held
        results = jax.block_until_ready(program(*held))
        if donated:
            held = (*results[:donated], *held[donated:])

    return Program(run, seconds, flops, used - memory.alias_size_in_bytes)


def monai_programs(case: Case, kinds: tuple[str, ...] = KINDS) -> dict[str, Program]:
    """MONAI's forward pass and train step with PyTorch's best settings for the device."""
    import torch
    from monai.losses import DiceCELoss
    from monai.networks.nets import SwinUNETR as MonaiSwinUNETR

    device = torch.device("cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu")
    fast, layout = device.type == "cuda", torch.channels_last_3d
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=case.dtype == "bfloat16")
    image, label = (torch.from_numpy(np.array(a)) for a in batch(case))
    image = (
        image.movedim(-1, 1).contiguous(memory_format=layout if fast else torch.contiguous_format).to(device)
    )
    label = label[:, None].to(device)
    model = MonaiSwinUNETR(
        in_channels=case.channels, out_channels=case.classes, feature_size=case.width, use_checkpoint=False
    )
    model = model.to(device, memory_format=layout) if fast else model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    network = torch.compile(model) if fast else model

    def wait() -> None:
        if fast:
            torch.cuda.synchronize()

    def forward() -> None:
        model.eval()
        with torch.no_grad(), mixed:
            network(image)
        wait()

    def step() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        with mixed:
            loss = loss_of(network(image), label)
        loss.backward()
        optimizer.step()
        wait()

    def first(run: Callable[[], None]) -> Program:
        if fast:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        run()  # compiles
        seconds = time.perf_counter() - start
        return Program(run, seconds, 0.0, torch.cuda.max_memory_allocated() if fast else 0)

    runs = dict(zip(KINDS, (forward, step)))
    return {kind: first(runs[kind]) for kind in kinds}


def batch(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """A random image `b x y z c` and label `b x y z`."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((case.batch, *case.size, case.channels)).astype(np.float32)
    return image, rng.integers(0, case.classes, (case.batch, *case.size)).astype(np.uint8)


def take_turns(programs: dict[str, Callable], repeats: int) -> tuple[dict, dict]:
    """Wall and CPU seconds of every program in every round, after one round to warm up."""
    wall, cpu = {name: [] for name in programs}, {name: [] for name in programs}
    for round_ in range(repeats + 1):
        for name, run in programs.items():
            before, cpu_before = time.perf_counter(), time.process_time()
            run()
            if round_:
                wall[name].append(time.perf_counter() - before)
                cpu[name].append(time.process_time() - cpu_before)
    return wall, cpu


def matmul_flops(dtype: str) -> float:
    """FLOP/s of a large matrix product."""
    n = 8192 if jax.default_backend() == "gpu" else 2048
    a = jnp.ones((n, n), dtype)
    product = jax.jit(jnp.matmul)
    wall, _ = take_turns({"": lambda: jax.block_until_ready(product(a, a))}, 5)
    return 2 * n**3 / min(wall[""])


def monai_peak_bytes(case: Case, kind: str, program: Program) -> int:
    """Peak memory on the GPU; on a CPU, by how much a fresh process grew."""
    if program.device_bytes:
        return program.device_bytes
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(grown_bytes, (case, kind))


def grown_bytes(case: Case, kind: str) -> int:
    import monai.losses
    import monai.networks.nets  # noqa: F401 - loaded before the first reading

    before = high_water_bytes()
    monai_programs(case, (kind,))
    return high_water_bytes() - before


def high_water_bytes() -> int:
    """Most memory this process ever held (Linux). getrusage's figure would begin with the parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def machine() -> str:
    import torch

    return f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}, torch {torch.__version__}"


def line(row: dict) -> str:
    return (
        f"{' '.join(map(str, row['size'])):<12}{row['width']:>6} {row['kind']:<10}"
        f"{row['ours_s']:6.2f}{row['monai_s']:8.2f}{row['ratio']:7.2f}{row['median_ratio']:8.2f}"
        f"{row['cpu_ratio']:11.2f}{row['gflop_per_s']:9.1f}{row['share_of_peak']:9.1%}{row['compile_s']:11.1f}"
        f"{row['peak_mb']:9.0f}{row['monai_peak_mb']:8.0f}"
    )


if __name__ == "__main__":
    main()
