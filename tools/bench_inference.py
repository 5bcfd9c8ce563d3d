"""What inference costs beyond the network itself, and what metrics cost, with MONAI in the same run where installed.

    python -m tools.bench_inference                                   # all, at a size for a laptop
    python -m tools.bench_inference added --shape 224 174 370 --roi 96 --width 48 --batch 1
    python -m tools.bench_inference sliding --shape 256 256 256 --roi 96 --width 48 --dtype bfloat16
    python -m tools.bench_inference metrics --shape 224 174 370       # a whole body

added: time of the sliding window around a network that takes none, and the network's own time on as many windows.
sliding: whole predictions beside the network's own time. memory: what processes hold at most, one process each.
etta: against its floor of forward and backward passes. metrics: of all structures of a phantom.
cold: `ukbob segment` from the start of the process to the first window, its program in the cache; fresh processes.

Prints one JSON line per measurement. Programs are compiled before the clock starts. CPU seconds hold beside other work.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ukbob_jax import anatomy, devices, phantom, weights
from ukbob_jax.evaluation import metrics
from ukbob_jax.inference.adaptation import selection
from ukbob_jax.inference.adaptation.etta import etta
from ukbob_jax.inference.windows import grid as grids
from ukbob_jax.inference.windows import slabs, sliding
from ukbob_jax.inference.windows.entropy import voxel_entropy
from ukbob_jax.inference.windows.window import Window
from ukbob_jax.models.card import ModelCard
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.training import optimizer
from ukbob_jax.training import state as states
from ukbob_jax.training.checkpoints import Checkpoints
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.volume import Volume

CLASSES = 73
Run = Callable[[], Any]


def clock(run: Run, repeat: int = 1) -> float:
    """Seconds of a run, the median of some."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def cpu_clock(run: Run, repeat: int = 1) -> tuple[float, float]:
    """Seconds and CPU seconds of a run, each the median of some; other work on the machine changes the latter little."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(run())
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, cpu = zip(*times)
    return statistics.median(wall), statistics.median(cpu)


def tell(what: str, args: argparse.Namespace, **numbers: Any) -> None:
    """One line of JSON."""
    common = {"device": jax.devices()[0].device_kind, "shape": args.shape, "roi": args.roi[0]}
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in numbers.items()}
    print(json.dumps({"what": what, **common, **rounded}), flush=True)


def network(args: argparse.Namespace) -> tuple[SwinUNETR, dict]:
    """(model, params) of the width asked for; affine norms, so that there is something to adapt."""
    model = SwinUNETR(
        1, CLASSES, feature_size=args.width, dtype=jnp.dtype(args.dtype), norm="instance_affine"
    )
    return model, model.init(jax.random.key(0), jnp.zeros((1, *args.roi, 1)))["params"]


def scan(args: argparse.Namespace) -> np.ndarray:
    """Noise, `x y z 1`."""
    return np.random.default_rng(0).normal(size=(*args.shape, 1)).astype(np.float32)


def constant(scales: jax.Array, x: jax.Array) -> jax.Array:
    """A network that takes next to no time: logits are multiples of the scan. They are stored, as a network's are."""
    return lax.optimization_barrier(x * scales.reshape(1, 1, 1, 1, -1))


def compiled_logits(apply: Any, variables: Any, volume: np.ndarray, args: argparse.Namespace) -> Run:
    """A sliding window over the volume that gives all logits; compiled."""
    window = Window(args.roi, args.overlap, batch=args.batch)
    program = sliding._logits.lower(apply, variables, volume, window).compile()
    return lambda: program(variables, volume)


def compiled_labels(apply: Any, variables: Any, volume: np.ndarray, args: argparse.Namespace) -> Run:
    """The same for labels, entropy and confidence; compiled."""
    window = Window(args.roi, args.overlap, batch=args.batch)
    grid = grids.windows(args.shape, args.roi, args.overlap)
    padded = jnp.asarray(sliding.pad_volume(volume, grid, grid.bucket))
    inputs = (variables, padded, *grids.batches(grid.starts, args.batch))
    program = slabs._segment.lower(apply, *inputs, window, grid.axis, (), ()).compile()
    return lambda: program(*inputs)


def calls(args: argparse.Namespace) -> int:
    """How often the network is called for the scan."""
    return len(grids.batches(grids.windows(args.shape, args.roi, args.overlap).starts, args.batch)[0])


def own_time(args: argparse.Namespace) -> tuple[tuple[float, float], Any, Any]:
    """Seconds and CPU seconds of the network alone on all windows, extrapolated; its function and variables."""
    model, params = network(args)
    apply, variables = sliding.ModuleApply(model), {"params": params}
    windows = jnp.asarray(np.random.default_rng(1).normal(size=(args.batch, *args.roi, 1)), jnp.float32)
    program = jax.jit(apply).lower(variables, windows).compile()
    program(variables, windows)
    wall, cpu = cpu_clock(lambda: program(variables, windows), args.repeat)
    return (calls(args) * wall, calls(args) * cpu), apply, variables


def bench_added(args: argparse.Namespace) -> None:
    """What a sliding window adds to a network, measured around one that takes no time."""
    volume, scales = scan(args), jnp.arange(CLASSES, dtype=jnp.float32)
    own, own_cpu = own_time(args)[0]
    for what, compile_ in (("logits", compiled_logits), ("labels", compiled_labels)):
        run = compile_(constant, scales, volume, args)
        run()
        added, cpu = cpu_clock(run, 2)
        seconds = {"added_s": added, "network_s": own, "added_cpu_s": cpu, "network_cpu_s": own_cpu}
        ratios = {"overhead": added / own, "overhead_cpu": cpu / own_cpu}
        tell(f"ours, {what}", args, width=args.width, **seconds, **ratios)
    if args.monai:
        import peer_inference as peer

        net = peer.network(CLASSES, args.width, args.roi)
        own = calls(args) * peer.clock(lambda: net(peer.windows(args)), args.repeat)
        times = peer.constant_network(args, CLASSES, volume)
        for what, added in times.items():
            tell(f"MONAI, {what}", args, width=args.width, added_s=added, network_s=own, overhead=added / own)


def bench_sliding(args: argparse.Namespace) -> None:
    """Share of a whole prediction that is not the network's own time on its windows."""
    (own, _), apply, variables = own_time(args)
    volume, ours = scan(args), {}
    for what, compile_ in (("logits", compiled_logits), ("labels", compiled_labels)):
        ours[what] = clock(compile_(apply, variables, volume, args))
        numbers = {"width": args.width, "total_s": ours[what], "network_s": own}
        tell(f"ours, {what}", args, calls=calls(args), **numbers, overhead=ours[what] / own - 1)
    if args.monai:
        import peer_inference as peer

        plain = SwinUNETR(1, CLASSES, feature_size=args.width)
        bare = jax.eval_shape(lambda: plain.init(jax.random.key(0), jnp.zeros((1, *args.roi, 1))))["params"]
        state = weights.to_monai(restricted(variables["params"], bare), plain)
        net = peer.network(CLASSES, args.width, args.roi, state)
        own = calls(args) * peer.clock(lambda: net(peer.windows(args)), args.repeat)
        total = peer.clock(lambda: peer.slide(args, volume, net), 1)
        tell("MONAI, logits", args, width=args.width, total_s=total, network_s=own, overhead=total / own - 1)
        tell(
            "ratio", args, monai_over_logits=total / ours["logits"], monai_over_labels=total / ours["labels"]
        )


def restricted(params: dict, like: dict) -> dict:
    """`params` without what `like` lacks: scales of 1 and biases of 0, which MONAI's network does not have."""
    if not isinstance(like, dict):
        return params
    return {name: restricted(params[name], sub) for name, sub in like.items()}


def bench_memory(args: argparse.Namespace) -> None:
    """The most a process holds beyond libraries and scan, each in a process of its own; CPU."""
    ways = ("ours-labels", *(("monai-labels", "monai-softmax") if args.monai else ()))
    for way in ways:
        command = [sys.executable, "-m", "tools.bench_inference", "--hold", way, "--width", str(args.width)]
        command += ["--shape", *map(str, args.shape), "--roi", str(args.roi[0]), "--batch", str(args.batch)]
        command += ["--overlap", str(args.overlap), "--repeat", "1"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        before, most = map(int, done.stdout.split())
        tell(f"memory, {way}", args, width=args.width, held_gb=(most - before) / 1e9, process_gb=most / 1e9)


def hold(args: argparse.Namespace) -> None:
    """Predict once; print the process's resident bytes before, and the most there were. `--width 0`: `constant`."""
    volume = scan(args)
    if args.hold == "ours-labels":
        if args.width:
            model, params = network(args)
            apply, variables = sliding.ModuleApply(model), {"params": params}
        else:
            apply, variables = constant, jnp.arange(CLASSES, dtype=jnp.float32)
        run, before = compiled_labels(apply, variables, volume, args), resident()
        jax.block_until_ready(run())
    else:
        import peer_inference as peer

        net = peer.network(CLASSES, args.width, args.roi) if args.width else peer.Constant(CLASSES)
        before = resident()
        peer.label(args, volume, net, softmax=args.hold == "monai-softmax")
    with open("/proc/self/status") as file:
        most = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    print(before, most)


def resident() -> int:
    """Bytes this process holds now; the highest mark is set back to them."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def bench_etta(args: argparse.Namespace) -> None:
    """Three steps and a prediction against three times forward and backward over the scan, and a prediction."""
    model, params = network(args)
    apply, volume = sliding.ModuleApply(model), scan(args)
    chosen, others = selection.split(params, None)
    windows = jnp.asarray(np.random.default_rng(1).normal(size=(1, *args.roi, 1)), jnp.float32)

    def loss(chosen: dict, others: dict, windows: jax.Array) -> jax.Array:
        return voxel_entropy(apply({"params": selection.join(chosen, others)}, windows)).mean()

    inputs = (chosen, others, windows)
    gradient = jax.jit(jax.value_and_grad(loss)).lower(*inputs).compile()
    gradient(*inputs)
    count = len(grids.windows(args.shape, args.roi, 0.0).starts)
    step, step_cpu = (count * s for s in cpu_clock(lambda: gradient(*inputs), args.repeat))
    predict = compiled_labels(apply, {"params": params}, volume, args)
    prediction, prediction_cpu = cpu_clock(predict)

    def adapt(volume: np.ndarray) -> float:
        return etta(model, params, volume, roi=args.roi, steps=3).entropy_after

    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: (
            compiled.append(seconds) if event.endswith("backend_compile_duration") else None
        )
    )
    adapt(volume)
    first = len(compiled)
    took, cpu = cpu_clock(lambda: adapt(volume[:-3, :-2, :-1]))  # another shape of the bucket
    floor, total = 3 * step + prediction, took + prediction
    of_floor_cpu = (cpu + prediction_cpu) / (3 * step_cpu + prediction_cpu)
    numbers = {"step_floor_s": step, "prediction_s": prediction, "adaptation_s": took}
    numbers |= {"step_floor_cpu_s": step_cpu, "prediction_cpu_s": prediction_cpu, "adaptation_cpu_s": cpu}
    numbers |= {"of_floor_cpu": of_floor_cpu}
    tell("etta, 3 steps", args, width=args.width, windows=count, **numbers, of_floor=total / floor)
    tell("etta, programs compiled", args, first_scan=first, second_scan=len(compiled) - first)


def bench_cold(args: argparse.Namespace) -> None:
    """Seconds and CPU seconds from the start of `ukbob segment` to its first window, and those of each part."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        save_run(folder / "run", args)
        shape = tuple(args.shape)
        water = phantom.subject(0, shape)[0][..., 0].astype(np.int16)
        write_volume(folder / "scan.nii.gz", Volume(water, phantom.affine(shape)))
        command = [str(folder / "scan.nii.gz"), str(folder / "labels.nii.gz"), "--model", str(folder / "run")]
        command += ["--batch", str(args.batch), "--overlap", str(args.overlap), "--accept-unusual"]
        rounds = [first_window(command, folder / "cache") for _ in range(args.repeat + 1)][1:]
    parts = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    tell("cold, first window", args, width=args.width, rounds=len(rounds), **parts)


def first_window(command: list[str], cache: pathlib.Path) -> dict[str, float]:
    """What `tools.first_window` says of a new process; the first with a `cache` fills it."""
    start = [sys.executable, "-m", "tools.first_window", str(time.time()), "--", *command]
    environment = {**os.environ, "UKBOB_CACHE": str(cache)}
    done = subprocess.run(start, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout)


def save_run(workdir: pathlib.Path, args: argparse.Namespace) -> None:
    """A workdir with a checkpoint of a network that has its first parameters."""
    model = SwinUNETR(1, CLASSES, feature_size=args.width, dtype=jnp.dtype(args.dtype))
    variables = states.variables_of(model, (1, 32, 32, 32, 1))
    tx = optimizer.build(learning_rate=1e-3, steps=100, warmup_steps=1)
    state = states.init(jax.random.key(0), variables=variables, optimizer=tx)
    card = ModelCard.of(
        model, labels=anatomy.NAMES, normalize="zscore", contrasts=("water",), window=tuple(args.roi)
    )
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.save(state, {"card": card.to_json()})
    checkpoints.close()


def bench_metrics(args: argparse.Namespace) -> None:
    """Dice, HD95 and NSD of every structure of a phantom, against MONAI's classes."""
    spacing = phantom.spacing_mm(tuple(args.shape))
    true = phantom.label_map(0, tuple(args.shape))
    pred = np.roll(true, 1, axis=0)
    pred = np.where(np.random.default_rng(0).random(true.shape) < 0.001, 0, pred).astype(np.uint8)

    def ours() -> tuple:
        return metrics.dice(pred, true, CLASSES), metrics.surface(pred, true, spacing, CLASSES, 3.0)

    seconds = clock(ours, args.repeat)
    tell("metrics, ours", args, structures=len(np.unique(true)) - 1, seconds=seconds)
    if args.monai:
        import peer_inference as peer

        dice, surface = ours()
        mine = np.stack([dice, surface.hd95, surface.nsd])
        took, done, off = peer.metrics(pred, true, spacing, mine, args.limit)
        numbers = {"seconds": took, "ours_all_faster": took / seconds, "largest_difference": off}
        tell("metrics, MONAI", args, structures=done, **numbers)


BENCHES = {
    "added": bench_added,
    "sliding": bench_sliding,
    "memory": bench_memory,
    "etta": bench_etta,
    "cold": bench_cold,
    "metrics": bench_metrics,
}


def main() -> None:
    devices.tune_cpu()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=[*BENCHES, []], help="default: all")
    parser.add_argument("--shape", type=int, nargs=3, default=[96, 72, 144], help="voxels, x y z")
    parser.add_argument("--roi", type=int, default=64, help="edge of the window, voxels")
    parser.add_argument("--overlap", type=float, default=0.5, help="of neighbouring windows")
    parser.add_argument("--width", type=int, default=12, help="feature_size of the network")
    parser.add_argument("--dtype", default="float32", help="of the network's arithmetic")
    parser.add_argument("--batch", type=int, default=1, help="windows in a call")
    parser.add_argument("--repeat", type=int, default=3, help="calls of the network, and of metrics")
    parser.add_argument(
        "--limit", type=float, default=200.0, help="seconds for MONAI's metrics; fewer organs then"
    )
    parser.add_argument("--no-monai", dest="monai", action="store_false")
    parser.add_argument("--hold", help=argparse.SUPPRESS)  # a process of `memory`
    args = parser.parse_args()
    args.roi = [args.roi] * 3
    if args.hold:
        hold(args)
        return
    for name in args.what or BENCHES:
        BENCHES[name](args)


if __name__ == "__main__":
    main()
