"""Score one scan's label map beside its truth, as numbers that JSON can hold, and summarise the scores of many."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax import anatomy, files
from ukbob_jax.evaluation import equity, failures, metrics, organs, significance, statistics
from ukbob_jax.files import json_number
from ukbob_jax.regions import Regions
from ukbob_jax.volumes.volume import Volume

Rows = Sequence[Mapping[str, Any]]
NO_METRICS = ("subject", "method", "organ", "failed", "diagonal_mm", "volume_ml", "true_volume_ml")


def score(
    predicted: Volume,
    truth: Volume,
    organs: Mapping[int, str],
    *,
    surface: bool,
    lesions: bool = False,
    tolerances_mm: Mapping[str, float] | None = None,
    tolerance_mm: float = 1.0,
    regions: Regions | None = None,
    annotated: np.ndarray | None = None,
) -> dict[str, dict[str, Any]]:
    """Compute every metric of every organ; None where it is not defined, not finite, or the organ was not annotated.

    Which of these holds is told by `failed`, the names of the metrics that are infinite: the organ is in one of the
    maps only (of `volume_error`: in the prediction only). Sensitivity without a true voxel, precision of lesions
    without a predicted one and the like do not apply: what was missed or invented counts in their counterparts.

    Args:
        predicted: classes, `x y z`.
        truth: on the same grid; 255 is ignored.
        organs: class, or region of `regions`, -> name.
        surface: also distances (mm), which take longer.
        lesions: also `metrics.lesions`, each connected piece counted as one, under `lesion_...`.
        tolerances_mm: organ -> distance that counts as agreement of surfaces; others take `tolerance_mm`.
        regions: score these, which may overlap, and not single classes.
        annotated: bool `256`, the values that were annotated in the truth; a region is where all of its values are.
            None: all.
    Returns:
        name -> metric -> value; also `failed`, and `diagonal_mm` of the field of view, for `failures.penalised_mean`.
        Both are None where the organ was not annotated.
    """
    measure = {
        "surface": surface,
        "lesions": lesions,
        "tolerances_mm": tolerances_mm,
        "tolerance_mm": tolerance_mm,
    }
    if regions:
        known = regions.annotated(np.ones(256, bool) if annotated is None else annotated)
        scores = {}
        for region, name in organs.items():
            found, true = (Volume(regions.mask(v.array, region), v.affine) for v in (predicted, truth))
            scores |= score(found, true, {1: name}, **measure, annotated=np.full(256, known[region]))
        return scores
    largest = max(predicted.array.max(), truth.array[truth.array != anatomy.IGNORE].max(initial=0), *organs)
    num_classes = int(largest) + 1
    voxel_ml = float(np.prod(truth.spacing_mm)) / 1000
    values = metrics.overlaps(predicted.array, truth.array, num_classes, voxel_ml)
    if surface:
        tolerance = np.full(num_classes, tolerance_mm)
        for organ, name in organs.items():
            tolerance[organ] = (tolerances_mm or {}).get(name, tolerance_mm)
        distances = metrics.surface(predicted.array, truth.array, truth.spacing_mm, num_classes, tolerance)
        values |= {name: getattr(distances, name) for name in ("hd95", "assd", "nsd")}
    scores = {}
    for organ, name in organs.items():
        numbers = {metric: array[organ] for metric, array in values.items()}
        if lesions:
            counts = metrics.lesions(predicted.array, truth.array, organ)
            numbers |= {f"lesion_{metric}": value for metric, value in counts._asdict().items()}
        scores[name] = _row(numbers, truth, annotated is None or bool(annotated[organ]))
    return scores


def _row(numbers: Mapping[str, float], truth: Volume, annotated: bool) -> dict[str, Any]:
    """Return the numbers of an organ as JSON can hold them, and which of them failed."""
    values: dict[str, Any] = {m: json_number(value) if annotated else None for m, value in numbers.items()}
    failed = [m for m, value in numbers.items() if np.isinf(value)] if annotated else None
    diagonal = failures.diagonal_mm(truth.shape, truth.spacing_mm) if annotated else None
    return {**values, "failed": failed, "diagonal_mm": diagonal}


OLD_KEYS = ("adapt", "way")  # what `method` was called in rows until 0.1


def read_rows(path: pathlib.Path) -> Rows:
    """Read rows of scores from a .jsonl file; in files of older versions `method` has another name.

    Raises:
        FileError: the file is missing or damaged.
    """
    return [with_method(row) for row in files.read_jsonl(path)]


def with_method(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its method under the key `method`, also where an older version wrote it."""
    return {"method" if key in OLD_KEYS else key: value for key, value in row.items()}


def summarise(
    rows: Rows,
    groups: Mapping[str, str] | None = None,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    age_band: float = 10.0,
) -> dict[str, Any]:
    """Summarise the rows of many scans: per method of adaptation, and each method beside "off".

    Args:
        rows: with `subject`, `method`, `organ` and the metrics of `score`.
        groups: subject -> group of people, for equity.
        attributes: of the people, by subject, for the comparison of sites, sexes and ages.
        age_band: width of an age group, years.

    Returns:
        method -> mean Dice over scans with its 95 % interval, means of the other metrics, on how many scan-organs each
        has a finite value, failed or does not apply, how many have no Dice (in neither map, or not annotated), volume
        agreement per organ, a table of "organs" (`organs.table`), "people" (`equity.by_group`), equity, and the paired
        comparison with "off": of scans ("against_off") and of each organ ("organs_against_off").
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    dice = {method: dice_means(rows, method, "subject") for method in methods}
    out = {}
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        scans = np.array([np.nan if v is None else v for v in dice[method].values()])
        out[method] = {
            "scans": len(scans),
            "dice": json_number(float(np.nanmean(scans))) if np.isfinite(scans).any() else None,
            "dice_interval": [json_number(v) for v in statistics.bootstrap_interval(scans)],
            "mean": means(own),
            "counts": {name: failures.counts(own, name)._asdict() for name in metric_names(own)},
            "undefined": sum(row["dice"] is None for row in own),
            "volumes": volumes(own),
            "organs": organs.table(rows, method),
        }
        if attributes:
            scores = organs.of_subjects(rows, method)
            out[method]["people"] = equity.by_group(scores, attributes, age_band)
        if groups:
            scored = {s: d for s, d in dice[method].items() if d is not None}
            of_groups = [groups[s] for s in scored]
            out[method]["equity"] = (
                statistics.equity(list(scored.values()), of_groups)._asdict() if scored else None
            )
        if method != "off" and "off" in methods:
            out[method]["against_off"] = significance.difference(dice["off"], dice[method])
            out[method]["organs_against_off"] = organs.beside(rows, "off", method)
    return out


def line(method: str, found: Mapping[str, Any]) -> str:
    """Return one line on a method of `summarise`, for a terminal; distances say how many failed."""
    mean, counts = found["mean"], found["counts"]
    parts = [f"Dice {_shown(found['dice'])} over {found['scans']} scans"]
    for name in failures.DISTANCES:
        if name in counts:
            failed, scored = counts[name]["failed"], counts[name]["failed"] + counts[name]["finite"]
            penalised = _shown(mean[name + failures.SUFFIX])
            parts.append(
                f"{name} {_shown(mean[name])} mm where found, {failed} of {scored} failed, penalised {penalised} mm"
            )
    return f"{method}: {'; '.join(parts)}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def dice_means(rows: Rows, method: str, by: str) -> dict[str, float | None]:
    """Return the mean Dice of each subject over its organs, or of each organ over its subjects.

    Args:
        rows: with `method`, `dice` and `by`.
        method: whose rows count.
        by: "subject" or "organ".
    Returns:
        subject or organ -> mean of the values that are not None; None where all are.
    """
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == method:
            values.setdefault(row[by], []).append(np.nan if row["dice"] is None else row["dice"])
    return {
        key: json_number(float(np.nanmean(v))) if np.isfinite(v).any() else None for key, v in values.items()
    }


def metric_names(rows: Rows) -> list[str]:
    """Return the names of the metrics in rows, in order."""
    return [name for name in dict.fromkeys(key for row in rows for key in row) if name not in NO_METRICS]


def means(rows: Rows) -> dict[str, float | None]:
    """Return the mean of every metric over the scans and organs where it is finite; volumes left out.

    A metric that can fail has a second mean, `NAME_penalised`, in which failed values count, see `failures`.
    """
    out = {}
    for name in metric_names(rows):
        out[name] = statistics.mean_defined(row.get(name) for row in rows)
        if name in failures.PENALISED:
            out[name + failures.SUFFIX] = failures.penalised_mean(rows, name)
    return out


def volumes(rows: Rows) -> dict[str, dict[str, float | None]]:
    """Return organ -> how predicted volumes follow the true ones."""
    out = {}
    for organ in dict.fromkeys(row["organ"] for row in rows):
        own = [row for row in rows if row["organ"] == organ]
        pair = ([row[name] for row in own] for name in ("volume_ml", "true_volume_ml"))
        agreement = statistics.volume_agreement(*pair)._asdict()
        out[organ] = {name: json_number(value) for name, value in agreement.items()}
    return out
