"""Random scans: smooth noise with organs in it, stored with random axes, spacings, types and headers."""

import pathlib

import nibabel as nib
import numpy as np
from scipy import ndimage

from tests.inference.nnunet.random_models.kinds import Spec


def write(
    root: pathlib.Path, name: str, spec: Spec, patch: list[int], rng: np.random.Generator
) -> tuple[str, ...]:
    """Write one scan for a model; returns its files, one per channel."""
    turned = np.array([spec.spacing[spec.forward.index(axis)] for axis in range(3)])  # z y x of the file
    tile = [1, *patch] if len(patch) == 2 else patch
    tile = np.array([tile[spec.forward.index(axis)] for axis in range(3)])
    spacing = turned * rng.uniform(*spec.ratio, 3)
    tiles = rng.uniform(*spec.tiles, 3)
    if len(patch) == 2:
        tiles[spec.forward[0]] = rng.integers(3, 9) * spacing[spec.forward[0]] / turned[spec.forward[0]]
    shape = np.maximum(np.round(tile * tiles * turned / spacing), 2).astype(int)[::-1]  # x y z
    spacing = np.round(spacing[::-1], int(rng.integers(2, 7)))
    channels = [channel(scheme, shape, rng, spec.scans == "empty") for scheme in spec.schemes]
    root.mkdir(exist_ok=True)
    if spec.scans in (".nrrd", ".mha"):
        return tuple(
            _other(root / f"{name}_{c:04d}{spec.scans}", a, spacing, rng, c) for c, a in enumerate(channels)
        )
    affine = placed(spacing, rng)
    codes = ((1, 1), (1, 0), (0, 1), (2, 1))[rng.integers(4)]
    if spec.scans == "4d":
        kind = np.result_type(*channels)
        return (
            _nifti(root / f"{name}_0000.nii.gz", np.stack(channels, -1).astype(kind), affine, codes, None),
        )
    slopes = [(0.5, -3.0) if rng.random() < 0.2 and a.dtype == np.int16 else None for a in channels]
    return tuple(
        _nifti(root / f"{name}_{c:04d}.nii.gz", a, affine, codes, slopes[c]) for c, a in enumerate(channels)
    )


def channel(scheme: str, shape: np.ndarray, rng: np.random.Generator, empty: bool) -> np.ndarray:
    """Voxels x y z of one channel."""
    if empty:
        return np.zeros(shape, np.int16)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 1.5, mode="nearest")
    smooth = smooth / (smooth.std() + 1e-6) + 0.3 * rng.normal(size=shape)
    inside = np.zeros(shape, bool)
    inside[tuple(slice(rng.integers(n // 4 + 1), n - rng.integers(n // 4 + 1)) for n in shape)] = True
    if scheme == "CTNormalization":
        outside = 0 if rng.random() < 0.4 else -1024
        return np.where(inside, smooth * 250 + 20, outside).clip(-1024, 3000).astype(np.int16)
    if scheme == "RGBTo01Normalization":
        return np.where(inside, smooth * 50 + 120, 0).clip(0, 255).astype(np.uint8)
    values = np.where(inside, smooth * 90 + 400, 0)
    values[ndimage.gaussian_filter(rng.normal(size=shape), 1) > 0.35] = 0  # holes, some of them open
    return values.clip(0).astype((np.int16, np.uint16, np.int32, np.float32, np.float64)[rng.integers(5)])


def placed(spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An affine with random axes, half of them oblique."""
    turn = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    if rng.random() < 0.5:
        for axis in range(3):
            angle, (i, j) = np.deg2rad(rng.uniform(-14, 14)), [a for a in range(3) if a != axis]
            rotation = np.eye(3)
            rotation[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
            turn = rotation @ turn
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return affine


def _nifti(
    path: pathlib.Path,
    array: np.ndarray,
    affine: np.ndarray,
    codes: tuple[int, int],
    slope: tuple[float, float] | None,
) -> str:
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine if codes[0] else None, codes[0])
    image.set_qform(affine, codes[1])
    if slope:
        image.header.set_slope_inter(*slope)
    nib.save(image, path)
    return str(path)


def _other(
    path: pathlib.Path, array: np.ndarray, spacing: np.ndarray, rng: np.random.Generator, number: int
) -> str:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(array.T)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((3.0, -20.5, 7.25))
    image.SetDirection((0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    SimpleITK.WriteImage(image, path)
    return str(path)
