"""The network of a training: started from weights, and described to its readers."""

import pathlib
import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ukbob_jax import files, weights
from ukbob_jax.data.options import Config
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.errors import ConfigError
from ukbob_jax.models.card import ModelCard
from ukbob_jax.training.state import TrainState

# Names in `config.init_new` -> options of `weights.read`.
NEW_PARTS: dict[str, dict[str, Any]] = {
    "head": {"head": "new"},
    "stem": {"stem": "new"},
    "stem_average": {"stem": "average"},
    "decoder": {"new": ("decoder", "head")},
}


def describe(model: nn.Module, config: Config, data: TrainingData) -> dict[str, Any]:
    """Return what a reader of the checkpoints must know."""
    training: dict[str, Any] = data.extremes() | data.appearance()
    if config.data.normalize == "auto" and (heavy := data.heavy_tails()):
        training["heavy_tailed"] = heavy
        told = ", ".join(f"{name} of {count} subjects" for name, count in heavy.items())
        print(f"train: outliers rule mean and std: {told}; normalised by percentiles", file=sys.stderr)
    card = ModelCard.of(
        model,
        labels=dict(data.names),
        regions=data.regions,
        spacing_mm=data.common_spacing(),
        normalize=config.data.normalize,
        contrasts=data.contrasts,
        window=tuple(config.data.crop),
        training=training,
        provenance={
            "store": data.store.path,
            "label": data.label,
            "flagged": config.data.flagged,
            "flagged_by": config.data.flagged_by,
            "data": data.fingerprint(),
        },
    )
    return {"card": card.to_json()}


def load(config: Config, data: TrainingData, model: nn.Module, workdir: str, state: TrainState) -> TrainState:
    """Return `state` with the weights in `config.init`; which of them were taken is printed and kept in `init.txt`.

    Raises:
        ConfigError: an unknown part in `config.init_new`.
        MismatchError: naming every tensor that does not fit and may not start afresh.
    """
    if unknown := set(config.init_new) - NEW_PARTS.keys():
        raise ConfigError(
            f"config.init_new: {sorted(unknown)[0]!r} is unknown; choose from {', '.join(NEW_PARTS)}."
        )
    options: dict[str, Any] = {
        name: value for part in config.init_new for name, value in NEW_PARTS[part].items()
    }
    fresh = jax.device_get(state.params) if jax.process_count() == 1 else None
    loaded = weights.read(config.init, model, init=fresh, labels=data.names, seed=config.seed, **options)
    report = loaded.report
    print(
        f"train: {config.init}: {len(report.matched)} tensors taken, {len(report.new)} start afresh, "
        f"{len(report.left_out)} not used; listed in init.txt",
        file=sys.stderr,
    )
    if jax.process_index() == 0:
        files.write_bytes(pathlib.Path(workdir) / "init.txt", f"{config.init}\n{report}\n".encode())
    params = {**state.params, **loaded.params}  # heads for deep supervision start afresh: no file has them
    return state.replace(
        params=params,
        model_state=loaded.model_state or state.model_state,
        ema=jax.tree.map(jnp.copy, params) if state.ema else {},
    )
