"""Directions of a .bvec in the world, for every orientation and determinant."""

import itertools

import numpy as np
import pytest
from nibabel import orientations

from tests.volumes import real
from ukbob_jax.diffusion import gradients
from ukbob_jax.errors import FileError, MismatchError, ValuesError

FLIPS = list(itertools.product((1, -1), repeat=3))


def save(folder, bvals, bvecs):
    (folder / "dwi.bval").write_text(bvals if isinstance(bvals, str) else " ".join(map(str, bvals)))
    text = bvecs if isinstance(bvecs, str) else "\n".join(" ".join(f"{v:.6f}" for v in row) for row in bvecs)
    (folder / "dwi.bvec").write_text(text)
    return folder / "dwi.bval", folder / "dwi.bvec"


def rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


@pytest.mark.parametrize("order, signs", list(itertools.product(itertools.permutations(range(3)), FLIPS)))
def test_one_direction_in_the_world_however_the_file_lies(tmp_path, order, signs):
    """FSL's rule written out: voxel axes with x negated where their affine has a positive determinant."""
    world = np.array([[0.36, -0.48, 0.8], [0, 0, 0], [0.6, 0.8, 0.0], [-1.0, 0, 0]])
    cosines = rotation(7)[:, order] * signs
    affine = np.eye(4)
    affine[:3, :3] = cosines @ np.diag([1.5, 2.0, 3.0])
    stored = world @ cosines  # along the voxel axes
    if np.linalg.det(affine[:3, :3]) > 0:
        stored[:, 0] *= -1
    found = gradients.read(*save(tmp_path, [1000, 0, 700, 700], stored.T), affine, 4)
    np.testing.assert_allclose(found.directions, world, atol=2e-6)
    assert found.b_s_mm2.tolist() == [1000, 0, 700, 700]


def test_a_volume_turned_to_ras_with_its_directions_as_mrtrix_and_dcm2niix_do(tmp_path):
    """A LAS file (negative determinant) is taken as it is but for its x axis, which points left."""
    found = gradients.read(*save(tmp_path, [1, 1], [[1, 0], [0, 0], [0, 1]]), np.diag([-2.0, 2, 2, 1]), 2)
    assert found.directions.tolist() == [[-1, 0, 0], [0, 0, 1]]
    same = gradients.read(*save(tmp_path, [1, 1], [[1, 0], [0, 0], [0, 1]]), np.diag([2.0, 2, 2, 1]), 2)
    assert (
        same.directions.tolist() == found.directions.tolist()
    )  # FSL's frame is that of radiologists either way
    assert "".join(orientations.aff2axcodes(np.diag([-2.0, 2, 2, 1]))) == "LAS"


def test_a_real_series():
    folder = real.folder("sct_spinal_cord") / "dmri"
    found = gradients.read(
        folder / "bvals.txt", folder / "bvecs.txt", np.diag([-0.8, 0.8, 17.5, 1]), 7
    )  # rows of three
    assert found.b_s_mm2.tolist() == [0, *[750] * 6]
    np.testing.assert_allclose(np.linalg.norm(found.directions, axis=1), [0, *[1] * 6], atol=1e-9)


def test_three_directions_are_columns(tmp_path):
    axes = np.diag([1.0, 1.0, 1.0])[:, [1, 2, 0]]  # first column: y; as rows the first would be z
    found = gradients.read(*save(tmp_path, [5, 5, 5], axes), np.diag([-1.0, 1, 1, 1]), 3)
    np.testing.assert_array_equal(found.directions, np.eye(3)[[1, 2, 0]] * [-1, 1, 1])


@pytest.mark.parametrize(
    "bvals, bvecs, error, message",
    [
        ([0, 1], [[0, 1, 0]] * 3, MismatchError, r"dwi\.bval: 2 gradients, but its image has 3 volumes"),
        ([0, 1, 1], [[0, 1]] * 3, MismatchError, r"dwi\.bvec: 2 gradients, but"),
        (
            [0, 1, 1],
            "1 2\n3 4\n5 6\n7 8",
            FileError,
            r"dwi\.bvec: 4 rows of 2; expected three rows, or rows of three",
        ),
        ([0, -5, 1], [[0, 1, 1], [0, 0, 0], [0, 0, 0]], ValuesError, "b is -5 s/mm² in volume 1"),
        (
            [0, 1, 9],
            [[0, 1, 0.7], [0, 0, 0], [0, 0, 0]],
            ValuesError,
            "volume 2 has length 0.7, expected 1 at b = 9",
        ),
        ("0 a 1", [[0, 1, 1], [0, 0, 0], [0, 0, 0]], FileError, r"dwi\.bval: expected rows of numbers"),
        ("", [[0, 1, 1], [0, 0, 0], [0, 0, 0]], FileError, r"dwi\.bval: no numbers"),
        ([0, 1, 1], "1 2\n3", FileError, r"dwi\.bvec: expected rows of numbers, all of one length"),
    ],
)
def test_gradients_that_do_not_fit_are_named(tmp_path, bvals, bvecs, error, message):
    with pytest.raises(error, match=message):
        gradients.read(*save(tmp_path, bvals, bvecs), np.eye(4), 3)


def test_volumes_without_a_direction(tmp_path):
    text = "nan 0 1\nnan 0 0\nnan 0 0"
    found = gradients.read(*save(tmp_path, [0, 1000, 1000], text), np.diag([-1.0, 1, 1, 1]), 3)
    assert found.directions.tolist() == [[0, 0, 0], [0, 0, 0], [-1, 0, 0]]
