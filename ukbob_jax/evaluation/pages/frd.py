"""The page on radiomic distance: how far two sets are apart, which features move, which scans stand out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ukbob_jax.evaluation.figures import BAD, INK, MUTED, SERIES, render
from ukbob_jax.evaluation.report import Picture, Section, Table
from ukbob_jax.radiomics import frd_vectors

SHOWN = 20  # features in the figure, and scans in the table


def lead(facts: dict[str, Any]) -> str:
    """Say which sets were compared."""
    first, second = facts["scans"]
    return f"Reference: {facts['reference']} ({first} scans). Other: {facts['other']} ({second} scans)."


def sections(
    facts: dict[str, Any], rows: Sequence[dict], reference: np.ndarray, scores: Sequence[dict]
) -> list[Section]:
    """Make the page's sections.

    Args:
        facts: of frd.json.
        rows: of shifts.csv; empty where the other set is a single scan.
        reference: (n,) scores of the reference's own scans.
        scores: rows of scores.csv.
    """
    found = [_distance(facts), _movement(rows)] if rows else []
    return [*found, _scores(facts, reference, scores)]


def _distance(facts: dict[str, Any]) -> Section:
    unit = "log d²" if facts["version"] == "v1" else "d²"
    left_out = facts["features"] - facts["features_used"]
    others = f"; {left_out} others are constant or missing" if left_out else ""
    text = (
        f"FRD {facts['version']} ({unit}) from {facts['features_used']} features{others}. The interval (95 %) resamples "
        "scans of both sets and takes back what few scans add to a distance, so that it may lie below the one found. By "
        "chance is the median between sets of these sizes drawn from both together; p is the share of such draws that are "
        "at least as far apart. Small sets are apart by chance alone: a distance says little without that number."
    )
    header = ("FRD", "low", "high", "by chance", "p", "d²", "log d (paper)")
    keys = ("value", "low", "high", "by_chance", "p", "d2", "paper")
    return Section("Distance", text, [Table(header, [[facts[key] for key in keys]])])


def _movement(rows: Sequence[dict]) -> Section:
    text = (
        "Shift is the difference of a feature's means in standard deviations of the reference; its square is what the "
        "feature adds to d² in v1 before spreads and correlations. log2 spread is 1 where the other set varies "
        "twice as much."
    )
    order = sorted(rows, key=lambda row: -abs(row["shift"] or 0))
    images, families, grid = _grid(rows)
    top = [[row["feature"], row["shift"], row["log2_spread"]] for row in order[:SHOWN]]
    return Section(
        "What moves",
        text,
        [
            Table(
                ("feature", "shift", "log2 spread"),
                top,
                f"The {len(top)} features that move most; all are in shifts.csv.",
            ),
        ],
        [
            Picture(
                "frd_families", _heat(images, families, grid), "Root mean square shift by filter and family."
            ),
            Picture("frd_features", _bars(order[:SHOWN]), "Features that move most, up or down."),
        ],
    )


def _grid(rows: Sequence[dict]) -> tuple[list[str], list[str], np.ndarray]:
    """Root mean square shift by image and family; NaN where there is no feature."""
    names = [frd_vectors.parts(row["feature"]) for row in rows]
    images, families = (list(dict.fromkeys(name[i] for name in names)) for i in (0, 1))
    squares = np.array([(row["shift"] or 0) ** 2 for row in rows])
    grid = np.full((len(images), len(families)), np.nan)
    for i, image in enumerate(images):
        for j, family in enumerate(families):
            own = [name[:2] == (image, family) for name in names]
            if any(own):
                grid[i, j] = np.sqrt(squares[own].mean())
    return images, families, grid


def _heat(images: Sequence[str], families: Sequence[str], grid: np.ndarray) -> bytes:
    figure = Figure(figsize=(1.6 + 0.9 * len(families), 1.2 + 0.32 * len(images)), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(grid, cmap="Blues", aspect="auto", vmin=0)
    axes.set_xticks(range(len(families)), families, fontsize=8)
    axes.set_yticks(range(len(images)), images, fontsize=8)
    middle = np.nanmax(grid) / 2
    for (i, j), value in np.ndenumerate(grid):
        if np.isfinite(value):
            color = "white" if value > middle else INK
            axes.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=8, color=color)
    figure.colorbar(shown, ax=axes, label="shift, reference SD")
    return render(figure)


def _bars(rows: Sequence[dict]) -> bytes:
    figure = Figure(figsize=(7.0, 0.8 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    values = [row["shift"] or 0 for row in rows]
    axes.barh(range(len(rows)), values, color=[SERIES[0] if v > 0 else SERIES[1] for v in values])
    axes.set_yticks(range(len(rows)), [row["feature"] for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("shift, reference SD")
    return render(figure)


def _scores(facts: dict[str, Any], reference: np.ndarray, scores: Sequence[dict]) -> Section:
    text = (
        f"A scan's score is its distance to the reference's mean over z-scored features. {facts['outside']} of "
        f"{len(scores)} scans of the other set lie beyond {facts['threshold']:.3f}, the 95th percentile of the reference's "
        "own scores. If both were of one kind, about 5 % would beside a large reference, and more beside a small one, whose "
        "own scans shape its mean."
    )
    shown = f"Highest scores, {min(SHOWN, len(scores))} of {len(scores)}; all are in scores.csv."
    dots = _dots(reference, scores, facts["threshold"])
    top = sorted(scores, key=lambda row: -row["score"])[:SHOWN]
    cells = [[row["subject"], row["score"], row["p"], "yes" if row["outside"] else "no"] for row in top]
    table = Table(("scan", "score", "p", "beyond"), cells, shown)
    picture = Picture("frd_scores", dots, "A dot per scan; the line is the threshold.")
    return Section("Single scans", text, [table], [picture])


def _dots(reference: np.ndarray, scores: Sequence[dict], threshold: float) -> bytes:
    figure = Figure(figsize=(7.0, 2.2), layout="constrained")
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for row, (own, color) in enumerate(
        ((reference, MUTED), (np.array([s["score"] for s in scores]), SERIES[0]))
    ):
        axes.scatter(own, row + rng.uniform(-0.2, 0.2, len(own)), s=16, color=color, linewidths=0, alpha=0.8)
    axes.axvline(threshold, color=BAD, linewidth=1)
    axes.set_yticks([0, 1], ["reference", "other"])
    axes.set_ylim(1.6, -0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("score")
    return render(figure)
