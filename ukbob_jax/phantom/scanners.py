"""The same anatomy as another scanner would show it: contrast, shading, noise or resolution changed."""

import numpy as np

from ukbob_jax.errors import ConfigError
from ukbob_jax.phantom import grid
from ukbob_jax.phantom.grid import FIELD_OF_VIEW_MM
from ukbob_jax.phantom.person import stream
from ukbob_jax.phantom.warp import smooth_field

SCANNERS: dict[str, str] = {
    "contrast": "another sequence: tissue contrast bent differently in each channel, and fat and water not fully separated",
    "bias": "worn coils: signal varies several-fold across the body",
    "noise": "short acquisition: about four times the noise",
    "low_resolution": "thick slices and few lines: half the resolution through and in the plane",
    "low_field": "a weak magnet: flat contrast, much noise, mild blur and shading together",
}


def _top(image: np.ndarray) -> np.ndarray:
    """Brightness of each channel, `c`: the 99th percentile, at least 1."""
    flat = image.reshape(-1, image.shape[-1])
    return np.maximum(np.percentile(flat[:: max(1, len(flat) // 50_000)], 99, axis=0), 1.0).astype(np.float32)


def _contrast(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    top = _top(image)
    mixing = np.eye(image.shape[-1]) + strength * rng.uniform(0.1, 0.25, (image.shape[-1],) * 2)
    bend = np.exp(strength * rng.choice((-1, 1), image.shape[-1]) * rng.uniform(0.45, 0.7, image.shape[-1]))
    mixed = (image / top) @ (mixing / mixing.sum(axis=1, keepdims=True)).T.astype(np.float32)
    return np.clip(mixed, 0, None) ** bend.astype(np.float32) * top


def _bias(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    axes = grid.axes_mm(image.shape[:3])
    field = 0.5 * smooth_field(rng, axes, 400.0)
    field += rng.uniform(0.6, 1.2) * rng.choice((-1, 1)) * (axes[2] / FIELD_OF_VIEW_MM[2] - 0.5)
    field += (rng.uniform(-0.8, 0.8) * axes[0] / FIELD_OF_VIEW_MM[0])[:, None, None]
    field = 0.45 * (field - field.mean()) / field.std()  # as strong for every seed
    return image * np.exp(strength * field)[..., None].astype(np.float32)


def _noise(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    sigma = (0.1 * strength * _top(image)).astype(np.float32)
    real = image + sigma * rng.standard_normal(image.shape, np.float32)
    return np.hypot(real, sigma * rng.standard_normal(image.shape, np.float32))


def _through_coarse(n: int, m: int) -> np.ndarray:
    """(n, n) matrix that averages n voxels into m thick ones and interpolates linearly back."""
    edges = np.linspace(0, n, m + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, n + 1)) - np.maximum(edges[:-1, None], np.arange(n))
    down = np.clip(overlap, 0, None) * (m / n)  # m n
    centers = (np.arange(n) + 0.5) * m / n - 0.5
    low = np.clip(np.floor(centers), 0, m - 2).astype(int)
    weight = np.clip(centers - low, 0, 1)
    up = np.zeros((n, m))
    up[np.arange(n), low] = 1 - weight
    up[np.arange(n), low + 1] += weight
    return (up @ down).astype(np.float32)


def _low_resolution(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    factors = 1 + strength * np.array((0.8, 0.8, 1.2)) * rng.uniform(0.85, 1.15, 3)
    for axis, factor in enumerate(factors):
        n = image.shape[axis]
        matrix = _through_coarse(n, max(2, round(n / factor)))
        image = np.moveaxis(np.tensordot(matrix, image, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(image)


def render(image: np.ndarray, name: str, seed: int) -> np.ndarray:
    """The image as the named scanner shows it.

    Args:
        image: `x y z c`, magnitudes over the phantom's field of view.
        name: a key of `SCANNERS`.
        seed: draws the details; the same seed gives the same image.
    Returns:
        `x y z c`, float32 whole numbers of at least 0, on the same grid.
    Raises:
        ConfigError: the scanner is not known.
    """
    if name not in SCANNERS:
        raise ConfigError(f"scanner {name!r} is not known; choose one of {', '.join(SCANNERS)}.")
    rng = stream(seed, 20 + list(SCANNERS).index(name))
    image = np.asarray(image, np.float32)
    if name == "low_field":
        image = _low_resolution(image, rng, 0.4)
        image = _noise(_bias(_contrast(image, rng, 0.6), rng, 0.5), rng, 0.7)
    else:
        image = {"contrast": _contrast, "bias": _bias, "noise": _noise, "low_resolution": _low_resolution}[
            name
        ](image, rng)
    return np.rint(image).astype(np.float32)
