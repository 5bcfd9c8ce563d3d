"""Pictures for a report, each a function from arrays to the bytes of a PNG.

Volumes come as `x y z` in RAS. Slices are shown as radiologists see them: the patient's right on the viewer's left,
the head or the front up; voxels keep their shape in mm.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
INK, MUTED, GOOD, BAD = "#1f2933", "#9aa5b1", "#2f7d5b", "#c0392b"
SERIES = ("#2f6f9f", "#d98c2b", "#2f7d5b", "#8e4585", "#c0392b", "#6b7785")


def render(figure: Figure) -> bytes:
    """The figure as PNG bytes, the same for the same figure."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=110, facecolor="white", bbox_inches="tight", metadata={"Software": None}
    )
    return buffer.getvalue()


def cut(array: np.ndarray, plane: str, index: int) -> np.ndarray:
    """One slice of `x y z`, turned for display: rows from top to bottom, columns from viewer's left."""
    slices = np.take(array, index, axis=PLANES[plane])  # y z | x z | x y
    if plane != "sagittal":
        slices = slices[::-1]  # patient's right to the viewer's left
    return slices.T[::-1]


def tone(image: np.ndarray) -> np.ndarray:
    """Grey values of an image between its 1st and 99.5th percentile, as 0..1."""
    low, high = np.percentile(image, (1, 99.5))
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1)


def overlay(image: np.ndarray, label: np.ndarray, colors: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Blend label colours (`k 3` uint8) over a grey slice; background stays grey, ignored voxels white."""
    grey = np.repeat(image[..., None], 3, axis=-1)
    palette = np.vstack([colors, np.full((256 - len(colors), 3), 255, np.uint8)]) / 255.0
    tint = palette[label]
    return np.where((label > 0)[..., None], (1 - opacity) * grey + opacity * tint, grey)


def _show(axes, picture: np.ndarray, plane: str, spacing_mm: Sequence[float], title: str = "") -> None:
    across, up = {"sagittal": (1, 2), "coronal": (0, 2), "axial": (0, 1)}[plane]
    axes.imshow(
        picture,
        cmap="gray",
        vmin=0,
        vmax=1,
        aspect=spacing_mm[up] / spacing_mm[across],
        interpolation="nearest",
    )
    axes.set_axis_off()
    if title:
        axes.set_title(title, fontsize=8, color=INK)


def montage(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    titles: Sequence[str],
    spacing_mm: Sequence[float],
    colors: np.ndarray,
) -> bytes:
    """Coronal mid-slices of several subjects: the image above, the image under its labels below."""
    figure = Figure(figsize=(1.5 * len(images), 6.2))
    grid = figure.subplots(2, len(images), squeeze=False)
    for column, (image, label, title) in enumerate(zip(images, labels, titles)):
        middle = image.shape[1] // 2
        grey = cut(tone(image), "coronal", middle)
        _show(grid[0, column], grey, "coronal", spacing_mm, title)
        _show(grid[1, column], overlay(grey, cut(label, "coronal", middle), colors), "coronal", spacing_mm)
    return render(figure)


def three_planes(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray]], center: Sequence[Sequence[int]], spacing_mm: Sequence[float],
    colors: np.ndarray,
) -> bytes:  # fmt: skip
    """One row per (title, image, label): axial, coronal and sagittal through that row's `center` voxel."""
    figure = Figure(figsize=(6.0, 2.9 * len(rows)))
    grid = figure.subplots(len(rows), 3, squeeze=False, width_ratios=(1.3, 1, 0.8))
    for line, ((title, image, label), voxel) in enumerate(zip(rows, center)):
        grey = tone(image)
        for column, plane in enumerate(("axial", "coronal", "sagittal")):
            index = int(voxel[PLANES[plane]])
            picture = overlay(cut(grey, plane, index), cut(label, plane, index), colors, 0.75)
            _show(grid[line, column], picture, plane, spacing_mm, title if column == 0 else "")
    return render(figure)


def comparison(
    image: np.ndarray,
    labels: Sequence[tuple[str, np.ndarray]],
    spacing_mm: Sequence[float],
    colors: np.ndarray,
) -> bytes:
    """The same coronal and axial slice under each of several label maps: truth, prediction, adapted prediction."""
    figure = Figure(figsize=(2.3 * (len(labels) + 1), 6.6))
    grid = figure.subplots(2, len(labels) + 1, squeeze=False, height_ratios=(2.4, 1))
    grey = tone(image)
    planes = (("coronal", image.shape[1] // 2), ("axial", int(image.shape[2] * 0.58)))
    for line, (plane, index) in enumerate(planes):
        base = cut(grey, plane, index)
        _show(grid[line, 0], base, plane, spacing_mm, "image" if line == 0 else "")
        for column, (title, label) in enumerate(labels, 1):
            picture = overlay(base, cut(label, plane, index), colors, 0.6)
            _show(grid[line, column], picture, plane, spacing_mm, title if line == 0 else "")
    return render(figure)


class Look(NamedTuple):
    """One scan of a contact sheet: (title, plane, picture `h w` or `h w 3` in 0..1), and its spacing in mm."""

    title: str
    panels: list[tuple[str, str, np.ndarray]]
    spacing_mm: tuple[float, float, float]


def look(
    title: str, image: np.ndarray, contrasts: Sequence[str], label: np.ndarray | None, spacing_mm: Sequence[float],
    colors: np.ndarray,
) -> Look:  # fmt: skip
    """The middle coronal slice of every channel of `x y z c`, then three middle slices under the label `x y z`."""
    middles = {plane: image.shape[axis] // 2 for plane, axis in PLANES.items()}
    panels = [
        (name, "coronal", cut(tone(image[..., channel]), "coronal", middles["coronal"]))
        for channel, name in enumerate(contrasts)
    ]
    if label is not None:
        grey = tone(image[..., 0])
        for plane in ("coronal", "axial", "sagittal"):
            pair = (cut(array, plane, middles[plane]) for array in (grey, label))
            panels.append((f"{plane}, labels", plane, overlay(*pair, colors)))
    return Look(title, panels, tuple(spacing_mm))


def contact_sheet(looks: Sequence[Look]) -> bytes:
    """One row per scan. The letter in a panel's corner is the side of the body that its left edge shows."""
    columns = max(len(found.panels) for found in looks)
    figure = Figure(figsize=(1.7 * columns, 2.6 * len(looks)), layout="constrained")
    grid = figure.subplots(len(looks), columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for line, found in enumerate(looks):
        for column, (name, plane, picture) in enumerate(found.panels):
            title = f"{found.title}\n{name}" if column == 0 else name
            _show(grid[line, column], picture, plane, found.spacing_mm, title)
            side = "P" if plane == "sagittal" else "R"
            grid[line, column].text(0.03, 0.97, side, transform=grid[line, column].transAxes, color="white",
                                    fontsize=8, va="top")  # fmt: skip
    return render(figure)


def _tidy(axes, x: str, y: str, title: str = "") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if title:
        axes.set_title(title, fontsize=10, color=INK)


def curves(panels: Sequence[tuple[str, dict[str, tuple[Sequence[float], Sequence[float]]]]]) -> bytes:
    """Side by side: (y label, {series name: (steps, values)})."""
    figure = Figure(figsize=(4.6 * len(panels), 3.2))
    for axes, (name, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        for color, (title, (steps, values)) in zip(SERIES, series.items()):
            axes.plot(
                steps, values, color=color, label=title, marker="o" if len(steps) < 30 else None, markersize=3
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _tidy(axes, "step", name)
        axes.legend(frameon=False, fontsize=8)
    return render(figure)


def bars(rows: dict[str, dict[str, float]], x: str) -> bytes:
    """Grouped horizontal bars: {group: {series: value}}, one group per organ."""
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
    """Per organ (title, x, y, flagged, wrong): every label a dot; flagged ones red, known errors ringed."""
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


def precision_recall(lines: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], marked: float) -> bytes:
    """Per rule (setting, precision, recall): the curve, its best F1 labelled, and the setting `marked` as a square."""
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
