"""One picture of a labelled scan: three planes as they are and under their labels, with the names of what is seen."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ukbob_jax.evaluation.figures import INK, render
from ukbob_jax.evaluation.montages import overlay
from ukbob_jax.volumes.label_colours import table
from ukbob_jax.volumes.slices import PLANES, rescale_intensity, slice_for_display
from ukbob_jax.volumes.volume import Volume

OPACITY = 0.55
_ORDER = ("axial", "coronal", "sagittal")
_ACROSS_UP = {"sagittal": (1, 2), "coronal": (0, 2), "axial": (0, 1)}
_HEIGHT = 3.8  # inches of the tallest panel
_PER_COLUMN = 30  # names in a column of the legend


def draw(image: Volume, labels: Volume, names: Mapping[int, str], title: str) -> bytes:
    """PNG: above the scan, below the same slices under their labels, each plane where most of it is labelled.

    The patient's right is on the viewer's left, and R says so; of sagittal planes the back, P, is on the left. Voxels keep
    their shape in mm.

    Args:
        image: `x y z`, RAS.
        labels: `x y z`, RAS, on the same voxels; ids below 256.
        names: id to name.
        title: above the picture.
    """
    colors = table(names)
    places = {plane: _fullest(labels.array, PLANES[plane]) for plane in _ORDER}
    grey = rescale_intensity(image.array)
    size = np.array(labels.shape) * labels.spacing_mm
    widths = [size[_ACROSS_UP[plane][0]] for plane in _ORDER]
    scale = _HEIGHT / max(size)
    seen = [np.take(labels.array, places[plane], PLANES[plane]).ravel() for plane in _ORDER]
    shown = [i for i in np.unique(np.concatenate(seen)).tolist() if i]
    figure = Figure(figsize=(max(sum(widths) * scale, 3.0) + 0.4, 2 * _HEIGHT + 0.4))
    grid = figure.subplots(2, 3, squeeze=False, width_ratios=widths)
    for column, plane in enumerate(_ORDER):
        base = slice_for_display(grey, plane, places[plane])
        drawn = slice_for_display(labels.array, plane, places[plane])
        across, up = _ACROSS_UP[plane]
        aspect = labels.spacing_mm[up] / labels.spacing_mm[across]
        for line, picture in enumerate((base, overlay(base, drawn, colors, OPACITY))):
            axes = grid[line, column]
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect=aspect, interpolation="nearest")
            axes.set_axis_off()
            side = "P" if plane == "sagittal" else "R"
            axes.text(0.03, 0.97, side, transform=axes.transAxes, color="white", fontsize=8, va="top")
        grid[0, column].set_title(f"{plane}, slice {places[plane]}", fontsize=8, color=INK)
    if shown:
        patches = [Patch(color=tuple((colors[i] / 255).tolist()), label=names.get(i, str(i))) for i in shown]
        figure.legend(
            handles=patches, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False,
            ncols=-(-len(shown) // _PER_COLUMN),
        )  # fmt: skip
    figure.suptitle(title, fontsize=9, color=INK)
    return render(figure)


def _fullest(labels: np.ndarray, axis: int) -> int:
    """The slice with most labelled voxels; the middle one where nothing is labelled."""
    others = tuple(other for other in range(3) if other != axis)
    counts = (labels > 0).sum(axis=others)
    return int(counts.argmax()) if counts.any() else labels.shape[axis] // 2
