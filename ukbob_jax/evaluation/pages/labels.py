"""The section on SOLF: which labels were flagged, how they look, and whether planted errors were found."""

import collections
import itertools
import re
from collections.abc import Mapping, Sequence

import numpy as np

from ukbob_jax import anatomy, files
from ukbob_jax.evaluation import charts, montages
from ukbob_jax.evaluation.report import Picture, Section, Table
from ukbob_jax.quality import error_detection, verdicts
from ukbob_jax.quality.outliers import rank
from ukbob_jax.store.reader import Store

SCATTERED = (
    "liver",
    "spleen",
    "kidney_right",
    "lung_lower_lobe_left",
    "heart",
    "femur_left",
    "gluteus_maximus_right",
    "hip_left",
)
HIGHLIGHT = (255, 70, 30)  # colour of the one label in a picture; organs' own are too close to grey
MAX_SHOWN = 4  # flagged labels that are shown beside a representative one


def section(store: Store, label: str, epsilon: float) -> Section:
    """Show counts, scatter plots, the worst flagged labels, and precision and recall where the truth is known."""
    folder = verdicts.folder(store.path, label)
    rows = files.read_jsonl(folder / verdicts.VERDICTS)
    planted = planted_errors(store)
    flagged = sum(row["flagged"] for row in rows)
    text = (
        f"{flagged} of {len(rows)} labels ({100 * flagged / max(len(rows), 1):.1f} %) leave their organ's range in two or "
        "three of three measures: fraction of the body, sphericity, eccentricity. Training ignores their voxels."
    )
    tables: list[Table] = []
    dots = scatter(rows, planted, shown(store, label, rows))
    pictures = [Picture("solf_scatter", dots, "A dot per subject; flagged labels should stand apart.")]
    pictures += worst(store, label, rows)
    truth = folder / "precision_recall.json"
    if truth.exists():
        found = files.read_json(truth)
        tables.append(sweep_table(found["rows"]))
        pictures.insert(0, Picture("solf_precision_recall", sweep_curve(found["rows"], epsilon), PR_CAPTION))
        chosen = found["chosen"]
        text += (
            f" {found['planted']} errors were planted: at ε = {epsilon:g} precision is {ratio(chosen['precision'])} and "
            f"recall {ratio(chosen['recall'])}. Percentiles flag a fixed fraction of every cohort, so precision falls where "
            "ε takes more than there is to find."
        )
    return Section("Label filter (SOLF)", text, tables, pictures)


PR_CAPTION = (
    "Precision and recall of planted errors over ε (percentiles) or k (median ± k MAD); "
    "numbers mark each rule's best F1."
)


def ratio(value: float | None) -> str:
    """Write two decimals, or a dash where nothing was flagged."""
    return "–" if value is None else f"{value:.2f}"


def percent(fraction: float | None) -> str:
    """Write a fraction as percent with two decimals, or a dash where there was nothing to flag."""
    return "–" if fraction is None else f"{100 * fraction:.2f} %"


def planted_errors(store: Store) -> set[tuple[str, int]]:
    """Return (subject, organ) of every error that is known to have been planted."""
    return {
        (subject, error["organ"])
        for subject in store.subjects
        for error in store.rows[subject].quality.get("planted", ())
    }


def sweep_table(rows: list[dict]) -> Table:
    """List rule, setting, fraction flagged, precision and recall of every setting."""
    cells = [
        (
            row["rule"],
            f"{row['setting']:g}",
            percent(error_detection.flagged_fraction(row)),
            row["precision"],
            row["recall"],
        )
        for row in rows
    ]
    return Table(
        ("rule", "ε % or k", "flagged", "precision", "recall"), cells, "Every setting of either rule."
    )


def sweep_curve(rows: list[dict], epsilon: float) -> bytes:
    """Draw precision over recall, a curve per rule; settings that flag nothing are left out."""
    lines = {}
    for name in dict.fromkeys(row["rule"] for row in rows):
        known = [row for row in rows if row["rule"] == name and row["precision"] is not None]
        lines[name] = tuple(
            np.array([row[key] for row in known]) for key in ("setting", "precision", "recall")
        )
    return charts.precision_recall(lines, epsilon)


def shown(store: Store, label: str, rows: list[dict]) -> dict[int, str]:
    """Return id -> name of the structures that are shown: well-known organs, or those that most subjects have."""
    if not (names := store.label_names(label)):
        return {anatomy.IDS[name]: name for name in SCATTERED}
    common = collections.Counter(row["organ"] for row in rows).most_common(len(SCATTERED))
    return {organ: names.get(organ, f"class_{organ}") for organ, _ in common}


def scatter(rows: list[dict], planted: set[tuple[str, int]], names: Mapping[int, str]) -> bytes:
    """Plot sphericity over the fraction of the body, a panel per organ of `names`."""
    panels = []
    for organ, name in names.items():
        own = [row for row in rows if row["organ"] == organ and row["sphericity"] is not None]
        panels.append(
            (
                name,
                np.array([100 * row["body_fraction"] for row in own]),
                np.array([row["sphericity"] for row in own]),
                np.array([row["flagged"] for row in own], bool),
                np.array([(row["subject"], organ) in planted for row in own], bool),
            )
        )
    return charts.scatter(panels, "fraction of the body, %", "sphericity")


def worst(store: Store, label: str, rows: list[dict]) -> list[Picture]:
    """Draw the flagged label of each of a few large organs with the largest outlier score, above a representative one.

    The order is that of the audit page (`outliers.rank`). An organ whose labels are all flagged has nothing to
    be compared with: its label is shown alone, and the caption says so.
    """
    names = shown(store, label, rows)
    ranking = rank(rows)
    first: dict[int, dict] = {}
    for row in ranking.rows:
        if row["flagged"] and row["organ"] in names:
            first.setdefault(row["organ"], row)
    pictures = []
    for organ, row in itertools.islice(first.items(), MAX_SHOWN):
        name, representative = names[organ], ranking.representative.get(organ)
        chosen = (row,) if representative is None else (row, representative)
        caption = worst_caption(name, row["outside"], representative is not None)
        file = re.sub(r"\W+", "_", name)  # a description may name a structure in any way
        pictures.append(Picture(f"solf_{file}", pair(store, label, chosen), caption))
    return pictures


def worst_caption(name: str, outside: Sequence[str], has_representative: bool) -> str:
    """Say what a picture of `worst` shows; a person may also flag a label with no measure out of range."""
    reason = ", ".join(outside) or "a person's decision"
    if has_representative:
        return f"{name}: flagged for {reason} (above), and a representative one (below)."
    return f"{name}: flagged for {reason}. Every label of this organ is flagged, so no representative one is shown."


def pair(store: Store, label: str, chosen: tuple[dict, ...]) -> bytes:
    """Draw three planes through the organ of each of one or two rows."""
    shown, centers = [], []
    for row in chosen:
        image = np.asarray(store.read(row["subject"], "image")[..., -2:][..., 0], np.float32)
        mask = store.read(row["subject"], f"label/{label}") == row["organ"]
        shown.append(
            (
                f"{'flagged' if row['flagged'] else 'representative'}: {row['subject']}",
                image,
                mask.astype(np.uint8),
            )
        )
        centers.append(middle_voxel(mask))
    return montages.three_planes(
        shown,
        centers,
        store.rows[chosen[0]["subject"]].spacing_mm,
        np.array([(0, 0, 0), HIGHLIGHT], np.uint8),
    )


def middle_voxel(mask: np.ndarray) -> np.ndarray:
    """Return the voxel of a mask that is nearest to its centre of mass; the centre itself may lie outside the mask."""
    voxels = np.argwhere(mask)
    return voxels[((voxels - voxels.mean(0)) ** 2).sum(1).argmin()]
