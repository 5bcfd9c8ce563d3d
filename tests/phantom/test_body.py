import numpy as np
import pytest

from tests.phantom import reference
from ukbob_jax.anatomy import IDS
from ukbob_jax.phantom.body import Outline


def drawn(sex: str = "M", **changes) -> np.ndarray:
    canvas = reference.canvas()
    Outline(canvas, reference.person(sex, **changes)).draw()
    return canvas.label


def count(label: np.ndarray, name: str) -> int:
    return int((label == IDS[name]).sum())


def test_a_body_is_muscle_in_a_coat_of_fat_on_both_sides_alike():
    label = drawn()
    assert reference.names(label) == {"background", "subcutaneous_fat", "muscle"}
    np.testing.assert_array_equal(label, label[::-1])
    inner = label[1:-1, 1:-1, 1:-1] == IDS["muscle"]
    for axis in (0, 1):
        for shift in (1, -1):
            beside = np.roll(label, shift, axis)[1:-1, 1:-1, 1:-1]
            assert (inner & (beside == 0)).sum() < 0.01 * inner.sum()  # the fat of an arm is a voxel thick


@pytest.mark.parametrize(
    "trait, larger, more", [("subcutaneous", 1.5, "subcutaneous_fat"), ("muscle", 1.2, "muscle")]
)
def test_traits_thicken_what_they_name(trait, larger, more):
    assert count(drawn(**{trait: larger}), more) > 1.02 * count(drawn(), more)


def test_a_belly_stands_out_to_the_front():
    thin, stout = (np.nonzero((drawn(visceral_mm=mm) > 0)[25, :, 64])[0] for mm in (0.0, 40.0))
    assert stout.max() >= thin.max() + 3 and abs(int(stout.min()) - int(thin.min())) <= 1


def test_women_have_breasts_of_fat():
    more = drawn("F").astype(int) - drawn("M")
    where = np.argwhere(more)
    assert len(where) and set(np.unique(more[more != 0])) == {IDS["subcutaneous_fat"]}
    assert (where[:, 1] > 15).all() and where[:, 2].min() >= 79 and where[:, 2].max() <= 90


def test_wall_and_ring_are_the_ellipse_of_the_cavity():
    outline = Outline(reference.canvas(), reference.person())
    # at z = 640 the table says: centre y 11, half width 114, half depth 75
    assert outline.wall(640, 0.0) == pytest.approx(86)
    np.testing.assert_allclose(
        outline.wall(640, np.array([57.0, 114.0, 200.0])), [11 + 75 * 0.75**0.5, 11, 11]
    )
    assert outline.ring(640, 0.0, 5.0) == pytest.approx((0, 11 - 80, 640))
    assert outline.ring(640, np.pi / 2, 5.0) == pytest.approx((119, 11, 640))


def test_the_cavity_is_deep_inside_and_negative_beyond_its_ends():
    outline = Outline(reference.canvas(), reference.person())
    where, depth = outline.cavity(500, 800)
    z = outline.z[where[2]]
    assert (depth[:, :, (z <= 500) | (z >= 800)] == -1).all()
    inside = outline.canvas.rigid[1][where[1]][
        depth[14, :, np.abs(z - 640).argmin()] > 0
    ]  # y, beside the midline
    assert -64 < inside.min() < -52 and 74 < inside.max() < 86  # the wall is at 11 -+ 75 mm, a voxel is 10 mm
    np.testing.assert_allclose(depth, depth[::-1], atol=1e-3)
