import numpy as np
import pytest

from ukbob_jax import anatomy
from ukbob_jax.phantom import shapes

STEP = 2.0
AXES = [np.arange(-60, 60, STEP, dtype=np.float32) + 1] * 3
GRID = np.meshgrid(*AXES, indexing="ij")


def volume(shape: shapes.Shape) -> float:
    return float(shape.inside(*GRID).sum()) * STEP**3


def canvas() -> shapes.Canvas:
    wave = [(g + 3 * np.sin(GRID[(i + 1) % 3] / 20)).astype(np.float32) for i, g in enumerate(GRID)]
    return shapes.Canvas(AXES, wave, (STEP,) * 3)


@pytest.mark.parametrize("turn", [(0, 0, 0), (30, 0, 0), (10, 40, -70)])
def test_ellipsoid_has_its_volume_however_turned(turn):
    assert volume(shapes.ellipsoid((3, -4, 5), (40, 20, 15), turn)) == pytest.approx(
        4 / 3 * np.pi * 40 * 20 * 15, rel=0.02
    )


def test_capsule_has_its_volume():
    (capsule,) = shapes.tube([(0, 0, -30), (0, 0, 30)], (15, 15), (1, 1, 1))
    assert volume(capsule) == pytest.approx(np.pi * 15**2 * 60 + 4 / 3 * np.pi * 15**3, rel=0.03)


def test_column_has_its_volume():
    column = shapes.column([(-40, 0, 0, 10, 20), (40, 20, 0, 20, 40)])  # section grows from 1 to 4 times
    assert volume(column) == pytest.approx(np.pi * 80 * (200 + 800 + 400) / 3, rel=0.03)


def test_a_thin_tube_widens_to_the_voxels_across_it_only():
    along_z = shapes.tube([(0, 0, 0), (0, 0, 30)], (1, 1), (2.0, 3.0, 40.0))[0]
    along_x = shapes.tube([(0, 0, 0), (30, 0, 0)], (1, 1), (2.0, 3.0, 40.0))[0]
    assert along_z.high[0] == pytest.approx(0.55 * 3)
    assert along_x.high[2] == pytest.approx(0.55 * 40)


def test_mirrored_shape_lies_on_the_other_side():
    shape = shapes.ellipsoid((30, 5, 0), (20, 10, 15), (0, 20, 30))
    assert np.array_equal(shapes.mirrored(shape).inside(*GRID), shape.inside(-GRID[0], *GRID[1:]))


@pytest.mark.parametrize(
    "shape",
    [
        shapes.ellipsoid((3, -4, 5), (40, 20, 15), (10, 40, -70)),
        shapes.ellipsoid((0, 0, 0), (20, 30, 15), (20, 0, 30), power=4),
        *shapes.tube([(-30, 0, 0), (20, 20, 20)], (5, 15), (1, 1, 1)),
        shapes.column([(-40, 5, 0, 10, 20), (10, 20, -5, 25, 8)]),
    ],
)
def test_the_box_holds_the_whole_shape(shape):
    c = canvas()
    c.draw("liver", shape)
    assert np.array_equal(c.label == anatomy.IDS["liver"], shape.inside(*c.fields))


def test_drawing_over_named_classes_leaves_the_others():
    c = canvas()
    c.draw("muscle", shapes.ellipsoid((0, 0, 0), (30, 30, 30)))
    c.draw("heart", shapes.ellipsoid((0, 0, 0), (10, 10, 10)))
    before = c.label.copy()
    c.draw("liver", shapes.ellipsoid((10, 0, 0), (45, 45, 45)), over=("muscle",))
    changed = c.label != before
    assert changed.any() and set(np.unique(before[changed])) == {anatomy.IDS["muscle"]}


def test_variation_moves_and_resizes_an_organ():
    c = canvas()
    shift, scale = np.zeros((73, 3)), np.ones((73, 3))
    shift[5], scale[5] = (12, 0, 0), 1.2
    plain = shapes.ellipsoid((0, 0, 0), (20, 20, 20))
    c.draw("spleen", plain)
    small = (c.label == 1).sum()
    c = canvas()
    c.vary(shift, scale)
    c.draw("liver", plain)
    assert (c.label == 5).sum() / small == pytest.approx(1.2**3, rel=0.03)
    assert c.fields[0][c.label == 5].mean() == pytest.approx(12, abs=0.5)
