"""A whole synthetic subject from one seed: label map and four Dixon contrasts."""

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.phantom import appearance, grid, muscles, skeleton, trunk, vessels
from ukbob_jax.phantom.body import Outline
from ukbob_jax.phantom.person import Person, draw, stream
from ukbob_jax.phantom.shapes import Canvas
from ukbob_jax.phantom.warp import reference_coordinates

# How freely organs of a group vary in place and size around the shared deformation
_FREEDOM = {
    "organs": 1.0,
    "lungs": 0.0,
    "vessels": 0.4,
    "bones": 0.35,
    "spine": 0.0,
    "muscles": 0.6,
    "tissues": 0.0,
}


def _variation(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Displacement (mm) and size factor of each class, both (73, 3)."""
    freedom = np.zeros((anatomy.NUM_CLASSES, 1))
    for group, ids in anatomy.GROUPS.items():
        freedom[list(ids)] = _FREEDOM[group]
    n = anatomy.NUM_CLASSES
    shift = freedom * 3.0 * np.clip(rng.standard_normal((n, 3)), -2, 2)
    size = 0.05 * np.clip(rng.standard_normal((n, 1)), -2, 2) + 0.035 * np.clip(
        rng.standard_normal((n, 3)), -2, 2
    )
    return shift, np.exp(freedom * size)


def label_map(seed: int, shape: grid.Shape3, *, sex: str | None = None) -> np.ndarray:
    """Label map of the subject, `x y z` uint8, RAS+; the same as from `subject`, without the image."""
    return _label(draw(seed, sex), seed, shape)


def _label(person: Person, seed: int, shape: grid.Shape3) -> np.ndarray:
    rng = stream(seed, 1)
    rigid, fields = reference_coordinates(rng, person, grid.axes_mm(shape))
    canvas = Canvas(rigid, fields, grid.spacing_mm(shape))
    canvas.vary(*_variation(rng))
    outline = Outline(canvas, person)
    outline.draw()
    trunk.draw_cavities(canvas, outline, person)
    trunk.draw_belly(canvas, person)
    muscles.draw_muscles(canvas)
    trunk.draw_chest(canvas, person)
    vessels.draw_vessels(canvas)
    skeleton.draw_bones(canvas, outline)
    skeleton.draw_spine(canvas)
    return canvas.label


def subject(seed: int, shape: grid.Shape3, *, sex: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Image and label map of one synthetic neck-to-knee subject.

    The field of view is always `FIELD_OF_VIEW_MM`; `grid.affine(shape)` places it in the world.

    Args:
        seed: whole number from 0; the same seed is the same subject on every grid.
        shape: voxels along x, y, z (right, front, up).
        sex: "F" or "M" instead of the drawn one.
    Returns:
        Image `x y z c`, float32 whole numbers, in the order of `CONTRASTS`; label `x y z`, uint8.
    Raises:
        ConfigError: the sex is not known, the seed is negative, or the shape is not three positive counts.
    """
    person = draw(seed, sex)
    label = _label(person, seed, shape)
    return appearance.render(label, person, stream(seed, 2), grid.axes_mm(shape)), label
