"""A head that turns between volumes: they come to lie on one another, and gradients turn along."""

import numpy as np
import pytest

from tests.diffusion import fields
from ukbob_jax.diffusion import motion, tensor
from ukbob_jax.diffusion.gradients import Gradients
from ukbob_jax.diffusion.itk_images import to_itk

pytest.importorskip("dipy")
pytest.importorskip("SimpleITK")
AFFINE = np.diag([-3.0, 3.0, 4.0, 1.0])  # LAS
AFFINE[:3, 3] = 34.5, -34.5, -38.0
SHAPE = (24, 24, 20)
TURNS = {3: (0, 0, 0.10), 5: (0.08, 0, 0), 8: (0, -0.09, 0.03)}  # volume -> rotation vector, radians
SHIFT = np.array([1.5, -2.0, 1.0])  # mm, of the turned volumes


def head(world):
    """Shares of tissue, tract and water of a head at places in the world `... 3`, mm."""

    def blob(centre, radii, sharp=6.0):
        distance = np.sqrt((((world - centre) / radii) ** 2).sum(axis=-1))
        return 1 / (1 + np.exp(sharp * (distance - 1)))

    inside = blob((2, -1, 0), (23, 30, 34))
    tract = blob((9, 5, 8), (5, 9, 8))
    water = np.maximum(blob((-8, -6, -6), (4, 14, 9)), blob((6, -12, -14), (9, 4, 6)))
    return inside, tract, water


def moved_series(turns):
    """A series in which the head moved for some volumes while gradients stayed in the scanner.

    Returns:
        Series, affine, b, gradients in the scanner, gradients as the head saw them, and where the tract is.
    """
    b = np.array([0.0, 0.0, *[1000.0] * 9])
    g = np.concatenate([np.zeros((2, 3)), fields.directions(9)])
    grid = (
        np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1) @ AFFINE[:3, :3].T
        + AFFINE[:3, 3]
    )
    axes = fields.rotation(5)
    tract, grey = axes @ np.diag(fields.EIGENVALUES) @ axes.T, np.eye(3) * 0.8e-3
    series, seen = [], g.copy()
    for n in range(len(b)):
        turn = np.array(turns.get(n, (0, 0, 0)), float)
        angle = np.linalg.norm(turn)
        matrix = fields.about(turn, angle) if angle else np.eye(3)
        world = (grid - SHIFT * (angle > 0)) @ matrix  # where the head's tissue came from: Rᵀ(x - t)
        seen[n] = g[n] @ matrix  # Rᵀg
        inside, fibres, water = head(world)
        tensors = ((1 - fibres - water, grey, 500), (fibres, tract, 500), (water, np.eye(3) * 3e-3, 900))
        parts = [share * fields.signal(b[n : n + 1], seen[n : n + 1], t, s0)[0] for share, t, s0 in tensors]
        series.append(inside * sum(parts))
    return np.stack(series, -1).astype(np.float32), AFFINE, b, g, seen, head(grid)[1] > 0.9, axes[:, 0]


def degrees(a, b):
    return np.degrees(np.arccos(np.minimum(np.abs((a * b).sum(axis=-1)), 1)))


def test_volumes_lie_on_one_another_and_gradients_are_those_the_head_saw():
    series, affine, b, g, seen, tract, axis = moved_series(TURNS)
    found = motion.align(series, affine, Gradients(b, g), b == 0)
    turned = [*TURNS]
    before, after = degrees(g[2:], seen[2:]), degrees(found.gradients.directions[2:], seen[2:])
    assert before.max() > 4 and after.max() < 1  # turns of 3.9 to 5.7 degrees
    assert found.moved_mm[turned].min() > 5 and np.delete(found.moved_mm, turned).max() < 0.5
    np.testing.assert_array_equal(found.series[..., 0], series[..., 0])
    moved, still = (
        tensor.fit(values, gradients, 50.0, tract)
        for values, gradients in ((series, Gradients(b, g)), (found.series, found.gradients))
    )
    rest, *_ = moved_series({})
    truth = tensor.fit(rest, Gradients(b, g), 50.0, tract).fa[tract]
    errors = [np.abs(maps.fa[tract] - truth).mean() for maps in (moved, still)]
    assert errors[1] < 0.6 * errors[0], errors
    assert degrees(still.direction[tract], axis).mean() < 2


@pytest.mark.parametrize("slices", [3, 5])
def test_a_motion_that_cannot_be_is_left_out(slices):
    """Noise holds nothing: whatever is found either stays small or is not believed."""
    noise = np.random.default_rng(0).uniform(1, 2, (6, 6, slices, 8)).astype(np.float32)
    g = np.concatenate([np.zeros((1, 3)), fields.directions(7)])
    found = motion.align(
        noise, np.diag([1.0, 1, 10, 1]), Gradients(np.array([0.0] + [1000] * 7), g), np.arange(8) == 0
    )
    left = np.isnan(found.moved_mm)
    assert np.nanmax(found.moved_mm) <= motion.BELIEVED * 6
    assert left[1:].any() and (slices > 3 or left[1:].all())
    np.testing.assert_array_equal(found.series[..., left], noise[..., left])
    np.testing.assert_array_equal(found.gradients.directions[left], g[left])


def test_a_share_of_the_places_tells_as_much(monkeypatch):
    """Large volumes are looked at here and there, at half the size first: within an eighth of a voxel, either way."""
    series, affine, *_ = moved_series({1: TURNS[8]})
    still, turned = (to_itk(series[..., n], affine) for n in (0, 1))
    everywhere = motion.register(still, turned)
    monkeypatch.setattr(motion, "LOOKED_AT", 4000)
    monkeypatch.setattr(motion, "COARSE", 20)
    found = motion.register(still, turned)
    truth = np.eye(4)
    truth[:3, :3], truth[:3, 3] = fields.about(TURNS[8], np.linalg.norm(TURNS[8])), SHIFT
    corners = np.array([(x, y, z, 1.0) for x in (-35, 35) for y in (-35, 35) for z in (-38, 38)])
    for matrix in (everywhere, found):
        assert np.linalg.norm(corners @ (matrix - truth).T, axis=1).max() < 0.5
    again = motion.register(still, turned)
    np.testing.assert_allclose(found, again, rtol=0, atol=1e-9)
