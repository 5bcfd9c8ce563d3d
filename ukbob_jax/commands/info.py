"""Tell versions, devices and caches, and what the network of a workdir is: its labels, input, origin and size."""

import argparse
import json
import os
import pathlib
from typing import Any

from ukbob_jax.errors import FileError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("workdir", nargs="?", help="of a training run")
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="checkpoint to describe")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> None:
    """Print what there is.

    Raises:
        FileError: no checkpoint in the workdir, or a damaged one.
    """
    found = {**system(), **({"model": card(options.workdir, options.which)} if options.workdir else {})}
    print(json.dumps(found, indent=1) if options.json else "\n".join(lines(found)))


def system() -> dict[str, Any]:
    """Versions, devices and caches of this installation."""
    import jax

    from ukbob_jax.devices import cache_folder
    from ukbob_jax.training.provenance import describe_start

    start = describe_start()
    cache = cache_folder()
    programs = len(list(pathlib.Path(cache).glob("*-cache"))) if cache else 0
    return {
        **{name: start[name] for name in ("ukbob_jax", "code", "python", "packages", "machine", "devices")},
        "platform": jax.default_backend(),
        "compile cache": {"folder": cache or "off", "programs": programs},
        "licences": "code Apache-2.0; weights and data carry the terms of their owners",
        "telemetry": "none",
    }


def card(workdir: str, which: str) -> dict[str, Any]:
    """What the checkpoint's description says of the network.

    Raises:
        FileError: there is no checkpoint, or it is damaged.
    """
    import jax

    from ukbob_jax.inference.nnunet.folders import is_folder as is_nnunet
    from ukbob_jax.models.card import AXES, UNUSED, ModelCard
    from ukbob_jax.training.checkpoints import restore_params

    folder = pathlib.Path(workdir) / "checkpoints"
    if not folder.is_dir():
        what = "no folder checkpoints in it" if folder.parent.is_dir() else "no such folder"
        if is_nnunet(workdir):
            what = "a model folder of nnU-Net, which its plans.json and dataset.json describe"
        raise FileError(f"{workdir}: {what}. Give the workdir of a training run.")
    params, _, meta = restore_params(folder, which)
    described = ModelCard.from_json(meta, folder)
    return {
        "workdir": os.fspath(workdir),
        "checkpoint": which,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "contrasts": list(described.contrasts),
        "spacing_mm": list(described.spacing_mm) if described.spacing_mm else None,
        "window": list(described.window),
        "intensities": described.normalize,
        "trained_on": dict(described.training),
        "axes": AXES,
        "task": described.task,
        "structures": [name for i, name in described.labels.items() if i and name != UNUSED],
        "architecture": described.architecture,
        "fields": dict(described.fields),
        "origin": dict(described.provenance),
    }


def lines(found: dict[str, Any], indent: str = "") -> list[str]:
    """`name: value` lines, nested values indented."""
    out = []
    for name, value in found.items():
        if isinstance(value, dict):
            out += [f"{indent}{name}:", *lines(value, indent + "  ")]
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            out.append(f"{indent}{name}: {text}")
    return out
