"""What is done after what: each job joins rooms into one recipe, `run(config, workdir)`."""

import importlib
from types import ModuleType

import ml_collections

from ukbob_jax.errors import ConfigError

JOBS = (
    "inspect", "ingest", "verify", "label", "solf", "audit", "check_labels", "agreement",
    "train", "evaluate", "predict", "report", "demo", "preprocess", "export_nnunet",
    "evaluate_nnunet", "pretrain", "active", "query", "semi", "sentinel_train", "sentinel_evaluate", "sentinel",
    "radiomics", "frd", "export2d",
)  # fmt: skip

RENAMED = {"judge": "check_labels"}  # old name -> new name


def names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Return the jobs that a recipe asks for, in order.

    Raises:
        ConfigError: `config.job` is missing, or names an unknown or a renamed job.
    """
    asked = tuple(name.strip() for name in str(config.get("job", "")).split(","))
    for name in asked:
        if name in RENAMED:
            raise ConfigError(
                f"config.job: {name!r} is now {RENAMED[name]!r}; so are its fields in a recipe."
            )
        if name not in JOBS:
            raise ConfigError(f"config.job: no job {name!r}; there are {', '.join(JOBS)}.")
    return asked


def find(name: str) -> ModuleType:
    """Import the module of one job."""
    return importlib.import_module(f"ukbob_jax.jobs.{name}")
