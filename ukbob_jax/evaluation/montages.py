"""Slices of scans under their labels, side by side: each function returns the bytes of a PNG.

Volumes come as `x y z` in RAS; voxels keep their shape in mm.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ukbob_jax.evaluation.figures import INK, render
from ukbob_jax.volumes.slices import PLANES, rescale_intensity, slice_for_display


def overlay(image: np.ndarray, label: np.ndarray, colors: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Blend label colours (`k 3` uint8) over a grey slice; background stays grey, ignored voxels white."""
    grey = np.repeat(image[..., None], 3, axis=-1)
    palette = np.vstack([colors, np.full((256 - len(colors), 3), 255, np.uint8)]) / 255.0
    tint = palette[label]
    return np.where((label > 0)[..., None], (1 - opacity) * grey + opacity * tint, grey)


def _show(axes: Axes, picture: np.ndarray, plane: str, spacing_mm: Sequence[float], title: str = "") -> None:
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
    """Draw coronal mid-slices of several subjects: the image above, the image under its labels below."""
    figure = Figure(figsize=(1.5 * len(images), 6.2))
    grid = figure.subplots(2, len(images), squeeze=False)
    for column, (image, label, title) in enumerate(zip(images, labels, titles)):
        middle = image.shape[1] // 2
        grey = slice_for_display(rescale_intensity(image), "coronal", middle)
        _show(grid[0, column], grey, "coronal", spacing_mm, title)
        _show(
            grid[1, column],
            overlay(grey, slice_for_display(label, "coronal", middle), colors),
            "coronal",
            spacing_mm,
        )
    return render(figure)


def three_planes(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray]],
    center: Sequence[Sequence[int] | np.ndarray],
    spacing_mm: Sequence[float],
    colors: np.ndarray,
) -> bytes:
    """Draw one row per (title, image, label): axial, coronal and sagittal through that row's `center` voxel."""
    figure = Figure(figsize=(6.0, 2.9 * len(rows)))
    grid = figure.subplots(len(rows), 3, squeeze=False, width_ratios=(1.3, 1, 0.8))
    for line, ((title, image, label), voxel) in enumerate(zip(rows, center)):
        grey = rescale_intensity(image)
        for column, plane in enumerate(("axial", "coronal", "sagittal")):
            index = int(voxel[PLANES[plane]])
            picture = overlay(
                slice_for_display(grey, plane, index), slice_for_display(label, plane, index), colors, 0.75
            )
            _show(grid[line, column], picture, plane, spacing_mm, title if column == 0 else "")
    return render(figure)


def comparison(
    image: np.ndarray,
    labels: Sequence[tuple[str, np.ndarray]],
    spacing_mm: Sequence[float],
    colors: np.ndarray,
) -> bytes:
    """Draw the same coronal and axial slice under each of several label maps: truth, prediction, adapted prediction."""
    figure = Figure(figsize=(2.3 * (len(labels) + 1), 6.6))
    grid = figure.subplots(2, len(labels) + 1, squeeze=False, height_ratios=(2.4, 1))
    grey = rescale_intensity(image)
    planes = (("coronal", image.shape[1] // 2), ("axial", int(image.shape[2] * 0.58)))
    for line, (plane, index) in enumerate(planes):
        base = slice_for_display(grey, plane, index)
        _show(grid[line, 0], base, plane, spacing_mm, "image" if line == 0 else "")
        for column, (title, label) in enumerate(labels, 1):
            picture = overlay(base, slice_for_display(label, plane, index), colors, 0.6)
            _show(grid[line, column], picture, plane, spacing_mm, title if line == 0 else "")
    return render(figure)


class SheetRow(NamedTuple):
    """One scan of a contact sheet: panels of (title, plane, picture `h w` or `h w 3` in 0..1), and the spacing in mm."""

    title: str
    panels: list[tuple[str, str, np.ndarray]]
    spacing_mm: Sequence[float]  # x y z


def sheet_row(
    title: str,
    image: np.ndarray,
    contrasts: Sequence[str],
    label: np.ndarray | None,
    spacing_mm: Sequence[float],
    colors: np.ndarray,
) -> SheetRow:
    """Cut the middle coronal slice of every channel of `x y z c`, then three middle slices under the label `x y z`."""
    middles = {plane: image.shape[axis] // 2 for plane, axis in PLANES.items()}
    panels = []
    for channel, name in enumerate(contrasts):
        grey = rescale_intensity(image[..., channel])
        panels.append((name, "coronal", slice_for_display(grey, "coronal", middles["coronal"])))
    if label is not None:
        grey = rescale_intensity(image[..., 0])
        for plane in ("coronal", "axial", "sagittal"):
            base, labels = (slice_for_display(array, plane, middles[plane]) for array in (grey, label))
            panels.append((f"{plane}, labels", plane, overlay(base, labels, colors)))
    return SheetRow(title, panels, spacing_mm)


def contact_sheet(rows: Sequence[SheetRow]) -> bytes:
    """Draw one row per scan. The letter in a panel's corner is the side of the body that its left edge shows."""
    columns = max(len(row.panels) for row in rows)
    figure = Figure(figsize=(1.7 * columns, 2.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for line, row in enumerate(rows):
        for column, (name, plane, picture) in enumerate(row.panels):
            title = f"{row.title}\n{name}" if column == 0 else name
            _show(grid[line, column], picture, plane, row.spacing_mm, title)
            side = "P" if plane == "sagittal" else "R"
            grid[line, column].text(0.03, 0.97, side, transform=grid[line, column].transAxes, color="white",
                                    fontsize=8, va="top")  # fmt: skip
    return render(figure)
