"""One scan's label map beside its truth, as numbers that JSON can hold; and what many such scans say together."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax import anatomy, files
from ukbob_jax.evaluation import metrics, statistics
from ukbob_jax.regions import mask as region_mask
from ukbob_jax.volumes.volume import Volume

Rows = Sequence[Mapping[str, Any]]


def score(
    found: Volume,
    truth: Volume,
    organs: Mapping[int, str],
    *,
    surface: bool,
    tolerances_mm: Mapping[str, float] | None = None,
    tolerance_mm: float = 1.0,
    regions: tuple[tuple[int, ...], ...] = (),
    known: np.ndarray | None = None,
) -> dict[str, dict[str, float | None]]:
    """Every metric of every organ; None where it is not defined, not finite, or the organ was not looked for.

    Args:
        found: predicted classes.
        truth: on the same grid; 255 is ignored.
        organs: class -> name.
        surface: also distances (mm), which take longer.
        tolerances_mm: organ -> what counts as agreement of surfaces; others take `tolerance_mm`.
        regions: the label values of each, where they are not organs but may overlap.
        known: bool `256`, the values that were looked for in the truth; a region is known where all of its are. None: all.
    """
    options = {"surface": surface, "tolerances_mm": tolerances_mm, "tolerance_mm": tolerance_mm}
    if regions:
        scores = {}
        for region, name in organs.items():
            pair = [Volume(region_mask(v.array, regions[region]), v.affine) for v in (found, truth)]
            told = np.full(256, known is None or known[list(regions[region])].all())
            scores |= score(*pair, {1: name}, **options, known=told)
        return scores
    largest = max(found.array.max(), truth.array[truth.array != anatomy.IGNORE].max(initial=0), *organs)
    num_classes = int(largest) + 1
    voxel_ml = float(np.prod(truth.spacing_mm)) / 1000
    values = metrics.overlaps(found.array, truth.array, num_classes, voxel_ml)
    if surface:
        tolerance = np.full(num_classes, tolerance_mm)
        for organ, name in organs.items():
            tolerance[organ] = (tolerances_mm or {}).get(name, tolerance_mm)
        distances = metrics.surface(found.array, truth.array, truth.spacing_mm, num_classes, tolerance)
        values |= {name: getattr(distances, name) for name in ("hd95", "assd", "nsd")}
    return {
        name: {
            measure: number(array[organ]) if known is None or known[organ] else None
            for measure, array in values.items()
        }
        for organ, name in organs.items()
    }


def number(value: Any) -> float | None:
    """A JSON number; None for what JSON cannot hold."""
    return float(value) if np.isfinite(value) else None


OLD_KEYS = ("adapt", "way")  # what `method` was called in rows until 0.1


def read_rows(path: pathlib.Path) -> Rows:
    """Rows of scores from a .jsonl file; in files of older versions `method` has another name.

    Raises:
        FileError: the file is missing or damaged.
    """
    return [with_method(row) for row in files.read_jsonl(path)]


def with_method(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its method under the key `method`, also where an older version wrote it."""
    return {"method" if key in OLD_KEYS else key: value for key, value in row.items()}


def summarise(rows: Rows, groups: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Summarise the rows of many scans: per method of adaptation, and each method beside "off".

    Args:
        rows: with `subject`, `method`, `organ` and the metrics of `score`.
        groups: subject -> group of people, for equity.

    Returns:
        method -> mean Dice over scans with its 95 % interval, means of the other metrics, how many organs have no Dice
        (in neither map, or not looked for), volume agreement per organ, equity, and the paired comparison with "off".
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    dice = {method: scan_means(rows, method) for method in methods}
    out = {}
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        scans = np.array([np.nan if v is None else v for v in dice[method].values()])
        out[method] = {
            "scans": len(scans),
            "dice": number(np.nanmean(scans)) if np.isfinite(scans).any() else None,
            "dice_interval": [number(v) for v in statistics.bootstrap_interval(scans)],
            "mean": means(own),
            "undefined": sum(row["dice"] is None for row in own),
            "volumes": volumes(own),
        }
        if groups:
            pairs = [(d, groups[s]) for s, d in dice[method].items() if d is not None]
            out[method]["equity"] = statistics.equity(*zip(*pairs))._asdict() if pairs else None
        if method != "off" and "off" in methods:
            first, second = ([np.nan if v is None else v for v in dice[w].values()] for w in ("off", method))
            found = statistics.paired(first, second)._asdict()
            out[method]["against_off"] = {name: number(value) for name, value in found.items()}
    return out


def scan_means(rows: Rows, method: str) -> dict[str, float | None]:
    """Subject -> mean Dice over the organs in either map."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == method:
            values.setdefault(row["subject"], []).append(np.nan if row["dice"] is None else row["dice"])
    return {s: number(np.nanmean(v)) if np.isfinite(v).any() else None for s, v in values.items()}


def means(rows: Rows) -> dict[str, float | None]:
    """Mean of every metric over the scans and organs where it is finite; volumes left out."""
    out = {}
    for name in rows[0]:
        if name in ("subject", "method", "organ", "volume_ml", "true_volume_ml"):
            continue
        known = [row[name] for row in rows if row[name] is not None]
        out[name] = float(np.mean(known)) if known else None
    return out


def volumes(rows: Rows) -> dict[str, dict[str, float | None]]:
    """Organ -> how predicted volumes follow the true ones."""
    out = {}
    for organ in dict.fromkeys(row["organ"] for row in rows):
        own = [row for row in rows if row["organ"] == organ]
        pair = ([row[name] for row in own] for name in ("volume_ml", "true_volume_ml"))
        found = statistics.volume_agreement(*pair)._asdict()
        out[organ] = {name: number(value) for name, value in found.items()}
    return out
