"""A network whose answer is known: classes are intensity bands. With a scan for it."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ukbob_jax.models.card import ModelCard
from ukbob_jax.volumes.volume import Volume

CARD = ModelCard(
    "tests.bands",
    {},
    labels={0: "background", 1: "liver", 2: "unused", 3: "spleen"},
    normalize="window:0:100",
    contrasts=("water",),
    window=(8, 8, 8),
)


def card_of(model, **facts):
    """What a training run keeps of a network whose classes are those of `CARD`."""
    named = ModelCard.of(model)
    return {
        "card": dataclasses.replace(
            CARD, architecture=named.architecture, fields=named.fields, **facts
        ).to_json()
    }


class Bands(nn.Module):
    """0 below 0.3, 1 below 0.6, then 3; class 2 would win everywhere, were it not unused."""

    @nn.compact
    def __call__(self, x, *, train=False):
        scale = self.param("norm1", lambda key: {"scale": jnp.ones(1), "bias": jnp.zeros(1)})
        v = x[..., :1] * scale["scale"].reshape(1, 1, 1, 1, 1) + scale["bias"].reshape(1, 1, 1, 1, 1)
        return 40 * jnp.concatenate([0 * v, v - 0.3, 9 + 0 * v, 2 * v - 0.9], -1)


def bands(image):
    return np.select([image < 30, image < 60], [0, 1], 3).astype(np.uint8)


def scan(shape=(11, 9, 10), affine=None, seed=0):
    """Integers, away from the bands' borders."""
    values = np.random.default_rng(seed).choice([5, 12, 45, 52, 80, 95], shape).astype(np.int16)
    return Volume(values, np.diag([2.0, 2, 2, 1]) if affine is None else affine, (1, 1))
