"""How cost grows: a table, a JSON file and a log-log figure for each thing that can grow.

    python -m tools.scaling_figures subjects organs windows          minutes
    python -m tools.scaling_figures voxels width classes             an hour: compiles and runs training steps
    python -m tools.scaling_figures voxels --at 32 48 --out /tmp/x   other sizes, elsewhere

    voxels     edge of a cubic crop: forward pass and training step of Swin-UNETR
    width      its feature size
    classes    its output classes
    windows    sliding window inference around a network that costs next to nothing
    subjects   rows of a manifest: opening it, checking every row, folds, limits of a cohort
    organs     classes in a label map: measuring it, drawing samples of it

Seconds are CPU seconds, the least of the rounds after one to warm up. Bytes are the compiler's own account of a program
(arguments, results and temporary arrays), or what a fresh process holds. Steps that need more than --memory-gb or
more than --limit-s seconds are compiled and not timed. `growth` is the exponent between a row and the one before it.
"""

import argparse
import itertools
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from tools import bench_data, bench_model, bench_solf
from ukbob_jax import files, splits
from ukbob_jax.data.options import Labels
from ukbob_jax.data.source import ScanSource
from ukbob_jax.evaluation.figures import INK, MUTED, SERIES, render
from ukbob_jax.inference.windows import slabs, sliding
from ukbob_jax.inference.windows.window import Window
from ukbob_jax.quality import OrganMeasures, fit, fit_robust, flag, measure
from ukbob_jax.store import samples
from ukbob_jax.store.reader import Store

EDGE, WIDTH, CLASSES = 64, 12, 14  # of the network where they do not grow
ROI, CHEAP_CLASSES = (32, 32, 32), 4  # of the sliding window
ORGANS_SHAPE = (112, 87, 185)  # voxels of the label map whose organs grow in number
COHORT_CLASSES = 73


class Row(NamedTuple):
    """One measurement; seconds or size are None where they were not taken."""

    series: str
    x: int
    seconds: float | None
    size: int | None  # bytes


class Part(NamedTuple):
    """One thing that grows."""

    label: str  # of the x axis
    at: tuple[int, ...]
    rows: Callable[[int, argparse.Namespace], Iterator[Row]]  # one x at a time


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    for name in options.parts:
        part = PARTS[name]
        found = [row for x in options.at or part.at for row in shown(part.rows(x, options))]
        print("\n".join(table(part.label, found)), flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        files.write_json(
            options.out / f"{name}.json", {"x": part.label, "rows": [r._asdict() for r in found]}
        )
        (options.out / f"{name}.png").write_bytes(figure(part.label, found))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=tuple(PARTS))
    parser.add_argument("--at", type=int, nargs="+", help="sizes instead of the part's own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-gb", type=float, default=14.0)
    parser.add_argument("--limit-s", type=float, default=60.0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/scaling"))
    return parser.parse_args(argv)


def shown(rows: Iterator[Row]) -> Iterator[Row]:
    """Pass rows on and print each at once, since some take minutes."""
    for row in rows:
        print(json.dumps(row._asdict()), flush=True)
        yield row


def least(run: Callable[[], Any], options: argparse.Namespace) -> float | None:
    """CPU seconds; None where the first run takes longer than allowed."""
    start = time.perf_counter()
    run()
    if time.perf_counter() - start > options.limit_s:
        return None
    found = []
    for _ in range(options.rounds):
        cpu = time.process_time()
        run()
        found.append(time.process_time() - cpu)
    return min(found)


def network(edge: int, width: int, classes: int, x: int, options: argparse.Namespace) -> Iterator[Row]:
    """Forward pass and training step of one crop."""
    case = bench_model.Case((edge, edge, edge), width, classes, channels=1, batch=1, dtype="float32")
    for kind, program in bench_model.our_programs(case).items():
        fits = program.device_bytes <= options.memory_gb * 1e9
        yield Row(kind, x, least(program.run, options) if fits else None, program.device_bytes)


def voxels(edge: int, options: argparse.Namespace) -> Iterator[Row]:
    return network(edge, WIDTH, CLASSES, edge**3, options)


def width(features: int, options: argparse.Namespace) -> Iterator[Row]:
    return network(EDGE, features, CLASSES, features, options)


def classes(number: int, options: argparse.Namespace) -> Iterator[Row]:
    return network(EDGE, WIDTH, number, number, options)


def cheap(variables: None, x: Any) -> Any:
    """A network that costs next to nothing: `b *roi 1` -> `b *roi k`."""
    return x * np.arange(1, 1 + CHEAP_CLASSES, dtype=np.float32).reshape(1, 1, 1, 1, -1)


def windows(length: int, options: argparse.Namespace) -> Iterator[Row]:
    """A volume of two windows along x and y and ever more along z, which overlap by half."""
    window = Window(ROI, 0.5, batch=4)
    volume = np.random.default_rng(0).random((48, 48, length, 1), np.float32)
    number = 4 * (-(-(length - ROI[2]) // (ROI[2] // 2)) + 1)
    for name, function in (
        ("logits", sliding.sliding_window_params),
        ("labels, slab by slab", slabs.segment),
    ):
        run = lambda f=function: np.asarray(_first(f(cheap, None, volume, window)))  # noqa: E731
        yield Row(name, number, least(run, options), None)


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, slabs.Segmentation) else result


def subjects(number: int, options: argparse.Namespace) -> Iterator[Row]:
    """What a training and the filter do with each row before any voxel is read."""
    with tempfile.TemporaryDirectory() as folder:
        bench_data.synthetic_manifest(pathlib.Path(folder), number)
        command = [sys.executable, "-m", "tools.bench_data", "open", "--folder", folder]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        yield Row("open, check, share (a fresh process)", number, None, int(told["MB"] * 1e6))
        store = Store.open(folder)
        labels = Labels("auto")
        for name, run in {
            "open": lambda: Store.open(folder),
            "check every row": lambda: ScanSource(store, store.subjects, labels),
            "five folds": lambda: splits.folds(store.subjects, 5, 0),
        }.items():
            yield Row(name, number, least(run, options), None)
    rng = np.random.default_rng(0)
    shape = (number, COHORT_CLASSES)
    measures = OrganMeasures(*(np.ones(shape) for _ in range(3)), *(rng.random(shape) for _ in range(3)))
    limits = fit(measures)
    for name, run in {
        "limits by percentiles": lambda: fit(measures),
        "robust limits": lambda: fit_robust(measures),
        "flags": lambda: flag(measures, limits),
    }.items():
        yield Row(name, number, least(run, options), None)


def organs(number: int, options: argparse.Namespace) -> Iterator[Row]:
    """A label map of one size with more and more organs in it."""
    labels = bench_solf.cells(ORGANS_SHAPE, number)
    yield Row("measures", number, least(lambda: measure(labels, bench_solf.SPACING, 255), options), None)
    yield Row("samples", number, least(lambda: samples.draw(labels), options), None)


PARTS = {
    "voxels": Part("voxels of a crop", (48, 64, 96, 128, 160), voxels),
    "width": Part("feature size", (12, 24, 48, 96), width),
    "classes": Part("classes", (2, 8, 32, 128, 512), classes),
    "windows": Part("windows", (48, 112, 240, 496, 1008, 2032), windows),
    "subjects": Part("subjects", (100, 1000, 10_000, 100_000), subjects),
    "organs": Part("organs", (2, 8, 32, 128, 254), organs),
}


def growth(first: tuple[float, float], second: tuple[float, float]) -> float:
    """The exponent p of y ~ x^p between two points (x, y)."""
    return math.log(second[1] / first[1]) / math.log(second[0] / first[0])


def points(rows: Sequence[Row], series: str, field: str) -> list[tuple[int, float]]:
    """(x, y) of one series, of what was measured."""
    found = [(row.x, getattr(row, field)) for row in rows if row.series == series]
    return [(x, y) for x, y in found if y]


def table(label: str, rows: Sequence[Row]) -> list[str]:
    """Lines of a table: for each series seconds and MB at each x, with their growth."""
    lines = [f"{label:<40}{'':>12}{'CPU s':>10}{'growth':>8}{'MB':>10}{'growth':>8}"]
    for series in dict.fromkeys(row.series for row in rows):
        for row in (row for row in rows if row.series == series):
            cells = f"{series:<40}{row.x:>12}"
            for field, unit in (("seconds", 1.0), ("size", 1e6)):
                before = [point for point in points(rows, series, field) if point[0] < row.x]
                y = getattr(row, field)
                grown = f"{growth(before[-1], (row.x, y)):.2f}" if before and y else ""
                cells += f"{f'{y / unit:.3g}' if y else '':>10}{grown:>8}"
            lines.append(cells)
    return lines


def figure(label: str, rows: Sequence[Row]) -> bytes:
    """PNG: seconds and bytes against x, both logarithmic, with a dashed line of slope 1 for the eye."""
    units = {"seconds": ("CPU seconds", 1.0), "size": ("MB", 1e6)}
    fields = [field for field in units if any(getattr(row, field) for row in rows)]
    drawing = Figure(figsize=(4.8 * len(fields), 3.6), layout="constrained")
    for axes, field in zip(drawing.subplots(1, len(fields), squeeze=False)[0], fields):
        name, unit = units[field]
        colours = itertools.cycle(SERIES)
        for series in dict.fromkeys(row.series for row in rows):
            if found := points(rows, series, field):
                x, y = np.array(found, float).T
                axes.plot(x, y / unit, "o-", color=next(colours), label=series, markersize=4)
        _guide(axes, [(row.x, getattr(row, field) / unit) for row in rows if getattr(row, field)])
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel=name)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return render(drawing)


def _guide(axes: Any, found: Sequence[tuple[float, float]]) -> None:
    """A line of slope 1 that ends at the largest value."""
    low, high = min(x for x, _ in found), max(x for x, _ in found)
    top = max(y for x, y in found if x == high)
    axes.plot([low, high], [top * low / high, top], "--", color=MUTED, linewidth=1, label="slope 1", zorder=0)


if __name__ == "__main__":
    main()
