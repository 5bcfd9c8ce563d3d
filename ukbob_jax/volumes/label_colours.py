"""One colour per structure, the same in every file format and picture."""

import colorsys
from collections.abc import Mapping

import numpy as np

from ukbob_jax import anatomy

_GOLDEN = 0.61803398875  # steps of this fraction of the colour circle keep neighbouring ids apart


def colour(label: int, name: str) -> tuple[int, int, int]:
    """Red, green, blue, 0 to 255: those of `anatomy` for its structures, else a hue that is the id's; 0 is black."""
    if not label:
        return 0, 0, 0
    if name in anatomy.IDS:
        red, green, blue = anatomy.COLORS[anatomy.IDS[name]].tolist()
        return red, green, blue
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(label * _GOLDEN % 1, 0.65, 0.9))
    return red, green, blue


def table(names: Mapping[int, str]) -> np.ndarray:
    """`k 3` uint8: the colour of every id from 0 to the highest that is named."""
    return np.array([colour(i, names.get(i, "")) for i in range(max(names, default=0) + 1)], np.uint8)
