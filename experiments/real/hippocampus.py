"""The hippocampus of the Decathlon, real MR: train by `configs/hippocampus.py`, score scans that took no part.

    python -m experiments.real.hippocampus --data FOLDER --workdir runs/hippocampus

FOLDER holds images/NAME.nii.gz, labels/NAME.nii.gz (0 background, 1 anterior, 2 posterior) and split.json with lists
"train", "val" and "test" of names. A training that is interrupted goes on with the same command. Scores are means over
scans, of each label and of both; intervals are bootstrapped over scans. The floor looks at no image: every voxel gets
the label it has most often in the training scans, volumes laid on each other by their centres. Writes hippocampus.json
and hippocampus.png.
"""

import argparse
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ukbob_jax import devices, files, progress
from ukbob_jax.evaluation import failures, montages, scoring, statistics
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.main import main as ukbob
from ukbob_jax.volumes.nifti import read_pair
from ukbob_jax.volumes.volume import Volume

HERE = pathlib.Path(__file__).parent
LABELS = {1: "anterior", 2: "posterior"}
COLORS = np.array([[0, 0, 0], [230, 120, 20], [30, 130, 220]], np.uint8)
METRICS = ("dice", "hd95", "nsd")
Pair = tuple[Volume, Volume]
Scores = dict[str, dict[str, Any]]  # label -> metric -> value


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, default=HERE)
    parser.add_argument(
        "--split", choices=("val", "test"), default="test", help="choose settings on val only"
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="FIELD=VALUE", help="of the recipe, train.steps=500"
    )
    args = parser.parse_args(argv)
    split = files.read_json(args.data / "split.json")
    train(args.data, args.workdir, args.set)
    devices.use_compile_cache()
    segmenter = Segmenter.load(args.workdir)
    scans = {name: pair(args.data, name) for name in split[args.split]}
    found = {
        name: segmenter.predict(scan).volume for name, (scan, _) in progress.track(scans.items(), "predict")
    }
    scores = {name: score(found[name], truth) for name, (_, truth) in scans.items()}
    atlas = most_frequent([pair(args.data, name)[1].array for name in split["train"]])
    floor = {
        name: score(Volume(centred(atlas, truth.shape), truth.affine), truth)
        for name, (_, truth) in scans.items()
    }
    result = {
        "split": args.split,
        "scans": len(scans),
        "network": summary(scores),
        "floor": summary(floor),
        "run": facts(args.workdir, segmenter),
        "of_scan": {name: {label: of["dice"] for label, of in labels.items()} for name, labels in scores.items()},
    }  # fmt: skip
    files.write_json(args.output / "hippocampus.json", result)
    files.write_bytes(args.output / "hippocampus.png", picture(scans, found, scores))
    print(table(result))


def train(data: pathlib.Path, workdir: pathlib.Path, settings: Sequence[str]) -> None:
    """Train by the recipe, or go on; exits with the code of a training that failed."""
    words = [
        "--config=configs/hippocampus.py",
        f"--workdir={workdir}",
        f"--config.splits={data / 'split.json'}",
    ]
    words += [f"--config.source.paths.{kind}={data / kind}" for kind in ("images", "labels")]
    if code := ukbob([*words, *(f"--config.{setting}" for setting in settings)]):
        sys.exit(code)


def pair(data: pathlib.Path, name: str) -> Pair:
    return read_pair(data / "images" / f"{name}.nii.gz", data / "labels" / f"{name}.nii.gz", num_classes=3)


def score(found: Volume, truth: Volume) -> Scores:
    """Dice, HD95 in mm and surface Dice at 1 mm of each label."""
    return scoring.score(found, truth, LABELS, surface=True, tolerance_mm=1.0)


def most_frequent(labels: Sequence[np.ndarray]) -> np.ndarray:
    """The most frequent label of each voxel, `x y z`, where all label maps have the same centre."""
    shape = tuple(np.max([label.shape for label in labels], axis=0))
    votes = np.stack(
        [sum((centred(label, shape) == i).astype(np.int32) for label in labels) for i in range(3)]
    )
    return votes.argmax(0).astype(np.uint8)


def centred(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """`array` cut or filled with 0 to `shape`, around its centre."""
    starts = [(n - size) // 2 for n, size in zip(array.shape, shape)]
    return Volume(array, np.eye(4)).crop(starts, shape).array


def summary(scores: Mapping[str, Scores]) -> dict[str, dict[str, dict[str, Any]]]:
    """Label, or "mean" of both -> metric -> mean, standard deviation, 95 % interval, and labels that failed.

    HD95 also has `penalised`, the mean in which labels that failed count, see `failures`.
    """
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for label in (*LABELS.values(), "mean"):
        chosen = list(LABELS.values()) if label == "mean" else [label]
        rows = [of[name] for of in scores.values() for name in chosen]
        result[label] = {}
        for metric in METRICS:
            values = np.array([[of[name][metric] for name in chosen] for of in scores.values()], np.float64)
            counts = failures.counts(rows, metric)
            result[label][metric] = {
                **spread(values.mean(axis=1)),
                "failed": counts.failed,
                "not_applicable": counts.not_applicable,
            }
            if metric in failures.PENALISED:
                result[label][metric]["penalised"] = failures.penalised_mean(rows, metric)
    return result


def spread(values: np.ndarray) -> dict[str, Any]:
    """Mean, standard deviation and 95 % interval of the values that are not NaN; None where they are too few."""
    defined = values[np.isfinite(values)]
    low, high = statistics.bootstrap_interval(defined)
    return {
        "mean": float(defined.mean()) if defined.size else None,
        "sd": float(defined.std(ddof=1)) if defined.size > 1 else None,
        "interval": [files.json_number(low), files.json_number(high)],
    }


def facts(workdir: pathlib.Path, segmenter: Segmenter) -> dict[str, Any]:
    """What the training was and where it ran."""
    config = files.read_json(workdir / "config.json")
    seconds = [row["time/seconds"] for row in files.read_jsonl(workdir / "timing.jsonl")]
    first = next(iter(files.read_jsonl(workdir / "starts.jsonl")))
    return {
        "seed": config["seed"],
        "steps": config["train"]["steps"],
        "minutes": round(sum(last_of_starts(seconds)) / 60, 1),
        "validation": {
            row["step"]: row["val/dice"]
            for row in files.read_jsonl(workdir / "metrics.jsonl")
            if "val/dice" in row
        },
        "parameters": int(sum(leaf.size for leaf in jax.tree.leaves(segmenter.params))),
        **{name: first[name] for name in ("ukbob_jax", "python", "machine", "devices")},
    }


def last_of_starts(seconds: Sequence[float]) -> list[float]:
    """The seconds at the end of each start of a training, from those of all lines of its log, which start over."""
    return [now for now, after in zip(seconds, [*seconds[1:], 0.0]) if after < now]


def picture(scans: Mapping[str, Pair], found: Mapping[str, Volume], scores: Mapping[str, Scores]) -> bytes:
    """The worst, the middle and the best scan: truth and prediction of each, through the structure."""
    mean = {
        name: np.mean([of[label]["dice"] or 0.0 for label in LABELS.values()]) for name, of in scores.items()
    }
    order = sorted(mean, key=lambda name: mean[name])
    rows, centers = [], []
    for name in (order[0], order[len(order) // 2], order[-1]):
        image, truth = scans[name]
        middle = np.argwhere(truth.array > 0).mean(0).round().astype(int)
        rows += [
            (f"{name}\nmanual", image.array, truth.array),
            (f"network\nDice {mean[name]:.3f}", image.array, found[name].array),
        ]
        centers += [middle, middle]
    return montages.three_planes(rows, centers, (1.0, 1.0, 1.0), COLORS)


def table(result: Mapping[str, Any]) -> str:
    """The summary as a Markdown table, with intervals."""
    lines = [
        "| | label | Dice | HD95 mm, where found | HD95 failed | HD95 mm, penalised | surface Dice 1 mm |",
        "|---|---|---|---|---|---|---|",
    ]
    for who in ("network", "floor"):
        for label, of in result[who].items():
            dice, hd95, nsd = (cell(of[metric]) for metric in METRICS)
            penalised = of["hd95"]["penalised"]
            cells = [
                dice,
                hd95,
                str(of["hd95"]["failed"]),
                "–" if penalised is None else f"{penalised:.3f}",
                nsd,
            ]
            lines.append(f"| {who} | {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(of: Mapping[str, Any]) -> str:
    """A mean and its interval."""
    if of["mean"] is None:
        return "–"
    return f"{of['mean']:.3f} ({of['interval'][0]:.3f} to {of['interval'][1]:.3f})"


if __name__ == "__main__":
    main(sys.argv[1:])
