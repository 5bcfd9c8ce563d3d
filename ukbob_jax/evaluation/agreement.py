"""Automatic labels beside manual ones: per organ, over all labels and over those that a filter keeps."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax import anatomy, console
from ukbob_jax.errors import ConfigError
from ukbob_jax.evaluation import equity, failures, metrics, significance, statistics
from ukbob_jax.evaluation.statistics import mean_defined

MEASURES = ("dice", "hd95", "nsd")
COLUMNS = (*MEASURES, "hd95_penalised")  # of the table, each before and after the filter
COUNTS = ("labels", "kept", "lost", "lost_after")
TESTED = (
    "kept_minus_flagged",
    "p",
    "p_holm",
    "p_bh",
)  # Dice of kept beside flagged labels, different subjects
INTERVALS = tuple(f"dice_{end}_{when}" for when in ("before", "after") for end in ("low", "high"))
# UKBOB-manual has 11 abdominal organs that the paper does not list; these are BTCV's without esophagus and portal vein
ABDOMEN = (
    "spleen",
    "kidney_right",
    "kidney_left",
    "gallbladder",
    "liver",
    "stomach",
    "aorta",
    "inferior_vena_cava",
    "pancreas",
    "adrenal_gland_right",
    "adrenal_gland_left",
)
SUBSETS: dict[str, tuple[str, ...]] = {
    "abdomen": ABDOMEN,
    "btcv": tuple(name for name in anatomy.DATASETS["btcv"].values() if anatomy.IDS.get(name)),
    "amos": tuple(name for name in anatomy.DATASETS["amos"].values() if anatomy.IDS.get(name)),
    **{group: tuple(anatomy.NAMES[i] for i in ids) for group, ids in anatomy.GROUPS.items()},
    "all": tuple(name for i, name in anatomy.NAMES.items() if i not in (0, anatomy.UNUSED)),
}


def organs(subset: str) -> dict[int, str]:
    """Return ids and names of a subset of the structures.

    Raises:
        ConfigError: there is no such subset.
    """
    if subset not in SUBSETS:
        raise ConfigError(f"subset {subset!r} is not known; choose one of {', '.join(SUBSETS)}.")
    return {anatomy.IDS[name]: name for name in SUBSETS[subset]}


def score(
    auto: np.ndarray,
    manual: np.ndarray,
    spacing_mm: tuple[float, float, float],
    chosen: Collection[int],
    tolerance_mm: float,
) -> list[dict[str, Any]]:
    """Compute Dice, HD95 (mm) and surface Dice of every organ in either map; HD95 is None where one map lacks it.

    Args:
        auto: `x y z` uint8; where it has 255 it counts as background.
        manual: `x y z` uint8; 255 takes part in nothing.
        chosen: ids; all others count as background.
        tolerance_mm: of the surface Dice.
    """
    lookup = np.zeros(256, np.uint8)
    lookup[list(chosen)] = list(chosen)
    pred = lookup[auto]
    lookup[anatomy.IGNORE] = anatomy.IGNORE
    true = lookup[manual]
    num_classes = max(chosen, default=0) + 1
    distances = metrics.surface(pred, true, spacing_mm, num_classes, tolerance_mm)
    dice = metrics.dice(pred, true, num_classes)
    return [
        {
            "organ": organ,
            "dice": float(dice[organ]),
            "hd95": float(distances.hd95[organ]) if np.isfinite(distances.hd95[organ]) else None,
            "nsd": float(distances.nsd[organ]),
        }
        for organ in chosen
        if np.isfinite(dice[organ])
    ]


def table(
    rows: Sequence[Mapping[str, Any]],
    flagged: Mapping[str, Collection[int]],
    names: Mapping[int, str],
    diagonals_mm: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Return a row per organ and one of their means: how many labels, how many are kept, and each measure before and after.

    HD95 is averaged over labels that are in both maps; `lost` (after the filter: `lost_after`) counts those that are
    in one only. In `hd95_penalised` these count as the diagonal of their scan's field of view, see `failures`. The Dice
    has its 95 % bootstrap interval over labels, and labels that the filter keeps are compared with those that it rejects
    by a permutation test (`statistics.unpaired`), p corrected for the organs with both (Holm, Benjamini-Hochberg).

    Args:
        rows: of `score`, with "subject".
        flagged: organs that the filter rejects, by subject.
        names: id -> name of the organs.
        diagonals_mm: of the field of view of each subject; without it, penalised means of lost labels are None.
    """
    known = diagonals_mm or {}
    rows = [{**row, "diagonal_mm": known.get(row["subject"])} for row in rows]
    table = [
        {"organ": name, **_summary_of([row for row in rows if row["organ"] == organ], flagged)}
        for organ, name in names.items()
    ]
    for correction in significance.CORRECTIONS:
        for row, p in zip(table, significance.corrected([row["p"] for row in table], correction)):
            row[f"p_{correction}"] = p
    mean: dict[str, Any] = {"organ": "mean of organs"}
    for key in table[0]:
        if key in COUNTS:
            mean[key] = sum(row[key] for row in table)
        elif key in (*TESTED, *INTERVALS):
            mean[key] = None  # of single organs
        elif key != "organ":
            mean[key] = mean_defined([row[key] for row in table])
    return [*table, mean]


def text(table: Sequence[Mapping[str, Any]]) -> str:
    """Format the table for a terminal."""
    columns = [f"{name}_{when}" for name in COLUMNS for when in ("before", "after")]
    lines = [[name.replace("_", " ") for name in ("organ", *COUNTS, *columns)]]
    for row in table:
        cells = ("-" if row[name] is None else f"{row[name]:.3f}" for name in columns)
        lines.append([row["organ"], *(str(row[name]) for name in COUNTS), *cells])
    return console.aligned(lines, numbers=True)


def _summary_of(rows: list[dict[str, Any]], flagged: Mapping[str, Collection[int]]) -> dict[str, Any]:
    kept = [row for row in rows if row["organ"] not in flagged.get(row["subject"], ())]
    lost, lost_after = (failures.counts(those, "hd95").failed for those in (rows, kept))
    summary: dict[str, Any] = {"labels": len(rows), "kept": len(kept), "lost": lost, "lost_after": lost_after}
    for measure in MEASURES:
        for when, those in (("before", rows), ("after", kept)):
            summary[f"{measure}_{when}"] = mean_defined([row[measure] for row in those])
    for when, those in (("before", rows), ("after", kept)):
        summary[f"hd95_penalised_{when}"] = failures.penalised_mean(those, "hd95")
        found = equity.with_interval(np.array([row["dice"] for row in those])) if those else {}
        summary |= {f"dice_{end}_{when}": found.get(end) for end in ("low", "high")}
    rejected = [row["dice"] for row in rows if row not in kept]
    difference, p = statistics.unpaired([row["dice"] for row in kept], rejected)
    both = bool(kept and rejected)
    return {**summary, "kept_minus_flagged": difference if both else None, "p": p if both else None}
