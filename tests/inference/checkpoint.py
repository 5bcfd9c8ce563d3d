"""A real checkpoint of a very small network, for jobs that load theirs from a workdir."""

import os
import pathlib

import jax
import jax.numpy as jnp

from tests.tiny_network import Tiny
from ukbob_jax.models.card import ModelCard
from ukbob_jax.training import state as states
from ukbob_jax.training.checkpoints import Checkpoints
from ukbob_jax.training.optimizer import build

PROVENANCE = {"store": "of the training", "label": "manual", "flagged": "off", "data": "0123456789ab"}


def save(workdir: str | os.PathLike, labels: dict[int, str], step: int = 1, favoured: int = 0) -> None:
    """Save step `step`: one and the same random parameters, but a bias of 50 for the class `favoured`.

    The provenance is the same at every step, as it is in one run that goes on.
    """
    model = Tiny(in_channels=1, out_channels=1 + max(labels))
    tx = build(learning_rate=1e-3, steps=10, warmup_steps=1)
    variables = states.variables_of(model, (1, 8, 8, 8, 1))
    state = states.init(jax.random.key(0), variables=variables, optimizer=tx)
    bias = jnp.zeros_like(state.params["head"]["bias"]).at[favoured].set(50.0)
    params = {**state.params, "head": {**state.params["head"], "bias": bias}}
    card = ModelCard.of(
        model, labels=labels, normalize="window:0:100", contrasts=("water",), window=(8, 8, 8),
        provenance=PROVENANCE,
    )  # fmt: skip
    checkpoints = Checkpoints(pathlib.Path(workdir) / "checkpoints")
    checkpoints.save(state.replace(params=params, step=jnp.int32(step)), {"card": card.to_json()})
    checkpoints.close()
