"""Predictions with known answers, and volumes for them."""

import jax
import jax.numpy as jnp
import numpy as np

KERNEL = (
    ((9 * np.arange(3)[:, None, None] + 3 * np.arange(3)[:, None] + np.arange(3))[..., None] * [1, 2]) % 7 - 3
) / 16
KERNEL = KERNEL[:, :, :, None].astype(np.float32)


def ramp(patch):
    """b x y z 1 -> b x y z 2: depends on where in its window a voxel lies."""
    i, j, k = jnp.meshgrid(*[jnp.arange(s, dtype=patch.dtype) for s in patch.shape[1:4]], indexing="ij")
    r = jnp.broadcast_to(((i + 2 * j + 3 * k) / 128)[None, ..., None], patch.shape)
    return jnp.concatenate([patch * patch + r, patch - r], -1)


def conv(patch):
    """b x y z 1 -> b x y z 2: a 3x3x3 filter, zeros outside the window."""
    return jax.lax.conv_general_dilated(
        patch, KERNEL, (1, 1, 1), "SAME", dimension_numbers=("NXYZC", "XYZIO", "NXYZC")
    )


def pointwise(variables, x):
    """b x y z c -> b x y z 3, voxel by voxel."""
    return jnp.concatenate([x[..., :1] * variables["a"], jnp.sin(x[..., :1]), x[..., :1] ** 2], -1)


def random_volume(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
