"""Curves, bars and scatter plots of numbers: each function returns the bytes of a PNG."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ukbob_jax.evaluation.figures import BAD, INK, MUTED, SERIES, render


def _tidy(axes: Axes, x: str, y: str, title: str = "") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if title:
        axes.set_title(title, fontsize=10, color=INK)


def curves(
    panels: Sequence[tuple[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]], x: str = "step"
) -> bytes:
    """Plot side by side: (y label, {series name: (steps, values)}); `x` names what takes the place of steps."""
    figure = Figure(figsize=(4.6 * len(panels), 3.2))
    for axes, (name, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        for color, (title, (steps, values)) in zip(itertools.cycle(SERIES), series.items()):
            axes.plot(
                steps, values, color=color, label=title, marker="o" if len(steps) < 30 else None, markersize=3
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=x == "step"))
        _tidy(axes, x, name)
        axes.legend(frameon=False, fontsize=8)
    return render(figure)


def bars(rows: Mapping[str, Mapping[str, float]], x: str) -> bytes:
    """Draw grouped horizontal bars: {group: {series: value}}, one group per organ."""
    series = list(dict.fromkeys(name for values in rows.values() for name in values))
    figure = Figure(figsize=(7.0, 0.6 + 0.11 * len(rows) * (len(series) + 1)))
    axes = figure.subplots()
    height = 0.8 / len(series)
    for number, name in enumerate(series):
        places = np.arange(len(rows)) + (number - (len(series) - 1) / 2) * height
        values = [group.get(name, np.nan) for group in rows.values()]
        axes.barh(places, values, height, color=SERIES[number % len(SERIES)], label=name)
    axes.set_yticks(np.arange(len(rows)), list(rows), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    _tidy(axes, x, "")
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series))
    return render(figure)


def scatter(
    panels: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]], x: str, y: str
) -> bytes:
    """Plot per organ (title, x, y, flagged, wrong): every label a dot; flagged ones red, known errors ringed."""
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.7 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, across, up, flagged, wrong) in zip(grid, panels):
        axes.scatter(across[~flagged], up[~flagged], s=9, color=MUTED, label="kept")
        axes.scatter(across[flagged], up[flagged], s=14, color=BAD, label="flagged")
        axes.scatter(
            across[wrong],
            up[wrong],
            s=46,
            facecolors="none",
            edgecolors=INK,
            linewidths=0.9,
            label="planted error",
        )
        _tidy(axes, x, y, title)
    grid[0].legend(frameon=False, fontsize=7)
    return render(figure)


def precision_recall(lines: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], marked: float) -> bytes:
    """Plot per rule (setting, precision, recall): the curve, its best F1 labelled, and the setting `marked` as a square."""
    figure = Figure(figsize=(5.0, 3.8))
    axes = figure.subplots()
    for row, (color, (name, (setting, precision, recall))) in enumerate(zip(SERIES, lines.items())):
        axes.plot(recall, precision, marker="o", markersize=3, color=color, label=name)
        best = int(np.nanargmax(2 * precision * recall / np.maximum(precision + recall, 1e-9)))
        axes.annotate(
            f"{setting[best]:g}",
            (recall[best], precision[best]),
            textcoords="offset points",
            xytext=(6, 4) if row else (-9, -14),  # on either side: the curves may touch
            fontsize=8,
            color=color,
        )
        for place in np.flatnonzero(np.isclose(setting, marked)) if name.startswith("percentile") else ():
            axes.plot(
                recall[place], precision[place], "s", color=BAD, markersize=8, label=f"ε = {marked:g} (paper)"
            )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.05)
    _tidy(axes, "recall of planted errors", "precision")
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    return render(figure)


def agreement(panels: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]]) -> bytes:
    """Plot predicted over true Dice side by side: (title, predicted, true, kind), dots coloured by kind."""
    kinds = sorted({kind for _, _, _, of in panels for kind in of.tolist()})
    marks = [(color, mark) for mark in "o^s" for color in SERIES]
    figure = Figure(figsize=(4.2 * len(panels) + 1.8, 4.0), layout="constrained")
    for axes, (title, predicted, true, of) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
        for kind, (color, mark) in zip(kinds, marks):
            these = of == kind
            axes.scatter(
                true[these], predicted[these], s=14, color=color, marker=mark, alpha=0.7, linewidths=0
            )
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_aspect("equal")
        _tidy(axes, "true Dice", "predicted Dice", title)
    handles = [
        Line2D([], [], color=color, marker=mark, linestyle="", markersize=4, label=kind)
        for kind, (color, mark) in zip(kinds, marks)
    ]
    figure.legend(handles=handles, frameon=False, fontsize=8, loc="outside right center")
    return render(figure)


def intervals(rows: Mapping[str, Mapping[str, tuple[float, float, float]]], x: str) -> bytes:
    """Draw dots with horizontal intervals: {group: {series: (value, low, high)}}, one group per organ; NaN is left out."""
    series = list(dict.fromkeys(name for values in rows.values() for name in values))
    figure = Figure(figsize=(7.0, 0.8 + 0.13 * len(rows) * (len(series) + 1)))
    axes = figure.subplots()
    step = 0.8 / len(series)
    colors = [SERIES[number % len(SERIES)] for number in range(len(series))]
    for number, (name, color) in enumerate(zip(series, colors)):
        places = np.arange(len(rows)) + (number - (len(series) - 1) / 2) * step
        found = np.array([group.get(name, (np.nan,) * 3) for group in rows.values()], np.float64)
        axes.hlines(places, found[:, 1], found[:, 2], color=color, linewidth=1.5)
        axes.plot(found[:, 0], places, "o", color=color, markersize=3.5, label=name)
    axes.set_yticks(np.arange(len(rows)), list(rows), fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    _tidy(axes, x, "")
    axes.legend(
        frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(len(series), 4)
    )
    return render(figure)


def matrix(names: Sequence[str], differences: np.ndarray, marks: Sequence[Sequence[str]]) -> bytes:
    """Draw a square of differences, row minus column: blue above 0, orange below, with a text in each cell.

    Args:
        names: of rows and columns, `n`.
        differences: `n n`; NaN is left white.
        marks: `n n` texts.
    """
    n = len(names)
    figure = Figure(figsize=(1.6 + 1.15 * n, 1.2 + 0.7 * n), layout="constrained")
    axes = figure.subplots()
    most = float(np.nanmax(np.abs(differences), initial=0)) or 1.0
    colors = LinearSegmentedColormap.from_list("difference", [SERIES[1], "#ffffff", SERIES[0]])
    axes.imshow(np.nan_to_num(differences), cmap=colors, vmin=-most, vmax=most, alpha=0.75, aspect="auto")
    for row in range(n):
        for column in range(n):
            axes.text(column, row, marks[row][column], ha="center", va="center", fontsize=8, color=INK)
    axes.set_xticks(np.arange(n), names, fontsize=8, rotation=20, ha="left")
    axes.set_yticks(np.arange(n), names, fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return render(figure)
