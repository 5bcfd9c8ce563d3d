"""What is done after what: each job joins rooms into one recipe, `run(config, workdir)`."""

import importlib
from types import ModuleType

import ml_collections

from ukbob_jax.errors import ConfigError

JOBS = (
    "inspect", "ingest", "verify", "label", "solf", "audit", "judge", "agreement",
    "train", "evaluate", "predict", "report", "demo",
)  # fmt: skip


def names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The jobs a recipe asks for, in order.

    Raises:
        ConfigError: `config.job` is missing or names a job there is not.
    """
    asked = tuple(name.strip() for name in str(config.get("job", "")).split(","))
    for name in asked:
        if name not in JOBS:
            raise ConfigError(f"config.job: no job {name!r}; there are {', '.join(JOBS)}.")
    return asked


def find(name: str) -> ModuleType:
    """The module of one job, imported when it is needed."""
    return importlib.import_module(f"ukbob_jax.jobs.{name}")
