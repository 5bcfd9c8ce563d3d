"""Grades of all organs of a scan: ours beside a loop over organs and slices as published, on PyTorch, in turns.

    python -m tools.bench_sentinel [--shape 224 174 370] [--organs 71] [--rounds 3] [--threads 2]

The published way: of each organ at most ten slices, each cropped and resized by pillow, then one call of ResNet-50 on
them. Ours: the same network with the same weights in one program for all organs (`slices`), and the grader of whole
masks (`cubes`), which has random weights here: time does not depend on them. Before anything is timed the grades of both
ResNet-50 are compared. Hours of UKBOB's 51,761 scans are those seconds by as many machines, plus SOLF's measuring.
Needs torch, torchvision and pillow. Memory is the most that each part's own process takes.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tools import bench_nnunet
from tools.bench_model import machine
from tools.bench_solf import cells
from ukbob_jax import devices, quality, weights
from ukbob_jax.sentinel import embeddings, preprocessing
from ukbob_jax.sentinel.grading import grade
from ukbob_jax.sentinel.resnet import ResNet50
from ukbob_jax.sentinel.sight import SLICES
from ukbob_jax.sentinel.volumes import VolumeGrader
from ukbob_jax.training import state as states

SPACING_MM = (2.232, 2.232, 3.0)
SCANS = 51_761
CLASSES = 73
WIDTH = 512  # numbers of an embedding
MARGIN = 20
MEMORY_PARTS = ("slices", "cubes", "published")
MAX_GAP = 1e-3  # of the grades of both programs over each other, whose pixels differ by rounding


def main(argv: list[str]) -> None:
    devices.tune_cpu()
    options = arguments(argv)
    image, labels = scan(tuple(options.shape), options.organs)
    if options.only:
        part(options.only, image, labels, options.threads)()
        return
    runs = {name: part(name, image, labels, options.threads) for name in MEMORY_PARTS}
    first = {name: timed(run) for name, run in runs.items()}  # compiles
    gap = float(np.nanmax(np.abs(first["slices"][2] / first["published"][2] - 1)))
    if not gap < MAX_GAP:
        raise SystemExit(f"the two programs differ by {gap}: nothing is timed")
    runs["solf"] = lambda: quality.measure(labels, SPACING_MM, CLASSES)
    first["solf"] = timed(runs["solf"])
    rounds = [{name: timed(run)[:2] for name, run in runs.items()} for _ in range(options.rounds)]
    print(json.dumps(summary(rounds, first, gap, memory(argv)) | {"machine": machine()}, indent=1))


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(224, 174, 370))
    parser.add_argument("--organs", type=int, default=71)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--only", choices=MEMORY_PARTS, help="run one part once, for its memory")
    return parser.parse_args(argv)


def scan(shape: tuple[int, ...], organs: int) -> tuple[np.ndarray, np.ndarray]:
    """An image and its labels, x y z: a body of regions, 1 to `organs`."""
    labels = cells(shape, organs)
    labels = labels + (labels >= 20).astype(np.uint8)  # 20 is not used
    rng = np.random.default_rng(0)
    image = labels * 4.0 + rng.normal(0, 20, shape) + 100
    return np.float32(image * (labels > 0)), labels


def part(name: str, image: np.ndarray, labels: np.ndarray, threads: int) -> Callable[[], np.ndarray]:
    """Return () -> grades of all classes, by one of the three ways."""
    vectors = np.random.default_rng(1).uniform(-0.5, 0.5, (CLASSES, WIDTH)).astype(np.float32)
    if name == "cubes":
        table = embeddings.taxonomy()
        model: Any = VolumeGrader(table.vectors.shape[1])
        variables = initial(model, (1, 48, 48, 48, 2))
        return lambda: grade(model, variables, image, labels, SPACING_MM, embeddings=table).dice
    model = ResNet50(num_classes_embedding=WIDTH)
    variables = initial(model, (1, 64, 64, 2))
    if name == "published":
        state = weights.to_torch(variables["params"], model, {"batch_stats": variables["batch_stats"]})
        return published(state, vectors, image, labels, threads)
    return lambda: grade(model, variables, image, labels, SPACING_MM, embeddings=vectors).dice


def initial(model: Any, shape: tuple[int, ...]) -> Any:
    """Random variables, drawn by one compiled program."""
    return jax.jit(states.variables_of(model, shape))(jax.random.key(0))


def published(
    state: dict[str, np.ndarray], vectors: np.ndarray, image: np.ndarray, labels: np.ndarray, threads: int
) -> Callable[[], np.ndarray]:
    """The loop over organs on PyTorch."""
    import torch

    torch.set_num_threads(threads)
    net = network().eval()
    net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    tables = torch.from_numpy(vectors)

    def run() -> np.ndarray:
        low, high = preprocessing.window(image, "MR", "percentile")
        pixels = np.clip((image - low) / (high - low), 0, 1)
        found = np.full(CLASSES, np.nan, np.float32)
        for organ in np.unique(labels)[1:]:
            mask = labels == organ
            inside = np.flatnonzero(mask.any((0, 1)))
            chosen = inside[preprocessing.slices_used(len(inside), SLICES)]
            batch = np.stack([prepared(as_slice(pixels[..., z]), as_slice(mask[..., z])) for z in chosen])
            with torch.inference_mode():
                x = torch.from_numpy(batch)
                found[organ] = net(x, tables[organ].expand(len(batch), -1)).mean().item()
        return found

    return run


def as_slice(plane: np.ndarray) -> np.ndarray:
    """x y, RAS, to rows from anterior to posterior and columns from right to left."""
    return plane[::-1, ::-1].T


def prepared(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A crop of both at 256 x 256, `2 h w`: 20 pixels around the mask, the shorter side widened, pillow's resize."""
    from PIL import Image

    ends = []
    for axis, size in ((1, mask.shape[0]), (0, mask.shape[1])):
        inside = np.flatnonzero(mask.any(axis))
        ends.append([max(inside[0] - MARGIN, 0), min(inside[-1] + MARGIN, size)])
    shorter = int(np.argmin([stop - start for start, stop in ends]))
    wider = abs((ends[0][1] - ends[0][0]) - (ends[1][1] - ends[1][0])) // 2
    size = mask.shape[shorter]
    ends[shorter] = [max(ends[shorter][0] - wider, 0), min(ends[shorter][1] + wider, size)]
    box = tuple(slice(*of) for of in ends)
    both = []
    for plane, mean, spread in ((image, 0.5, 0.25), (mask, 0.5, 0.5)):
        resized = Image.fromarray(np.float32(plane[box])).resize((256, 256), Image.Resampling.BILINEAR)
        both.append((np.asarray(resized) - mean) / spread)
    return np.stack(both).astype(np.float32)


def network() -> Any:
    """ResNet-50 with two gates, in PyTorch, with the names of the released file."""
    import torch
    from torch import nn
    from torchvision.models import resnet50

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = resnet50(weights=None)
            self.conv1 = nn.Conv2d(2, 64, 7, 2, 3)
            self.bn1 = nn.BatchNorm2d(64)
            self.attention1, self.attention2 = nn.Linear(2048 + WIDTH, 2048), nn.Linear(2048 + WIDTH, 50)
            self.fc1, self.fc2 = nn.Linear(2048, 50), nn.Linear(50, 1)

        def forward(self, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
            x = self.net.maxpool(torch.relu(self.bn1(self.conv1(x))))
            for layer in (self.net.layer1, self.net.layer2, self.net.layer3, self.net.layer4):
                x = layer(x)
            x = x.mean((2, 3))
            both = torch.cat([x, e], 1)
            return self.fc2(self.attention2(both) * self.fc1(self.attention1(both) * x))[:, 0]

    return Gated()


def timed(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds, CPU seconds and result."""
    start = time.perf_counter(), time.process_time()
    result = run()
    return time.perf_counter() - start[0], time.process_time() - start[1], result


def memory(argv: list[str]) -> dict[str, float]:
    """Peak memory of each part in a process of its own, GB."""
    command = [sys.executable, "-m", "tools.bench_sentinel", *argv, "--only"]
    return {name: bench_nnunet.run([*command, name], {})["peak_mb"] / 1e3 for name in MEMORY_PARTS}


def summary(
    rounds: list[dict[str, tuple[float, float]]],
    first: dict[str, tuple[float, float, Any]],
    gap: float,
    peak_gb: dict[str, float],
) -> dict[str, Any]:
    """Medians over rounds, the peer's over ours, and hours of the cohort."""
    median = {
        name: [statistics.median(of[name][clock] for of in rounds) for clock in range(2)]
        for name in rounds[0]
    }
    peer = median["published"]
    parts = {
        name: {
            "wall_s": wall,
            "cpu_s": cpu,
            "published_over_this": peer[0] / wall,
            "published_over_this_cpu": peer[1] / cpu,
            "first_call_s": first[name][0],
            "peak_gb": peak_gb.get(name),
        }
        for name, (wall, cpu) in median.items()
    }
    hours = {
        f"{name} + solf": (median[name][0] + median["solf"][0]) * SCANS / 3600 for name in ("slices", "cubes")
    }
    return {
        "parts": parts,
        "largest_relative_gap_of_grades": gap,
        "hours_of_the_cohort_on_one_machine": hours,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
