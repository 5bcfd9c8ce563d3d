"""A picture of what came of a series: three planes through T2-weighted image, ADC, FA and the fastest direction."""

import io

import matplotlib.figure
import numpy as np

from ukbob_jax.diffusion.tensor import Maps

ADC_SHOWN = 3e-3  # mm²/s, white: free water at body temperature
PLANES = (
    ("sagittal", 0, "P to A", "I to S"),
    ("coronal", 1, "L to R", "I to S"),
    ("axial", 2, "L to R", "P to A"),
)


def png(maps: Maps, spacing_mm: tuple[float, float, float], title: str) -> bytes:
    """Draw the middle slices.

    Args:
        maps: with axes towards right, anterior, superior.
        spacing_mm: of the voxels, x y z.
        title: a line above.
    """
    colours = np.clip(
        np.abs(maps.direction) * maps.fa[..., None], 0, 1
    )  # x y z 3: red right, green front, blue up
    bright = float(np.quantile(maps.t2, 0.995)) or 1.0
    rows = (
        ("T2w", maps.t2, bright),
        ("ADC", maps.adc, ADC_SHOWN),
        ("FA", maps.fa, 1.0),
        ("direction", colours, 1.0),
    )
    figure = matplotlib.figure.Figure(figsize=(9, 12), layout="constrained")
    figure.suptitle(
        f"{title}\nADC 0 to {1e3 * ADC_SHOWN:g}e-3 mm²/s, FA 0 to 1; direction: red R-L, green A-P, blue S-I"
    )
    axes = figure.subplots(len(rows), len(PLANES))
    for row, (name, values, top) in zip(axes, rows):
        for axis, (plane, across, x_label, y_label) in zip(row, PLANES):
            u, v = (n for n in range(3) if n != across)
            shown = np.take(values, values.shape[across] // 2, axis=across)  # u v, or u v 3
            axis.imshow(
                shown.swapaxes(0, 1),
                origin="lower",
                cmap="gray",
                vmin=0,
                vmax=top,
                aspect=spacing_mm[v] / spacing_mm[u],
            )
            axis.set(title=f"{name}, {plane}" if across == 0 else plane, xlabel=x_label, ylabel=y_label)
            axis.set(xticks=[], yticks=[])
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=70)
    return file.getvalue()
