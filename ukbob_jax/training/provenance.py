"""What a run was made of: the settings that decide its numbers, and the machine and versions it ran on."""

import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import jax

import ukbob_jax
from ukbob_jax import files
from ukbob_jax.errors import ConfigError

# Sections of a configuration that decide the numbers of a training, and the fields in them that do not. A resumed
# run may differ in the latter and in everything else (mesh, inference, organs).
BINDING = (
    *("seed", "splits", "folds", "fold", "data", "model", "init", "init_new", "regions", "loss", "balance"),
    *("augment", "optimizer", "train"),
)
FREE = (
    *("data.store", "data.threads", "data.workers", "data.val_split", "data.val_label", "model.remat"),
    "data.damaged",
    *(f"train.{name}" for name in ("steps", "log_every", "eval_every", "checkpoint_every")),
    *(f"train.{name}" for name in ("stop_after_nonfinite", "keep", "best")),
)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorstore", "numpy")


def recipe(config: Mapping[str, Any], data: str) -> dict[str, Any]:
    """Dotted field -> JSON value of what a resume must repeat; `data` is a fingerprint of subjects and labels."""
    flat = {name: value for section in BINDING for name, value in _flatten(section, config.get(section))}
    flat["data.fingerprint"] = data
    return json.loads(json.dumps({name: value for name, value in flat.items() if name not in FREE}))


def check_resume(saved: Mapping[str, Any], now: Mapping[str, Any], folder: Any) -> None:
    """Refuse to go on with a training whose numbers would not be those of one configuration.

    A field that only one of them has, and that is off (0, False, empty), belongs to another version of the package and
    changes nothing: a new option must not strand the runs under way.

    Raises:
        ConfigError: naming every field that differs, with both values.
    """
    names = [name for name in sorted({*saved, *now}) if saved.get(name) != now.get(name)]
    off = [
        name
        for name in names
        if (name not in saved or name not in now) and not saved.get(name, now.get(name))
    ]
    names = [name for name in names if name not in off]
    if names:
        changes = "; ".join(f"{name} was {saved.get(name)!r}, is {now.get(name)!r}" for name in names)
        raise ConfigError(
            f"{folder}: made with another configuration: {changes}. Restore it, or use a new workdir."
        )


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


def _flatten(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [row for key, part in value.items() for row in _flatten(f"{name}.{key}", part)]
    return [(name, value)]
