"""What a run was made of: the settings that decide its numbers, and the machine and versions it ran on."""

import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax

import ukbob_jax
from ukbob_jax import files
from ukbob_jax.errors import ConfigError
from ukbob_jax.models.card import FIRST_ARCHITECTURE

# What a resumed run may change: it moves no number of the training. All else in a configuration binds, so that a
# section or field which is new binds until it is listed here. An entry is a field, or a section with all in it.
FREE = (
    *("job", "platform", "workers", "repair", "cluster", "store", "mesh"),  # which machine, which files
    "source",  # what was ingested counts by the fingerprint of the data
    *(
        "solf",
        "audit",
        "check_labels",
        "judge",
        "labeller",
        "agreement",
        "inspect",
    ),  # verdicts count by that fingerprint too
    *("inference", "etta", "tent", "bn", "evaluate", "predict", "organs"),  # what is done with the network
    *("plans", "configuration"),  # of nnU-Net: become fields of data, model and loss
    "epochs",  # becomes steps of train and optimizer
    "probe",  # looks at a pre-training and changes nothing of it
    *("radiomics", "frd", "export2d"),  # made from a store, of no training
    *("active", "query", "semi"),  # which labels there are: they count by the fingerprint
    *(f"sentinel.{name}" for name in ("val_pairs", "coverage", "recall", "grader", "decisions")),
    *("sentinel.process", "sentinel.processes"),
    *(
        f"data.{name}"
        for name in ("store", "threads", "workers", "cache_gb", "val_split", "val_label", "damaged")
    ),
    *("data.flagged_by", "data.grades"),  # the labels that they choose count by the fingerprint
    *("model.remat", "model.attention"),  # how the same function is computed
    *(f"train.{name}" for name in ("steps", "log_every", "eval_every", "checkpoint_every")),
    *(f"train.{name}" for name in ("stop_after_nonfinite", "keep", "best")),
)
FORMAT = 2  # of recipes, in the field "format"
# Recipes without a format hold these sections only, and say nothing about others.
SECTIONS_OF_FORMAT_1 = (
    *("seed", "splits", "folds", "fold", "data", "model", "init", "init_new", "regions", "loss", "balance"),
    *("augment", "optimizer", "train"),
)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorstore", "numpy")


def recipe(config: Mapping[str, Any], data: str) -> dict[str, Any]:
    """Dotted field -> JSON value of what a resume must repeat; `data` is a fingerprint of subjects and labels."""
    flat = {name: value for section in config for name, value in _flatten(section, config[section])}
    bound = {name: value for name, value in flat.items() if not _in(name, FREE)}
    return json.loads(json.dumps({"format": FORMAT, **bound, "data.fingerprint": data}))


def check_resume(saved: Mapping[str, Any], now: Mapping[str, Any], folder: Any) -> None:
    """Refuse to go on with a training whose numbers would not be those of one configuration.

    A field that only one of them has, and that is off (0, False, empty), belongs to another version of the package and
    changes nothing: a new option must not strand the runs under way. The same holds for sections that recipes did not
    record when the run was made.

    Raises:
        ConfigError: naming every field that differs, with both values.
    """
    if "model.name" in now:
        saved = {"model.name": FIRST_ARCHITECTURE, **saved}  # recipes before networks had names
    names = sorted(name for name in {*saved, *now} if _differs(name, saved, now))
    if names:
        changes = "; ".join(f"{name} was {saved.get(name)!r}, is {now.get(name)!r}" for name in names)
        raise ConfigError(
            f"{folder}: made with another configuration: {changes}. Restore it, or use a new workdir."
        )


def _differs(name: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a field that binds has changed since the recipe `saved`."""
    if name == "format" or _in(name, FREE):
        return False
    if name in saved and name in now:
        return saved[name] != now[name]
    if "format" not in saved and name not in saved and not _in(name, SECTIONS_OF_FORMAT_1):
        return False
    return bool(saved.get(name, now.get(name)))


def describe_start() -> dict[str, Any]:
    """Versions, code and devices of this process."""
    devices = jax.devices()
    return {
        "ukbob_jax": ukbob_jax.__version__,
        "code": code_fingerprint(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": jax.process_count(),
    }


def code_fingerprint() -> str:
    """Of the package's source files, since a version number says little about a checkout."""
    root = pathlib.Path(ukbob_jax.__file__).parent
    sources = {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*.py"))}
    return files.fingerprint([sources], 12)


def _in(name: str, entries: Sequence[str]) -> bool:
    """Whether a dotted field, or a section that it is in, is among `entries`."""
    parts = name.split(".")
    return any(".".join(parts[:length]) in entries for length in range(1, len(parts) + 1))


def _flatten(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [row for key, part in value.items() for row in _flatten(f"{name}.{key}", part)]
    return [(name, value)]
