"""What inference costs beyond the network itself, and what metrics cost, with MONAI in the same run where installed.

    python tools/bench_inference.py                                   # all, at a size for a laptop
    python tools/bench_inference.py metrics --shape 224 174 370       # a whole body
    python tools/bench_inference.py sliding etta --shape 256 256 256 --roi 96 --width 48 --dtype bfloat16

Prints one JSON line per measurement. Times are the best of `--repeat` runs, after one that compiles.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax import phantom
from ukbob_jax.evaluation import metrics
from ukbob_jax.inference import grid as grids
from ukbob_jax.inference import slabs, sliding
from ukbob_jax.inference.etta import etta
from ukbob_jax.models import weights
from ukbob_jax.models.swin_unetr import SwinUNETR

CLASSES = 73


def best(run: Callable[[], Any], repeat: int) -> float:
    """Seconds of the fastest run."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times)


def tell(what: str, **numbers: Any) -> None:
    """One line of JSON."""
    print(json.dumps({"what": what, "device": jax.devices()[0].device_kind, **numbers}), flush=True)


def network(args: argparse.Namespace) -> tuple[SwinUNETR, dict, np.ndarray]:
    """(model, params, volume) of the sizes asked for."""
    model = SwinUNETR(1, CLASSES, feature_size=args.width, dtype=jnp.dtype(args.dtype))
    volume = np.random.default_rng(0).normal(size=(*args.shape, 1)).astype(np.float32)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *args.roi, 1)))["params"]
    return model, params, volume


def bench_sliding(args: argparse.Namespace) -> None:
    """Share of a whole prediction that is not the network's own time on its windows."""
    model, params, volume = network(args)
    apply, variables = sliding.ModuleApply(model), {"params": params}
    grid = grids.windows(args.shape, args.roi, 0.5)
    batches = len(grids.batches(grid.starts, args.batch)[0])
    windows = jnp.zeros((args.batch, *args.roi, 1))
    jitted = jax.jit(apply)
    alone = batches * best(lambda: jitted(variables, windows), args.repeat)
    volume = jnp.asarray(volume)
    logits = best(
        lambda: sliding.sliding_window_params(apply, variables, volume, args.roi, batch=args.batch),
        args.repeat,
    )
    labels = best(lambda: slabs.segment(apply, variables, volume, args.roi, batch=args.batch), args.repeat)
    common = {"shape": args.shape, "roi": args.roi, "windows": len(grid.starts), "network_s": round(alone, 3)}
    tell("sliding_window", **common, total_s=round(logits, 3), overhead=round(logits / alone - 1, 4))
    tell("segment", **common, total_s=round(labels, 3), overhead=round(labels / alone - 1, 4))
    if args.monai:
        bench_monai(args, weights.to_monai(params, model), np.asarray(volume), batches, logits)


def bench_monai(
    args: argparse.Namespace, state: dict[str, np.ndarray], volume: np.ndarray, batches: int, ours: float
) -> None:
    """The same network and weights in MONAI, on the CPU or with AMP on a GPU."""
    import torch
    from monai.inferers import sliding_window_inference
    from monai.networks.nets import SwinUNETR as MonaiSwinUNETR

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = MonaiSwinUNETR(1, CLASSES, feature_size=args.width)
    net.load_state_dict({name: torch.as_tensor(np.array(value)) for name, value in state.items()})
    net = net.eval().to(device)
    x = torch.from_numpy(np.array(volume)).permute(3, 0, 1, 2)[None].to(device)
    windows = torch.zeros((args.batch, 1, *args.roi), device=device)

    def timed(run: Callable[[], Any]) -> float:
        with torch.no_grad(), torch.autocast(device, enabled=device == "cuda"):
            return best(
                lambda: (run(), torch.cuda.synchronize() if device == "cuda" else None)[1], args.repeat
            )

    alone = batches * timed(lambda: net(windows))
    total = timed(
        lambda: sliding_window_inference(x, args.roi, args.batch, net, overlap=0.5, mode="gaussian")
    )
    tell(
        "monai sliding_window_inference",
        network_s=round(alone, 3),
        total_s=round(total, 3),
        overhead=round(total / alone - 1, 4),
        ours_faster=round(total / ours, 2),
    )


def bench_memory(args: argparse.Namespace) -> None:
    """What the compiled programs hold beside their inputs, with a network that holds nothing."""

    def apply(variables: jax.Array, x: jax.Array) -> jax.Array:
        return x * variables.reshape(1, 1, 1, 1, -1)

    settings, grid = (
        sliding.make_settings(args.roi, batch=args.batch),
        grids.windows(args.shape, args.roi, 0.5),
    )
    scales = jnp.ones(CLASSES)
    whole = sliding._logits.lower(apply, scales, jnp.zeros((*args.shape, 1)), settings)
    starts = grids.batches(grid.starts, args.batch)
    slab = slabs._segment.lower(
        apply, scales, jnp.zeros((*grid.bucket, 1)), *starts, settings, grid.axis, (), ()
    )
    for name, lowered in (("sliding_window", whole), ("segment", slab)):
        memory = lowered.compile().memory_analysis()
        held = memory.temp_size_in_bytes + memory.output_size_in_bytes
        tell(f"{name} memory", shape=args.shape, roi=args.roi, held_gb=round(held / 1e9, 3))
    # MONAI keeps the sum of weighted logits, k float32, and one map of weights, for the whole volume
    tell(
        "monai's two maps", shape=args.shape, held_gb=round(4 * (CLASSES + 1) * np.prod(args.shape) / 1e9, 3)
    )


def bench_etta(args: argparse.Namespace) -> None:
    """Three steps against their floor: three times forward and backward, and one forward pass, over all windows."""
    model, params, volume = network(args)
    volume = jnp.asarray(volume)
    pairs = {
        steps: best(
            lambda s=steps: etta(model, params, volume, roi=args.roi, steps=s).entropy_after, args.repeat
        )
        for steps in (0, 1, 3)
    }
    step = pairs[1] - pairs[0]
    tell("etta", shape=args.shape, roi=args.roi, forward_s=round(pairs[0], 3), step_s=round(step, 3))
    tell("etta 3 steps", total_s=round(pairs[3], 3), of_floor=round(pairs[3] / (pairs[0] + 3 * step), 3))


def bench_metrics(args: argparse.Namespace) -> None:
    """Dice, HD95 and NSD of every structure of a phantom, against MONAI's classes."""
    spacing = phantom.spacing_mm(tuple(args.shape))
    true = phantom.label_map(0, tuple(args.shape))
    pred = np.roll(true, 1, axis=0)
    pred = np.where(np.random.default_rng(0).random(true.shape) < 0.001, 0, pred).astype(np.uint8)

    def ours() -> tuple:
        return metrics.dice(pred, true, CLASSES), metrics.surface(pred, true, spacing, CLASSES, 3.0)

    seconds = best(ours, args.repeat)
    tell("metrics", shape=args.shape, structures=len(np.unique(true)) - 1, seconds=round(seconds, 3))
    if args.monai:
        import torch
        from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDiceMetric

        dice, surface = ours()
        start, worst = time.perf_counter(), 0.0
        for c in np.unique(true)[1:]:
            p, t = (torch.from_numpy((m == c)[None, None]).float() for m in (pred, true))
            values = (
                DiceMetric()(p, t),
                HausdorffDistanceMetric(include_background=True, percentile=95)(p, t, spacing=spacing),
                SurfaceDiceMetric([3.0], include_background=True)(p, t, spacing=spacing),
            )
            mine = (dice[c], surface.hd95[c], surface.nsd[c])
            worst = max(worst, *(abs(float(a) - b) for a, b in zip(values, mine) if np.isfinite(b)))
        took = time.perf_counter() - start
        tell(
            "monai metrics",
            seconds=round(took, 3),
            ours_faster=round(took / seconds, 1),
            largest_difference=worst,
        )


BENCHES = {"sliding": bench_sliding, "memory": bench_memory, "etta": bench_etta, "metrics": bench_metrics}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=[*BENCHES, []], help="default: all")
    parser.add_argument("--shape", type=int, nargs=3, default=[96, 72, 144], help="voxels, x y z")
    parser.add_argument("--roi", type=int, default=64, help="edge of the window, voxels")
    parser.add_argument("--width", type=int, default=12, help="feature_size of the network")
    parser.add_argument("--dtype", default="float32", help="of the network's arithmetic")
    parser.add_argument("--batch", type=int, default=2, help="windows in a call")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--no-monai", dest="monai", action="store_false")
    args = parser.parse_args()
    args.roi = [args.roi] * 3
    for name in args.what or BENCHES:
        BENCHES[name](args)


if __name__ == "__main__":
    main()
