"""Time of the radiomic features of all organs of a scan: ours beside programs that take one organ after another.

    python -m tools.bench_radiomics [--shape 224 174 370] [--repeats 3] [--organs 72] [--peer plain]

Peers: pyradiomics (its extractor, in memory, one call per organ) where it can be imported, and a plain form with numpy and
scipy, each organ cropped to its box. Both compute what ours does, the plain one but for the eigenvalues of GLCM. `--organs`
of a peer measures the first so many and tells the time for all, by voxels: too little for pyradiomics, whose time for
diameters grows with the square of an organ's surface. Needs scikit-image for the plain form. pyradiomics' release does not
install on Python 3.11; a clone does: pip install scikit-build-core setuptools-scm, pip install --no-build-isolation CLONE.
"""

import argparse
import importlib.util
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from tools.bench_solf import cells
from ukbob_jax import phantom, radiomics

SPACING = (2.232, 2.232, 3.0)
LEVELS = 32
STEPS = [step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
Organs = dict[int, dict[str, float]]


def with_pyradiomics(image: np.ndarray, labels: np.ndarray, organs: list[int]) -> Organs:
    """All features of `organs`, one call each."""
    import SimpleITK as sitk
    from radiomics import featureextractor

    logging.getLogger("radiomics").setLevel(logging.CRITICAL)
    scan, mask = sitk.GetImageFromArray(image.T.astype(np.float64)), sitk.GetImageFromArray(labels.T)
    scan.SetSpacing(SPACING)
    mask.SetSpacing(SPACING)
    extractor = featureextractor.RadiomicsFeatureExtractor(binCount=LEVELS, minimumROIDimensions=1)
    found = {}
    for organ in organs:
        values = extractor.execute(scan, mask, label=organ)
        found[organ] = {k: float(v) for k, v in values.items() if k.startswith("original")}
    return found


def plain(image: np.ndarray, labels: np.ndarray, organs: list[int]) -> Organs:
    """The matrices and features of `organs`, one after another."""
    boxes = ndimage.find_objects(labels)
    return {i: one_organ(image[boxes[i - 1]], labels[boxes[i - 1]] == i) for i in organs}


def one_organ(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """A feature of each family, after all that the family needs is computed."""
    values = image[mask].astype(np.float64)
    edges = np.histogram(values, LEVELS)[1]
    edges[-1] += 1
    levels = np.zeros(np.array(mask.shape) + 2, np.int64)
    levels[1:-1, 1:-1, 1:-1][mask] = np.digitize(values, edges)
    middle = values - values.mean()
    np.percentile(values, [10, 25, 50, 75, 90])
    found = {"firstorder_Kurtosis": (middle**4).mean() / max((middle**2).mean() ** 2, 1e-30)}
    contrast, emphasis = [], []
    alike, near, total = (np.zeros(levels.shape, np.int64) for _ in range(3))
    for step in STEPS:
        beside = np.roll(levels, [-s for s in step], (0, 1, 2))
        both = (levels > 0) & (beside > 0)
        if both.any():
            pairs = np.bincount(levels[both] * (LEVELS + 1) + beside[both], minlength=(LEVELS + 1) ** 2)
            pairs = pairs.reshape(LEVELS + 1, LEVELS + 1)
            pairs = (pairs + pairs.T) / (2 * pairs.sum())
            i, j = np.indices(pairs.shape)
            contrast.append((pairs * (i - j) ** 2).sum())
        emphasis.append(long_runs(levels, step))
        for other in (beside, np.roll(levels, step, (0, 1, 2))):
            there = (other > 0) & (levels > 0)
            alike += there & (other == levels)
            near += there
            total += np.where(there, other, 0)
    found["glcm_Contrast"], found["glrlm_LongRunEmphasis"] = np.mean(contrast), np.mean(emphasis)
    inside = levels > 0
    found["gldm_LargeDependenceEmphasis"] = ((alike[inside] + 1.0) ** 2).mean()
    gap = np.abs(levels - total / np.maximum(near, 1)) * (near > 0)
    sums = np.bincount(levels[inside], gap[inside], LEVELS + 1)
    share = np.bincount(levels[inside], minlength=LEVELS + 1) / inside.sum()
    found["ngtdm_Coarseness"] = 1 / max((share * sums).sum(), 1e-6)
    sizes = []
    for level in np.unique(levels[inside]):
        zones, number = ndimage.label(levels == level, np.ones((3, 3, 3)))
        sizes.append(np.bincount(zones.ravel(), minlength=number + 1)[1:])
    found["glszm_LargeAreaEmphasis"] = (np.concatenate(sizes).astype(np.float64) ** 2).mean()
    return found | one_shape(inside)


def long_runs(levels: np.ndarray, step: tuple[int, ...]) -> float:
    """Mean square of the lengths of runs along a direction, which are followed from their first voxels."""
    strides = np.array([levels.shape[1] * levels.shape[2], levels.shape[2], 1])
    flat, move = levels.ravel(), int(strides @ step)
    at = np.flatnonzero((levels > 0).ravel())
    at = at[flat[at - move] != flat[at]]
    number, squares, length = len(at), 0.0, 1
    while len(at):
        on = flat[at + length * move] == flat[at]
        squares += (~on).sum() * length**2
        at, length = at[on], length + 1
    return squares / number


def one_shape(mask: np.ndarray) -> dict[str, float]:
    """Mesh, axes and diameters of a padded mask."""
    from skimage.measure import marching_cubes, mesh_surface_area

    vertices, faces, _, _ = marching_cubes(mask.astype(np.float32), 0.5, spacing=SPACING)
    mesh_surface_area(vertices, faces)
    axes = np.linalg.eigvalsh(np.cov((np.argwhere(mask) * SPACING).T, bias=True))
    for axis in range(3):
        for layer in np.unique(vertices[:, axis]):
            points = np.delete(vertices[vertices[:, axis] == layer], axis, 1)
            if len(points) > 1:
                pdist(points if len(points) < 50 else points[ConvexHull(points).vertices])
    space = pdist(vertices[ConvexHull(vertices).vertices].astype(np.float64)).max()
    return {"shape_MajorAxisLength": 4 * np.sqrt(axes[2]), "shape_Maximum3DDiameter": space}


PEERS: dict[str, Callable[[np.ndarray, np.ndarray, list[int]], Organs]] = {
    "pyradiomics": with_pyradiomics,
    "plain": plain,
}


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Least wall time of `repeats` runs."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def compared(ours: dict[str, np.ndarray], theirs: Organs) -> dict[str, float]:
    """Number of values and the largest relative difference, by family."""
    worst: dict[str, float] = {}
    for organ, values in theirs.items():
        for name, value in values.items():
            name = name.removeprefix("original_")
            mine = float(ours[f"original_{name}"][organ])
            family, scale = name.split("_")[0], max(abs(value), 1e-9)
            difference = 0.0 if np.isnan(mine) and np.isnan(value) else abs(mine - value) / scale
            worst[family] = max(worst.get(family, 0.0), difference)
    return worst


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(224, 174, 370))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--organs", type=int, default=0, help="that the peers measure (default all)")
    parser.add_argument("--peer", nargs="*", choices=PEERS, default=list(PEERS))
    options = parser.parse_args(argv)
    shape = tuple(options.shape)
    image, labels = phantom.subject(0, shape)
    image = np.asarray(image)[..., -1]
    voxels = np.bincount(labels.ravel(), minlength=256)
    organs = [int(i) for i in np.flatnonzero(voxels > 1) if i not in (0, 255)]
    labels = np.where(np.isin(labels, organs), labels, 0).astype(np.uint8)

    def run(label_map: np.ndarray = labels, **changes: object) -> dict[str, np.ndarray]:
        return radiomics.features(image, label_map, SPACING, **{"bin_count": LEVELS, **changes})

    start = time.perf_counter()
    ours = run()
    first, best = time.perf_counter() - start, seconds(run, options.repeats)
    rows = {
        "device": jax.devices()[0].device_kind, "cores": os.cpu_count(), "shape": shape, "organs": len(organs),
        "voxels": int(voxels[organs].sum()), "levels": LEVELS, "ours": {"first_call": first, "seconds": best},
    }  # fmt: skip
    rows["by_family"] = {f: seconds(lambda f=f: run(families=(f,)), options.repeats) for f in radiomics.ALL}
    flat = {}
    for number in (10, 30, 72, 100):  # the same voxels, cut into more organs
        label_map = cells(shape, number)
        run(label_map)
        flat[number] = seconds(lambda m=label_map: run(m), options.repeats)
    rows["organs_of_the_same_voxels"] = flat
    for peer in options.peer:
        if peer == "pyradiomics" and importlib.util.find_spec("radiomics") is None:
            rows[peer] = "not installed"
            continue
        chosen = organs[: options.organs or None]
        start = time.perf_counter()
        theirs = PEERS[peer](image, labels, chosen)
        taken = time.perf_counter() - start
        whole = taken * float(voxels[organs].sum() / voxels[chosen].sum())
        rows[peer] = {
            "organs": len(chosen), "seconds": taken, "seconds_for_all": whole, "ratio": whole / best,
            "largest_relative_difference": compared(ours, theirs),
        }  # fmt: skip
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
