"""Time of measuring one label map: ours beside the per-organ pipeline, whole and cropped to each organ's box.

    python -m tools.bench_solf [--shape 224 174 370] [--repeats 3] [--fast]    --fast: without the whole-volume peer
    python -m tools.bench_solf --reference FOLDER    errors against values of other tools instead, see tests/conftest.py

Two peers: (a) what the published filter does, ndimage.label and marching cubes on the whole volume for every organ;
(b) the same with each organ cropped to its box, the fair one. Both also compute the covariance. Needs scikit-image.
"""

import argparse
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from scipy import ndimage

from ukbob_jax import phantom
from ukbob_jax.quality import OrganMeasures, fit, fit_robust, flag, measure

SPACING = (2.232, 2.232, 3.0)


def cells(shape: tuple[int, ...], classes: int, seed: int = 0) -> np.ndarray:
    """A body of `classes` regions, each a few Voronoi cells of random sites."""
    rng = np.random.default_rng(seed)
    sites = 3 * classes
    middle = np.array(shape) / 2
    points = rng.uniform(0.12, 0.88, (sites, 3)) * shape
    small = [-(-n // 2) for n in shape]
    grid = [2.0 * np.arange(n) for n in small]
    nearest, best = np.zeros(small, np.uint8), np.full(small, np.inf, np.float32)
    for i, point in enumerate(points):
        distance = sum(
            ((g - c) ** 2).reshape([-1 if a == b else 1 for b in range(3)])
            for a, (g, c) in enumerate(zip(grid, point))
        )
        closer = distance < best
        nearest[closer], best[closer] = i % classes + 1, np.broadcast_to(distance, small)[closer]
    labels = nearest.repeat(2, 0).repeat(2, 1).repeat(2, 2)[: shape[0], : shape[1], : shape[2]]
    x, y, _ = np.ogrid[: shape[0], : shape[1], : shape[2]]
    body = ((x - middle[0]) / (0.42 * shape[0])) ** 2 + ((y - middle[1]) / (0.4 * shape[1])) ** 2 < 1
    return np.where(body, labels, 0).astype(np.uint8)


def organ_by_organ(labels: np.ndarray, crop: bool) -> dict[int, tuple[float, ...]]:
    """Volume, area, sphericity and eccentricity of every organ, one after another."""
    from skimage.measure import marching_cubes, mesh_surface_area

    found = {}
    boxes = ndimage.find_objects(labels)
    for organ, box in enumerate(boxes, 1):
        if box is None:
            continue
        mask = (labels[box] if crop else labels) == organ
        ndimage.label(mask)
        vertices, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5, spacing=SPACING)
        area, volume = mesh_surface_area(vertices, faces), mask.sum() * np.prod(SPACING)
        values = np.linalg.eigvalsh(np.cov((np.argwhere(mask) * SPACING).T, bias=True))
        sphericity = np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / area
        found[organ] = volume, area, sphericity, np.sqrt(max(0, 1 - values[0] / values[2]))
    return found


def seconds(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Least wall and processor time of `repeats` runs."""
    best = [np.inf, np.inf]
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        run()
        best = [min(best[0], time.perf_counter() - start[0]), min(best[1], time.process_time() - start[1])]
    return best[0], best[1]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(224, 174, 370))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fast", action="store_true", help="without the whole-volume peer (about a minute)")
    parser.add_argument("--reference", type=pathlib.Path, help="folder with geometry/ and volumes/")
    options = parser.parse_args(argv)
    if options.reference:
        print(json.dumps(errors(options.reference), indent=1))
        return
    shape = tuple(options.shape)
    maps = {f"voronoi_{k}": cells(shape, k) for k in (10, 30, 72, 100)}
    maps["phantom"] = phantom.label_map(0, shape)
    maps["empty"] = np.zeros(shape, np.uint8)
    rows = {"device": jax.devices()[0].device_kind, "cores": os.cpu_count(), "shape": shape, "ours": {}}
    for name, labels in maps.items():
        run = lambda labels=labels: measure(labels, SPACING, 128)  # noqa: E731
        start = time.perf_counter()
        run()
        first = time.perf_counter() - start
        wall, processor = seconds(run, options.repeats)
        rows["ours"][name] = {
            "classes": len(np.unique(labels)) - 1, "seconds": wall, "processor_seconds": processor, "first_call": first,
        }  # fmt: skip
    for name in ("voronoi_72", "phantom"):
        ours = rows["ours"][name]["seconds"]
        for peer, crop in (("cropped", True), ("whole", False)):
            if not crop and options.fast:
                continue
            wall, processor = seconds(lambda m=maps[name], c=crop: organ_by_organ(m, c), 1)
            rows.setdefault(peer, {})[name] = {
                "seconds": wall,
                "processor_seconds": processor,
                "ratio": wall / ours,
            }
    rows["agreement"] = agreement(maps["phantom"])
    rows["cohort"] = cohort()
    print(json.dumps(rows, indent=1))


def cohort(subjects: int = 51_761, classes: int = 73) -> dict[str, float]:
    """Seconds to fit limits on a cohort of UKBOB's size and to flag its labels."""
    rng = np.random.default_rng(0)
    shape = (subjects, classes)
    sizes = np.ones(shape), np.ones(shape), np.ones(shape)
    measures = OrganMeasures(*sizes, rng.random(shape), rng.random(shape), rng.random(shape))
    limits = fit(measures)
    rules = {
        "fit": lambda: fit(measures),
        "fit_robust": lambda: fit_robust(measures),
        "flag": lambda: flag(measures, limits),
    }
    return {"subjects": subjects} | {name: seconds(run, 1)[0] for name, run in rules.items()}


def agreement(labels: np.ndarray) -> dict[str, float]:
    """Largest relative difference from the peer over all organs."""
    ours, theirs = measure(labels, SPACING, 128), organ_by_organ(labels, crop=True)
    names = ("volume_mm3", "surface_mm2", "sphericity", "eccentricity")
    return {
        name: max(abs(float(getattr(ours, name)[organ]) / value[i] - 1) for organ, value in theirs.items())
        for i, name in enumerate(names)
    }


def errors(folder: pathlib.Path) -> dict[str, dict[str, float]]:
    """Largest relative difference from other tools, over analytic shapes and over the organs of real label maps.

    Also the bias of the mesh itself: the area of a digital ball above that of the ball it stands for.
    """
    import nibabel

    shapes = json.loads((folder / "geometry" / "shapes.json").read_text())
    masks = np.load(folder / "geometry" / "shape_masks.npz")
    pairs, bias = {"shapes": [], "organs": []}, {}
    for name, shape in shapes.items():
        found = measure(masks[name], shape["measured"]["spacing"], 254)
        pairs["shapes"].append((found, 1, shape["measured"]))
        if name.startswith("sphere") and shape.get("analytic"):
            bias[name] = float(found.surface_mm2[1]) / shape["analytic"]["surface_area_mm2"] - 1
    for name, organs in json.loads((folder / "geometry" / "organs.json").read_text()).items():
        file, _, spacing = name.partition("@")
        image = nibabel.load(folder / "volumes" / file)
        spacing = [float(v) for v in (spacing.split(",") if spacing else image.header.get_zooms()[:3])]
        found = measure(np.asanyarray(image.dataobj).astype(np.uint8), spacing, 254)
        pairs["organs"] += [(found, int(organ), value) for organ, value in organs.items()]
    table = {what: {"masks": len(those), **largest(those)} for what, those in pairs.items()}
    return {**table, "ball_area_above_analytic": bias}


def largest(pairs: list) -> dict[str, float]:
    """Largest relative difference (eccentricity: absolute) of each measure."""
    names = {"volume_mm3": "volume_mm3", "surface_mm2": "surface_area_mm2", "sphericity": "sphericity"}
    some = [(found, organ, value) for found, organ, value in pairs if value["voxels"]]
    worst = {
        ours: max(abs(float(getattr(found, ours)[organ]) / value[theirs] - 1) for found, organ, value in some)
        for ours, theirs in names.items()
    }
    shaped = [(float(f.eccentricity[organ]), v["eccentricity"]) for f, organ, v in some if v["voxels"] >= 4]
    return worst | {"eccentricity": max(abs(a - b) for a, b in shaped)}


if __name__ == "__main__":
    main(sys.argv[1:])
