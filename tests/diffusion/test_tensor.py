"""FA, ADC and principal direction of fields that are known, and of real series."""

import itertools

import numpy as np
import pytest

from tests.diffusion import fields
from tests.volumes import real
from ukbob_jax.diffusion import gradients, shells, tensor
from ukbob_jax.diffusion.gradients import Gradients
from ukbob_jax.volumes.nifti import read_volume

pytest.importorskip("dipy")
SHAPE = (3, 4, 5)
B = np.array([0.0, 20.0, *[700.0] * 10, *[1000.0] * 10])
G = np.concatenate([[[0, 0, 0], [0, 0.6, 0.8]], fields.directions(10), fields.directions(10, 1)])


def axes_at(world):
    """Eigenvectors as columns, `n 3 3`, at places in the world `n 3`, mm: a basis that turns with the place."""
    turn = [fields.about((1, 2, -1), 0.05 * x + 0.03 * y - 0.04 * z) for x, y, z in world]
    return np.array(turn) @ fields.rotation(3)


@pytest.mark.parametrize("order, signs", fields.ORIENTATIONS)
def test_a_known_field_however_the_file_lies(tmp_path, order, signs):
    affine = np.eye(4)
    affine[:3, :3] = fields.rotation(7)[:, order] * signs * [2.0, 1.5, 3.0]
    affine[:3, 3] = 5, -7, 2
    voxels = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1).reshape(-1, 3)
    axes = axes_at(voxels @ affine[:3, :3].T + affine[:3, 3])
    truth = np.einsum("nij,j,nkj->nik", axes, fields.EIGENVALUES, axes)
    series = fields.signal(B, G, truth).reshape(*SHAPE, len(B))
    fields.write_gradients(f"{tmp_path}/dwi", B, fields.to_fsl(G, affine))
    found = gradients.read(tmp_path / "dwi.bval", tmp_path / "dwi.bvec", affine, len(B))
    maps = tensor.fit(series.astype(np.float32), found, 50.0, np.ones(SHAPE, bool))
    np.testing.assert_allclose(maps.fa, fields.anisotropy(fields.EIGENVALUES), rtol=0.01)
    np.testing.assert_allclose(maps.adc, fields.EIGENVALUES.mean(), rtol=0.01)
    cosine = np.abs((maps.direction.reshape(-1, 3) * axes[..., 0]).sum(axis=1))
    assert np.degrees(np.arccos(np.minimum(cosine, 1))).max() < 0.5
    np.testing.assert_allclose(maps.t2, series[..., :2].mean(axis=-1), rtol=1e-6)


def test_outside_the_mask_maps_are_zero():
    series = np.broadcast_to(fields.signal(B, G, np.diag(fields.EIGENVALUES)), (2, 2, 2, len(B)))
    mask = np.zeros((2, 2, 2), bool)
    mask[0] = True
    maps = tensor.fit(series.astype(np.float32), Gradients(B, G), 50.0, mask)
    for values in maps:
        assert values.dtype == np.float32 and not values[1].any() and values[0].any()


def coherence(maps, affine):
    """How well directions of neighbours agree along the direction itself (Schilling et al. 2019), 0 to 1.

    A wrong sign or order of gradient axes makes paths break up: |cos| falls between voxels that a path would join.
    """
    sure = maps.fa > 0.3
    total = weight = 0.0
    for step in itertools.product((-1, 0, 1), repeat=3):
        if step <= (0, 0, 0):
            continue
        here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, sure.shape))
        there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(step, sure.shape))
        toward = affine[:3, :3] @ step
        toward = toward / np.linalg.norm(toward)
        both = sure[here] & sure[there]
        a, b = maps.direction[here][both], maps.direction[there][both]
        along = np.abs(a @ toward) * np.abs(b @ toward)
        share = along**4
        total += (share * np.abs((a * b).sum(axis=-1))).sum()
        weight += share.sum()
    return weight / max(int(sure.sum()), 1)


def best(volume, found, keep):
    """Coherence for every order and sign of the gradients' world axes, up to a common sign."""
    scores = {}
    for order, signs in fields.ORIENTATIONS:
        if signs[0] < 0:
            continue
        turned = Gradients(found.b_s_mm2, found.directions[:, order] * signs)
        maps = tensor.fit(volume.array.astype(np.float32), turned, 50.0, keep)
        scores[order, signs] = coherence(maps, volume.affine)
    return scores


def test_paths_of_a_real_brain_hold_together_only_in_the_right_frame(reference):
    """64 directions, PLS and oblique: of all 24 ways to turn or swap gradient axes, ours fits the anatomy best."""
    stem = reference / "volumes" / "dwi_small_64D"
    volume = read_volume(f"{stem}.nii.gz", channels=True)
    found = gradients.read(stem.with_suffix(".bval"), stem.with_suffix(".bvec"), volume.affine, 65)
    scores = best(volume, found, np.ones(volume.shape, bool))
    assert max(scores, key=scores.__getitem__) == ((0, 1, 2), (1, 1, 1))


def test_a_real_cord():
    """Six directions that hardly tell xz, which the condition says; three lie along the axes, whose mean is the ADC."""
    folder = real.folder("sct_spinal_cord") / "dmri"
    volume = read_volume(folder / "dmri.nii.gz", channels=True)
    found = gradients.read(folder / "bvals.txt", folder / "bvecs.txt", volume.affine, 7)
    assert shells.usable(found, 50.0, "dmri").all()
    assert 39 < shells.condition(found.directions[1:]) < 41
    maps = tensor.fit(volume.array.astype(np.float32), found, 50.0, np.ones(volume.shape, bool))
    positive = (
        (maps.fa < 0.7) & (maps.adc > 1e-6) & (volume.array > 0).all(axis=-1)
    )  # noise makes eigenvalues 0 elsewhere
    measured = volume.array[positive].astype(float)  # v n
    along_axes = (
        -np.log(measured[:, [1, 3, 5]] / measured[:, :1]) / 750
    )  # v 3; exact, as many numbers as unknowns
    assert positive.sum() > 50
    np.testing.assert_allclose(maps.adc[positive], along_axes.mean(axis=1), rtol=1e-3)
