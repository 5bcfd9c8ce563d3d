"""Device hours to label UK Biobank with a network of nnU-Net: by what this machine does, and by FLOPs on other chips.

    python -m tools.label_hours                                     PlainConvUNet on tiles of 64 cubed
    python -m tools.label_hours --network resenc --size 128 128 128 --spacing 1.5 1.5 1.5
    python -m tools.label_hours --model FOLDER --mirror             a real model folder: its tile, spacing, classes, folds

Weights are by formula unless there is a folder. Two things are measured on the devices that JAX sees: the network alone on
a full batch, the least of the rounds; and the label job's whole way from voxels to labels, several scans at a time, with
programs compiled before. Both are given per tile, and a UK Biobank scan is so many tiles at the network's spacing and step.
FLOPs are those of the network before any rearrangement, over the published peak in bfloat16 and the share of it that is
asked for; such hours are arithmetic, not measurements. Prints a Markdown table.
"""

import argparse
import concurrent.futures
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tools import bench_nnunet, compile_for_gpu, compile_for_pod
from tools.bench_model import compiled
from ukbob_jax import devices
from ukbob_jax.inference.nnunet import model as models
from ukbob_jax.inference.nnunet import plans, resample, tiles
from ukbob_jax.inference.nnunet.batching import TileBatcher
from ukbob_jax.inference.nnunet.model import NnunetModel
from ukbob_jax.inference.windows import sliding
from ukbob_jax.models import architecture
from ukbob_jax.training import sharding
from ukbob_jax.volumes.volume import Volume
from ukbob_jax.weights import tensors

SCANS = 51_761
SHAPE, SPACING = (370, 174, 224), (3.0, 2.232, 2.232)  # of a stitched UK Biobank scan, z y x, mm
PEAKS = {  # FLOPs per second in bfloat16, published
    "TPU v5e": compile_for_pod.CHIPS["v5e"].flops,
    "TPU v6e": compile_for_pod.CHIPS["v6e"].flops,
    "A100": 312e12,  # nvidia.com/en-us/data-center/a100
    "H100 SXM": compile_for_gpu.FLOPS,
}


class Work(NamedTuple):
    """What labelling the cohort takes."""

    tiles: int  # per scan and contrast
    calls: int  # of the network per tile: flips x folds
    flops: float  # per call
    images: int  # scans x contrasts

    @property
    def all_flops(self) -> float:
        """Of the cohort."""
        return self.flops * self.calls * self.tiles * self.images

    def hours(self, seconds: float) -> float:
        """Device hours where a tile with all its calls takes a device `seconds`."""
        return seconds * self.tiles * self.images / 3600


def main(argv: Sequence[str] | None = None) -> None:
    devices.tune_cpu()
    options = arguments(argv)
    model = loaded(options) if options.model else by_formula(options)
    mirror = options.mirror and bool(model.mirror_axes)
    calls = (2 ** len(model.mirror_axes) if mirror else 1) * len(model.members)
    seconds, flops = alone(model, options.batch, options.rounds)
    work = Work(tiles_per_scan(model), calls, flops, options.scans * options.contrasts)
    whole = pipeline(model, mirror, options)
    print("\n".join(table(model, work, seconds * calls, whole, options)))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="nnU-Net's model folder; else a network by formula")
    parser.add_argument("--network", choices=tuple(bench_nnunet.NETWORKS), default="plain")
    parser.add_argument("--size", type=int, nargs=3, default=(64, 64, 64), help="voxels of a tile, z y x")
    parser.add_argument("--spacing", type=float, nargs=3, default=SPACING, help="of the network, mm, z y x")
    parser.add_argument("--classes", type=int, default=73)
    parser.add_argument("--dtype", default="", choices=("", "float32", "bfloat16"))
    parser.add_argument("--step-size", type=float, default=tiles.STEP)
    parser.add_argument(
        "--mirror", action="store_true", help="average over the flips of the checkpoint, or all"
    )
    parser.add_argument("--batch", type=int, default=1, help="tiles per device")
    parser.add_argument("--scans", type=int, default=SCANS, help="of the cohort")
    parser.add_argument("--contrasts", type=int, default=4, help="labelled one by one")
    parser.add_argument("--measured", type=int, default=4, help="scans that are labelled for the measurement")
    parser.add_argument("--measured-size", type=float, default=1.5, help="edge of such a scan, in tiles")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--share", type=float, default=0.3, help="of the published peak, for the rows by FLOPs"
    )
    return parser.parse_args(argv)


def loaded(options: argparse.Namespace) -> NnunetModel:
    """The networks of a folder."""
    return models.load(options.model, step_size=options.step_size, batch=options.batch, dtype=options.dtype)


def by_formula(options: argparse.Namespace) -> NnunetModel:
    """One of `bench_nnunet.NETWORKS` with plans for the tile and the spacing that were asked for."""
    labels = {"background": 0} | {f"structure_{k}": k for k in range(1, options.classes)}
    said = bench_nnunet._plans(options.network)
    said["configurations"]["3d_fullres"] |= {"patch_size": options.size, "spacing": options.spacing}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "nnUNetTrainer__nnUNetPlans__3d_fullres"
        folder.mkdir()
        (folder / "plans.json").write_text(json.dumps(said))
        dataset = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".nii.gz"}
        (folder / "dataset.json").write_text(json.dumps(dataset))
        found = plans.read(folder)
    sizes = {"in_channels": 1, "out_channels": options.classes}
    fields = {**sizes, **found.network.fields, **({"dtype": options.dtype} if options.dtype else {})}
    network = architecture.find(found.network.name).build(fields)
    rng = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        fan = max(math.prod(leaf.shape[:-1]), 1)
        return rng.uniform(-1, 1, leaf.shape).astype(np.float32) * np.float32((3 / fan) ** 0.5)

    members = (jax.tree.map(draw, tensors.variables(network)),)
    return NnunetModel(found, network, members, (), (0, 1, 2), options.step_size, options.batch)


def tiles_per_scan(model: NnunetModel) -> int:
    """Tiles of a UK Biobank scan; nothing of it is cropped."""
    said = model.plans
    current = [SPACING[axis] for axis in said.transpose_forward]
    shape = [SHAPE[axis] for axis in said.transpose_forward]
    target = said.spacing if len(said.spacing) == 3 else (current[0], *said.spacing)
    shape = resample.new_shape(shape, current, target)
    return len(tiles.lay(shape, said.patch_size, model.step_size).starts)


def alone(model: NnunetModel, batch: int, rounds: int) -> tuple[float, float]:
    """Seconds per tile and FLOPs per tile of one network on a full batch, on one device."""
    apply = sliding.ModuleApply(model.network)
    x = jnp.zeros((batch, *model.plans.patch_size, model.plans.in_channels), jnp.float32)
    program = compiled(apply, (model.members[0], x))
    program.run()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        program.run()
        found.append(time.perf_counter() - start)
    return min(found) / batch, program.flops / batch


def pipeline(model: NnunetModel, mirror: bool, options: argparse.Namespace) -> float:
    """Device seconds per tile of the label job's whole way, from voxels to labels."""
    here = jax.local_devices()
    mesh = sharding.make_mesh(batch_size=options.batch * len(here), devices=here)
    said = model.plans
    current = np.array(said.spacing if len(said.spacing) == 3 else (1.0, *said.spacing))
    patch = said.patch_size if len(said.patch_size) == 3 else (8, *said.patch_size)
    forward = np.array([round(options.measured_size * p) for p in patch])  # as the network sees it
    zyx = [int(forward[said.transpose_forward.index(axis)]) for axis in range(3)]
    spacing = [float(current[said.transpose_forward.index(axis)]) for axis in range(3)]
    rng = np.random.default_rng(0)
    scans = [
        [
            Volume(rng.integers(1, 1000, zyx[::-1]).astype(np.int16), np.diag([*spacing[::-1], 1.0]))
            for _ in range(len(said.channels))
        ]
        for _ in range(options.measured)
    ]
    with TileBatcher(mesh, options.batch, 0) as batcher:
        running = model.running(batcher.planes)
        with concurrent.futures.ThreadPoolExecutor(batcher.workers) as pool:
            seconds = 0.0
            for turn in range(2):  # the first compiles
                before, start = batcher.filled.tiles, time.perf_counter()
                for _ in pool.map(lambda scan: running.predict(scan, mirror), scans):
                    pass
                if turn:
                    seconds = (time.perf_counter() - start) / (batcher.filled.tiles - before)
    return seconds * len(here)


def table(
    model: NnunetModel, work: Work, network_s: float, whole_s: float, options: argparse.Namespace
) -> list[str]:
    """Lines of Markdown."""
    said, device = model.plans, jax.devices()[0].device_kind
    size = " x ".join(map(str, said.patch_size))
    spacing = " x ".join(f"{s:g}" for s in said.spacing)
    dtype = options.dtype or "float32"
    rows = [
        (f"{device}, measured: network alone, {dtype}", network_s),
        (f"{device}, measured: the label job, {dtype}", whole_s),
        *(
            (f"{chip}, by FLOPs: {peak / 1e12:.0f} TFLOP/s at {options.share:.0%}",
             work.flops * work.calls / (peak * options.share))
            for chip, peak in PEAKS.items()
        ),
    ]  # fmt: skip
    return [
        f"{said.network.name}, tile {size} at {spacing} mm, {len(said.labels)} labels, {len(model.members)} folds, "
        f"{work.calls // len(model.members)} flips, batch {options.batch}, jax {jax.__version__}",
        f"{work.tiles} tiles a scan, {work.flops / 1e9:.3g} GFLOP a tile and call, {work.all_flops / 1e18:.3g} EFLOP for "
        f"{work.images:,} images",
        "",
        "| | s a tile | s a scan and contrast | device hours |",
        "|---|---|---|---|",
        *(
            f"| {name} | {seconds:.3g} | {seconds * work.tiles:.3g} | {work.hours(seconds):,.0f} |"
            for name, seconds in rows
        ),
    ]


if __name__ == "__main__":
    main()
