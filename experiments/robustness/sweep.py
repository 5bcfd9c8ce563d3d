"""Does adaptation help where scans go wrong? Dice by corruption, severity and method of adaptation.

    python -m experiments.robustness.sweep --workdir runs/demo --store runs/demo/stores/cohort --split val \
        --phase validation
    python -m experiments.robustness.sweep --workdir runs/demo --store runs/demo/stores/clean --phase test
    ... --minutes 4                     stop after 4 minutes; the same command goes on
    ... --severities 3 5 --subjects 2   a part of it
    ... --network NAME                  under which another network's rows are kept
    ... --guard both --grader WORKDIR   also ETTA with its results graded, `sentinel` or `both`, see docs/methods.md

Settings of each method are chosen on the validation corruptions, by the mean change of Dice; all corruptions of the test
phase are others, and so are its bodies. ETTA runs without its guard against drift there: a limit on it changes no result,
it takes back some, so the limits are compared afterwards. Every scan's result is a line of rows.jsonl as soon as it is
known; the tables and the figure are made from those lines.
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.robustness import results
from experiments.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from experiments.robustness.results import CLEAN
from ukbob_jax import anatomy, devices
from ukbob_jax.evaluation import scoring, tables
from ukbob_jax.inference.adaptation.options import GUARDS
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.jobs import evaluate
from ukbob_jax.store.reader import Store
from ukbob_jax.volumes.volume import Volume

VALIDATION = ("rician_noise", "contrast", "low_resolution")
TEST = tuple(name for name in CORRUPTIONS if name not in VALIDATION)

# name in the table -> method and its settings, tried in the validation phase
CANDIDATES: dict[str, dict[str, Any]] = {
    "off": {"method": "off"},
    **{f"tent lr={lr:g}": {"method": "tent", "learning_rate": lr} for lr in (1e-3, 3e-3, 1e-2)},
    **{
        f"etta {steps} x {lr:g}": {"method": "etta", "steps": steps, "learning_rate": lr, "max_drift": None}
        for steps in (3, 8)
        for lr in (3e-3, 1e-2, 3e-2)
    },
    **{f"bn share={fraction:g}": {"method": "bn", "fraction": fraction} for fraction in (0.1, 0.3, 1.0)},
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="of the training run")
    parser.add_argument("--store", required=True, help="held-out scans with true labels")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    parser.add_argument("--phase", choices=("validation", "test"), required=True)
    parser.add_argument("--network", default="instance_affine", help="name of the network in the tables")
    parser.add_argument("--label", default="manual", help="label set with the truth")
    parser.add_argument("--split", default="test")
    parser.add_argument(
        "--corruptions", nargs="*", choices=[*CORRUPTIONS, CLEAN], help="default: of the phase"
    )
    parser.add_argument("--candidates", nargs="*", choices=CANDIDATES, help="off and others; default: all")
    parser.add_argument("--severities", type=int, nargs="*", choices=SEVERITIES, default=SEVERITIES)
    parser.add_argument("--subjects", type=int, help="default: all of the split")
    parser.add_argument("--guard", choices=GUARDS[1:], help="also run etta with this guard")
    parser.add_argument("--grader", default="", help="workdir of the grader that the guard asks")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    args = parser.parse_args(argv)
    if bool(args.guard) != bool(args.grader):
        parser.error("--guard and --grader go together")
    devices.use_compile_cache()
    deadline = time.monotonic() + 60 * args.minutes
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "rows.jsonl"
    rows = scoring.read_rows(path) if path.exists() else []
    segmenter, store = Segmenter.load(args.workdir), Store.open(args.store)
    tried = candidates(bool(segmenter.model_state.get("batch_stats")))
    tried = {name: tried[name] for name in args.candidates or tried}
    methods = tried if args.phase == "validation" else results.chosen(rows, args.network, tried)
    methods |= with_guard(methods, args.guard, args.grader) if args.guard else {}
    done = {results.key(row) for row in rows}
    for scan in plan(args, store):
        left = {
            name: method
            for name, method in methods.items()
            if results.key({**scan, "method": name}) not in done
        }
        for row in measure(segmenter, store, scan, left, args.label) if left else ():
            rows.append(row)
            with path.open("a") as file:  # whole lines
                file.write(results.line(row))
            told = f"{row['corruption']} {row['severity']} {row['subject']} {row['method']}"
            print(f"{told}: {row['dice']:.3f}, {row['seconds']:.1f} s", file=sys.stderr, flush=True)
            if time.monotonic() > deadline:
                break
        if time.monotonic() > deadline:
            print("time is up; the same command goes on.", file=sys.stderr)
            break
    results.write(args.output, rows)


def candidates(has_statistics: bool) -> dict[str, dict[str, Any]]:
    """What is tried for a network with or without the statistics of batch norm."""
    return {name: method for name, method in CANDIDATES.items() if method["method"] != "bn" or has_statistics}


def with_guard(methods: dict[str, dict[str, Any]], guard: str, grader: str) -> dict[str, dict[str, Any]]:
    """ETTA's settings of `methods`, each with a guard by grades."""
    return {
        f"{name}, guard {guard}": {**settings, "guard": guard, "grader": grader}
        for name, settings in methods.items()
        if settings["method"] == "etta"
    }


def plan(args: argparse.Namespace, store: Store) -> list[dict[str, Any]]:
    """The scans to predict: subject by subject, so that a part of the sweep is balanced."""
    names = args.corruptions or (CLEAN, *(VALIDATION if args.phase == "validation" else TEST))
    wrong = set(names) & set(TEST if args.phase == "validation" else VALIDATION)
    if wrong:
        raise SystemExit(
            f"{sorted(wrong)[0]} belongs to the other phase: settings and results must not share corruptions."
        )
    common = {"network": args.network, "phase": args.phase}
    return [
        {**common, "corruption": name, "severity": severity, "subject": subject}
        for subject in store.split(args.split)[: args.subjects]
        for name in names
        for severity in ((0,) if name == CLEAN else args.severities)
    ]


def measure(
    segmenter: Segmenter, store: Store, scan: dict[str, Any], methods: dict[str, dict], label: str
) -> Iterator[dict[str, Any]]:
    """A row per method, one after the other: mean Dice over the organs, and what the adaptation reported."""
    image, truth = evaluate.read(store, scan["subject"], segmenter.card.contrasts, label)
    pixels, known = image.array, anatomy.to_names(segmenter.card.labels)[truth.array]
    if scan["corruption"] != CLEAN:
        number = int.from_bytes(scan["subject"].encode()[-4:])  # the last characters tell subjects apart
        pixels, known = corrupt(pixels, known, scan["corruption"], scan["severity"], number)
    organs = tables.scored_organs((), segmenter.card.labels)
    for name, method in methods.items():
        start = time.monotonic()
        found = segmenter.predict(Volume(pixels, image.affine), method=method)
        scores = scoring.score(found.volume, Volume(known, truth.affine), organs, surface=False)
        dice = [row["dice"] for row in scores.values() if row["dice"] is not None]
        adaptation = found.report["adaptation"] or {}
        kept = {key: adaptation.get(key) for key in ("accepted", "entropy_before", "entropy_after", "drift")}
        kept |= {key: adaptation[key] for key in ("grade_before", "grade_after") if key in adaptation}
        seconds = round(time.monotonic() - start, 2)
        yield {**scan, "method": name, "dice": float(np.mean(dice)), **kept, "seconds": seconds}


if __name__ == "__main__":
    main(sys.argv[1:])
