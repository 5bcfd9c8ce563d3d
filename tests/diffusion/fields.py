"""Diffusion series of tensors that are known, by the signal equation S = S0 exp(-b gᵀDg)."""

import itertools

import numpy as np

EIGENVALUES = np.array([1.7e-3, 0.4e-3, 0.2e-3])  # mm²/s
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


def rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def anisotropy(eigenvalues: np.ndarray) -> float:
    """FA by its definition: sqrt(3/2) times the norm of the deviations over the norm of the eigenvalues."""
    deviations = eigenvalues - eigenvalues.mean()
    return float(np.sqrt(1.5 * (deviations**2).sum() / (eigenvalues**2).sum()))


def directions(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors that lie evenly on a half sphere: the golden spiral, turned, `n 3`."""
    z = (np.arange(count) + 0.5) / count
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1) @ rotation(seed).T


def signal(b: np.ndarray, g: np.ndarray, tensor: np.ndarray, s0: float = 900.0) -> np.ndarray:
    """b `n`, g `n 3`, both in the frame of `tensor` `... 3 3` -> `... n`."""
    return s0 * np.exp(-b * np.einsum("ni,...ij,nj->...n", g, tensor, g))


def to_fsl(g: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Directions in the world `n 3` as a .bvec holds them, `3 n`: along voxel axes, x negated where det > 0."""
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    stored = np.linalg.solve(cosines, g.T)
    return stored * np.array([[-1.0 if np.linalg.det(cosines) > 0 else 1.0], [1.0], [1.0]])


def write_gradients(stem: str, b: np.ndarray, stored: np.ndarray) -> None:
    """`stem`.bval and `stem`.bvec, `3 n`."""
    with open(f"{stem}.bval", "w") as file:
        file.write(" ".join(f"{value:g}" for value in b) + "\n")
    np.savetxt(f"{stem}.bvec", stored, fmt="%.8f")


def about(axis, angle: float) -> np.ndarray:
    """Rotation by `angle`, radians, about an axis (Rodrigues), `3 3`."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
