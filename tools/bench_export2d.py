"""The 2D export beside a plain exporter that takes slice by slice and organ by organ, on the same phantoms, in one run.

    python -m tools.bench_export2d [--shape 224 174 370] [--subjects 6] [--contrasts 4] [--workers 2] [--axes x y z]

The plain way, of one scan: for every slice and every organ in it `scipy.ndimage.label`, and pillow writes each mask and
image. Ours: the job, from the store, with its processes. Both use the same rules, and both folders are compared first:
the same names, and the same pixels in every file of the first scan. Files are written to `--folder` (a temporary one); the
file system's share of the time is told, and so is that of encoding PNG, both from a run in one process.
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from ukbob_jax import phantom
from ukbob_jax.export2d import instances, manifest, naming, png, slicing, writing
from ukbob_jax.export2d.naming import ImageName
from ukbob_jax.export2d.options import Export2dOptions
from ukbob_jax.jobs import export2d
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter

EIGHT = np.ones((3, 3), int)
PARTS = {  # what the time of a run in one process goes to
    "components": (instances, "find"),
    "image encoding": (png, "image"),
    "image filter": (png, "filtered"),
    "mask encoding": (png, "mask"),
    "files": (writing, "_put"),
}


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    with tempfile.TemporaryDirectory(dir=options.folder or None) as name:
        print(json.dumps(measured(options, pathlib.Path(name)), indent=1))


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(224, 174, 370))
    parser.add_argument("--subjects", type=int, default=6)
    parser.add_argument("--contrasts", type=int, default=4, choices=range(1, len(phantom.CONTRASTS) + 1))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--axes", nargs="+", default=("x", "y", "z"))
    parser.add_argument("--folder", default="", help="where files are written; empty: the temporary folder")
    return parser.parse_args(argv)


def measured(options: argparse.Namespace, folder: pathlib.Path) -> dict[str, Any]:
    """Both ways on the same phantoms: seconds per scan, their ratio, and where our time goes."""
    scans = [phantom.subject(seed, tuple(options.shape)) for seed in range(options.subjects)]
    with StoreWriter(folder / "store") as writer:
        for seed, (image, labels) in enumerate(scans):
            writer.write(
                f"p{seed}", image, phantom.affine(tuple(options.shape)), {"auto": labels}, source=str(seed),
                contrasts=phantom.CONTRASTS,
            )  # fmt: skip
    image, labels = Store.open(folder / "store").read("p0", "image"), scans[0][1]
    del scans
    rules = {"axes": tuple(options.axes), "contrasts": phantom.CONTRASTS[: options.contrasts]}
    run = functools.partial(ours, folder / "store", rules)
    many = timed(run, folder / "many", options.workers)
    theirs = timed(plain, image, labels, Export2dOptions(**rules), folder / "plain")
    with parts() as seconds:
        alone = timed(run, folder / "alone", 0)
    files = compared(folder / "plain", folder / "many/export2d")
    per_scan = [spent / options.subjects for spent in many]
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "shape": list(options.shape),
        "contrasts": options.contrasts,
        "files of the first scan": files,
        "plain, s per scan": round(theirs[0], 2),
        f"ours, {options.workers} processes, s per scan": round(per_scan[0], 2),
        "ratio": round(theirs[0] / per_scan[0], 1),
        "ratio of processor time": round(theirs[1] / per_scan[1], 1),
        "ours, one process, s per scan": round(alone[0], 2),
        "ratio of one process": round(theirs[0] / alone[0], 1),
        "shares of one process": {name: round(spent / alone[0], 3) for name, spent in seconds.items()},
        "PNG encoding, share": round(sum(seconds[name] for name in ENCODING) / alone[0], 3),
        "files, share": round(seconds["files"] / alone[0], 3),
    }


ENCODING = ("image encoding", "image filter", "mask encoding")


def timed(function: Callable[..., Any], *args: Any) -> tuple[float, float]:
    """Seconds of a call on the wall and of all processors, those of its processes among them."""
    start, spent = time.perf_counter(), processor_time()
    function(*args)
    return time.perf_counter() - start, processor_time() - spent


def processor_time() -> float:
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in found)


@contextlib.contextmanager
def parts() -> Iterator[dict[str, float]]:
    """Seconds spent in each of `PARTS` meanwhile."""
    seconds = dict.fromkeys(PARTS, 0.0)
    found = {name: getattr(*place) for name, place in PARTS.items()}

    def counting(name: str, *args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return found[name](*args, **options)
        finally:
            seconds[name] += time.perf_counter() - start

    for name, (module, attribute) in PARTS.items():
        setattr(module, attribute, functools.partial(counting, name))
    try:
        yield seconds
    finally:
        for name, (module, attribute) in PARTS.items():
            setattr(module, attribute, found[name])


def ours(store: pathlib.Path, rules: dict[str, Any], workdir: pathlib.Path, workers: int) -> None:
    """The job of all scans; `workers` 0: of the first scan only, in this process."""
    workdir.mkdir()
    made = Export2dOptions(**rules, output=str(workdir / "export2d"))
    if workers:
        export2d.export(str(store), "auto", made, str(workdir), workers)
        return
    opened = Store.open(store)
    plan = export2d.planned(opened, "auto", made, ["p0"])
    manifest.begin(plan)
    writing.export(plan, opened, "p0")
    manifest.collect(plan, ["p0"])


def plain(image: np.ndarray, labels: np.ndarray, options: Export2dOptions, folder: pathlib.Path) -> None:
    """Slice by slice, organ by organ, component by component, and pillow.

    Args:
        image: `x y z c`.
        labels: `x y z`.
        options: our defaults, which are what it does.
        folder: with images and masks.
    """
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    organs = [int(organ) for organ in np.unique(labels) if organ]
    ranges = [(float(image[..., c].min()), float(image[..., c].max())) for c in range(len(options.contrasts))]
    for axis in options.axes:
        flat = slicing.stack(labels, axis)
        if min(flat.shape[1:]) < options.aspect * max(flat.shape[1:]):
            continue
        pictures = [
            slicing.stack(values, axis) for values in (image[..., c] for c in range(len(options.contrasts)))
        ]
        for index, slice_organs in enumerate(flat):
            masks = list(components(slice_organs, organs, options.min_area))
            for contrast, (low, high), shown in zip(options.contrasts, ranges, pictures):
                code = naming.code(contrast, "", False, {})
                stem = naming.image_stem(ImageName(code, options.dataset, "p0", axis, index))
                grey = np.rint((shown[index] - np.float32(low)) * np.float32(255 / (high - low))).astype(
                    np.uint8
                )
                if not masks or grey.min() == grey.max():
                    continue
                Image.fromarray(grey).save(folder / f"images/{stem}.png")
                for organ, number, mask in masks:
                    name = naming.mask_stem(options.style, stem, f"{organ:04d}", "", number)
                    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"masks/{name}.png")


def components(
    labels: np.ndarray, organs: Iterable[int], least: float
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Organ, number and mask of the components of a slice, `h w`, that are large enough."""
    for organ in organs:
        inside = labels == organ
        if not inside.any():
            continue
        found, count = ndimage.label(inside, EIGHT)
        number = 0
        for piece in range(1, count + 1):
            mask = found == piece
            if least * mask.size <= mask.sum() < mask.size:
                yield organ, number, mask
                number += 1


def compared(theirs: pathlib.Path, mine: pathlib.Path) -> dict[str, int]:
    """Count the files of the first scan after comparing names and pixels.

    Raises:
        SystemExit: they differ: a time would mean nothing.
    """
    counted = {}
    for folder in ("images", "masks"):
        names = sorted(path.name for path in (theirs / folder).iterdir())
        if names != sorted(p.name for p in (mine / folder).iterdir() if "--p0--" in p.name):
            raise SystemExit(f"{folder}: the two exports have other files")
        for name in names:
            a, b = (np.array(Image.open(at / folder / name), np.int16) for at in (theirs, mine))
            if a.shape != b.shape or np.abs(a - b).max() > (
                folder == "images"
            ):  # a half may round either way
                raise SystemExit(f"{folder}/{name}: the two exports have other pixels")
        counted[folder] = len(names)
    return counted


if __name__ == "__main__":
    main()
