"""U-Score of our backbones: what each costs, measured here, and how well it did, beside the whole pool.

    python -m tools.u_score --out runs/u_score                              small networks, minutes on two cores
    python -m tools.u_score --full --crop 96 96 96 --out runs/u_score       every backbone at its published sizes
    python -m tools.u_score --accuracy ious.csv --out runs/u_score          IoU by network: network,iou,zero_shot
    python -m tools.u_score --run plain_unet=W1 --run stunet=W2 ...         IoU of evaluated runs, with paired tests

Writes OUT.json and OUT.md: parameters, FLOPs of a forward pass (of the program before any rearrangement), crops and
volumes per second (median over rounds in which all networks take turns, after one to compile), the pool's 10th and 90th
percentiles, and U-Scores where there is an IoU. `--volume` says how large a volume is; a crop slides over it with half
of it shared by neighbours. Speeds are of this machine with whatever else it does: run it on a quiet one. Without IoU the
table has efficiencies only. `--run` names a network of the pool and the workdir of its run, evaluated as `--name`, and as
`--zero-shot-name` on a data set that it was not trained on; each is compared scan by scan with plain_unet's.
"""

import argparse
import csv
import json
import math
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs import networks as recipes
from ukbob_jax import devices, networks
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.evaluation import organs, scoring, significance, u_score
from ukbob_jax.evaluation.statistics import mean_defined
from ukbob_jax.evaluation.u_score import Cost

BASELINE = "plain_unet"  # what others are tested against
OVERLAP = 0.5  # of crops that slide over a volume
THREE = ((1, 1, 1), (2, 2, 2), (2, 2, 2))


def _plans(width: int, **fields: Any) -> dict[str, Any]:
    features = tuple(width * 2**stage for stage in range(3))
    return {
        "n_stages": 3, "features_per_stage": features, "kernel_sizes": ((3, 3, 3),) * 3, "strides": THREE,
        "n_conv_per_stage_decoder": (1, 1), "deep_supervision": False, **fields,
    }  # fmt: skip


def _mednext(width: int, ratio: int) -> dict[str, Any]:
    return {"n_channels": width, "exp_r": (ratio,) * 9, "block_counts": (1,) * 9}


def _primus(width: int, heads: int, depth: int) -> dict[str, Any]:
    return {"embed_dim": width, "eva_numheads": heads, "eva_depth": depth}


# name in the table -> network and its fields; "crop" stands for the size of the input.
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "swin_unetr": ("swin_unetr", {"feature_size": 12, "window_size": (4, 4, 4)}),
    "plain_unet": ("plain_unet", _plans(8, n_conv_per_stage=(2, 2, 2))),
    "resenc_unet": ("resenc_unet", _plans(8, n_blocks_per_stage=(1, 2, 2))),
    "stunet": ("stunet", {"dims": (8, 16, 32), "depth": (1,) * 3, "pool_op_kernel_sizes": ((2, 2, 2),) * 2,
                          "conv_kernel_sizes": ((3, 3, 3),) * 3, "deep_supervision": False}),
    "mednext": ("mednext", _mednext(8, 2)),
    "primus": ("primus", {**_primus(96, 4, 2), "input_shape": "crop"}),
}  # fmt: skip
FULL: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"swin_unetr {width}": ("swin_unetr", {"feature_size": width}) for width in (12, 24, 48)},
    "plain_unet": ("plain_unet", {}),
    "resenc_unet": ("resenc_unet", {}),
    **{f"stunet {size}": ("stunet", {"size": size}) for size in "SBL"},
    "mednext S": ("mednext", {}),
    "mednext B": ("mednext", {"exp_r": (2, 3, 4, 4, 4, 4, 4, 3, 2)}),
    "mednext M": (
        "mednext",
        {"exp_r": (2, 3, 4, 4, 4, 4, 4, 3, 2), "block_counts": (3, 4, 4, 4, 4, 4, 4, 4, 3)},
    ),
    "primus S": ("primus", {"input_shape": "crop"}),
    "primus B": ("primus", {**_primus(792, 12, 12), "input_shape": "crop"}),
    "primus M": ("primus", {**_primus(864, 12, 16), "input_shape": "crop"}),
}


class Program(NamedTuple):
    """A network ready to be timed: `run` blocks until its logits are there."""

    parameters: int
    flops: float
    run: Callable[[], Any]


def main(words: Sequence[str] | None = None) -> None:
    devices.tune_cpu()
    options = arguments(words)
    pool = FULL if options.full else SMALL
    if unknown := [name for name in options.networks or () if name not in pool]:
        raise ConfigError(f"--networks {unknown[0]}: not in the pool; it has {', '.join(pool)}.")
    chosen = {name: pool[name] for name in options.networks or pool}
    runs = dict(word.split("=", 1) for word in options.run)
    if unknown := [
        name for name in (*runs, *accuracy(options.accuracy).get("in domain", {})) if name not in chosen
    ]:
        raise ConfigError(f"{unknown[0]!r} is not in the pool; it has {', '.join(chosen)}.")
    ious, tests = accuracies(options, runs)
    costs = measure(chosen, options)
    found = {
        "machine": machine(),
        "crop": list(options.crop),
        "volume": list(options.volume or options.crop),
        "windows": windows(options.volume or options.crop, options.crop),
        "quantiles": {k: list(v) for k, v in u_score.quantiles(list(costs.values()))._asdict().items()},
        "accuracy_quantiles": {
            column: list(u_score.percentiles(list(of.values()), f"IoU {column}"))
            for column, of in ious.items()
        },
        "rows": u_score.table(costs, ious),
        f"against_{BASELINE}": tests,
    }
    print(text(found))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(text(found))


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="published sizes instead of small ones")
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="of the pool; default all")
    parser.add_argument("--crop", type=int, nargs=3, default=(32, 32, 32), help="voxels of the input")
    parser.add_argument("--volume", type=int, nargs=3, help="voxels of a volume; default the crop")
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--classes", type=int, default=73)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5, help="of timing")
    parser.add_argument(
        "--accuracy", type=pathlib.Path, help="CSV of network, iou and, where known, zero_shot"
    )
    parser.add_argument("--run", action="append", default=[], metavar="NETWORK=WORKDIR")
    parser.add_argument("--name", default="test", help="of the runs' evaluation")
    parser.add_argument("--zero-shot-name", default="", help="of their evaluation on another data set")
    parser.add_argument("--out", type=pathlib.Path, help="OUT.json and OUT.md")
    return parser.parse_args(words)


def measure(pool: Mapping[str, tuple[str, dict[str, Any]]], options: argparse.Namespace) -> dict[str, Cost]:
    """Cost of every network; they take turns, so that a busy machine slows all of them."""
    programs = {name: program(*found, options) for name, found in pool.items()}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for made in programs.values():
        made.run()  # compiles
    for _ in range(options.rounds):
        for name, made in programs.items():
            start = time.perf_counter()
            made.run()
            seconds[name].append(time.perf_counter() - start)
    each = windows(options.volume or options.crop, options.crop)
    return {
        name: Cost(made.parameters / 1e6, made.flops / 1e9, 1 / (each * statistics.median(seconds[name])))
        for name, made in programs.items()
    }


def program(name: str, fields: Mapping[str, Any], options: argparse.Namespace) -> Program:
    """The forward pass of one network on one crop, with random weights."""
    given = {field: tuple(options.crop) if value == "crop" else value for field, value in fields.items()}
    section = getattr(recipes, name)().to_dict()  # fields and defaults of a recipe
    section |= {
        "in_channels": options.channels,
        "out_channels": options.classes,
        "dtype": options.dtype,
        **given,
    }
    model = networks.from_section(section)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, *options.crop, options.channels)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    forward = jax.jit(model.apply)
    flops = forward.lower(variables, x).cost_analysis()["flops"]
    return Program(
        sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        float(flops),
        lambda: jax.block_until_ready(forward(variables, x)),
    )


def windows(volume: Sequence[int], crop: Sequence[int]) -> int:
    """How many crops cover a volume, neighbours sharing half of each axis."""
    return math.prod(1 + max(0, math.ceil((n - c) / (c * (1 - OVERLAP)))) for n, c in zip(volume, crop))


def accuracies(
    options: argparse.Namespace, runs: Mapping[str, str]
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Column -> network -> IoU; and column -> network -> comparison with the baseline's run, corrected by Holm."""
    ious, tests = accuracy(options.accuracy), {}
    for column, name in (("in domain", options.name), ("zero-shot", options.zero_shot_name)):
        scans = {
            network: iou_of_scans(pathlib.Path(workdir), name) for network, workdir in runs.items() if name
        }
        found = {
            network: mean for network, of in scans.items() if (mean := mean_defined(of.values())) is not None
        }
        if found:
            ious[column] = {**ious.get(column, {}), **found}
        if BASELINE in scans:
            rows = {
                n: significance.difference(scans[BASELINE], of) for n, of in scans.items() if n != BASELINE
            }
            adjusted = significance.corrected([row["p"] for row in rows.values()], "holm")
            tests[column] = {n: {**row, "p_holm": p} for (n, row), p in zip(rows.items(), adjusted)}
    return ious, tests


def accuracy(path: pathlib.Path | None) -> dict[str, dict[str, float]]:
    """Column -> network -> IoU of a CSV; a column that is empty throughout is left out.

    Raises:
        FileError: no such file, or a row that cannot be read.
    """
    if path is None:
        return {}
    found: dict[str, dict[str, float]] = {"in domain": {}, "zero-shot": {}}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for column, key in (("in domain", "iou"), ("zero-shot", "zero_shot")):
                    if row.get(key):
                        found[column][row["network"]] = float(row[key])
    except (OSError, KeyError, ValueError) as error:
        raise FileError(
            f"{path}: no CSV with columns network, iou and zero_shot ({error}). Correct it."
        ) from error
    return {column: of for column, of in found.items() if of}


def iou_of_scans(workdir: pathlib.Path, name: str) -> dict[str, float | None]:
    """Subject -> mean IoU over organs, of an evaluation without adaptation.

    Raises:
        FileError: there is none.
    """
    path = workdir / "evaluation" / f"{name}.jsonl"
    if not path.is_file():
        raise FileError(f"{path}: no such evaluation. Score the run with the job evaluate.")
    rows = scoring.read_rows(path)
    found = organs.of_subjects(rows, "off", "iou")
    return {subject: mean_defined(of.values()) for subject, of in found.items()}


def text(found: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    rows = found["rows"]
    columns = list(rows[0])
    title = {"parameters_m": "parameters, M", "gflops": "GFLOPs", "speed": "volumes/s"}
    lines = [
        f"{found['machine']}; crop {' x '.join(map(str, found['crop']))}, volume {' x '.join(map(str, found['volume']))} "
        f"({found['windows']} crops).",
        "",
        "| " + " | ".join(title.get(name, name) for name in columns) + " |",
        "|" + "---|" * len(columns),
    ]
    lines += ["| " + " | ".join(_cell(row[name]) for name in columns) + " |" for row in rows]
    said = {**found["quantiles"], **{f"IoU {k}": v for k, v in found["accuracy_quantiles"].items()}}
    lines += [
        "",
        "10th and 90th percentiles of this pool: "
        + "; ".join(f"{k} {a:.4g}, {b:.4g}" for k, (a, b) in said.items())
        + ".",
    ]
    for column, tests in found[f"against_{BASELINE}"].items():
        each = "; ".join(
            f"{n} {row['mean']:+.3f} (Holm's p {_cell(row['p_holm'])})" for n, row in tests.items()
        )
        if each:
            lines += ["", f"IoU against {BASELINE}, {column}, scan by scan: {each}."]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.4g}"


def machine() -> str:
    """What was measured on, and how busy it was."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{platform.machine()}, {os.cpu_count()} cores, {jax.devices()[0].device_kind}, jax {jax.__version__}{load}"


if __name__ == "__main__":
    main()
