"""Does adaptation help where scans go wrong? Dice by corruption, severity and way of adapting.

    python experiments/robustness/sweep.py --workdir runs/demo --store runs/demo/stores/clean --phase validation
    python experiments/robustness/sweep.py --workdir runs/demo --store runs/demo/stores/clean --phase test
    ... --minutes 4                     stop after 4 minutes; the same command goes on
    ... --severities 3 5 --subjects 2   a part of it
    ... --network NAME                  under which another network's rows are kept

Settings of ETTA and Tent are chosen on the validation corruptions, by the mean change of Dice; all corruptions of the
test phase are others. Every scan's result is a line of rows.jsonl as soon as it is known; the tables and the figure are
made from those lines.
"""

import argparse
import pathlib
import sys
import time
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from experiments.robustness import results
from experiments.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from experiments.robustness.results import CLEAN
from ukbob_jax import anatomy, devices, files
from ukbob_jax.evaluation import scoring
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.jobs import evaluate
from ukbob_jax.store.reader import Store
from ukbob_jax.volumes.volume import Volume

VALIDATION = ("rician_noise", "contrast", "low_resolution")
TEST = tuple(name for name in CORRUPTIONS if name not in VALIDATION)

# name in the table -> way and its settings, tried in the validation phase
CANDIDATES: dict[str, dict[str, Any]] = {
    "off": {"way": "off"},
    **{f"tent lr={lr:g}": {"way": "tent", "learning_rate": lr} for lr in (1e-3, 3e-3, 1e-2)},
    **{f"etta lr={lr:g}": {"way": "etta", "steps": 3, "learning_rate": lr} for lr in (3e-3, 1e-2, 3e-2)},
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
    parser.add_argument("--severities", type=int, nargs="*", choices=SEVERITIES, default=SEVERITIES)
    parser.add_argument("--subjects", type=int, help="default: all of the split")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    args = parser.parse_args(argv)
    devices.use_compile_cache()
    deadline = time.monotonic() + 60 * args.minutes
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "rows.jsonl"
    rows = files.read_jsonl(path) if path.exists() else []
    segmenter, store = Segmenter.load(args.workdir), Store.open(args.store)
    ways = CANDIDATES if args.phase == "validation" else results.chosen(rows, args.network, CANDIDATES)
    done = {results.key(row) for row in rows}
    for scan in plan(args, store):
        left = [name for name in ways if results.key({**scan, "way": name}) not in done]
        if not left:
            continue
        if time.monotonic() > deadline:
            print("time is up; the same command goes on.", file=sys.stderr)
            break
        found = measure(segmenter, store, scan, {name: ways[name] for name in left}, args.label)
        rows += found
        with path.open("a") as file:  # one scan at a time, whole lines
            file.write("".join(results.line(row) for row in found))
        print(f"{scan['corruption']} {scan['severity']} {scan['subject']}: " + told(found), file=sys.stderr)
    results.write(args.output, rows)


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
    segmenter: Segmenter, store: Store, scan: dict[str, Any], ways: dict[str, dict], label: str
) -> list[dict[str, Any]]:
    """A row per way: mean Dice over the organs, and what the adaptation reported."""
    image, truth = evaluate.read(store, scan["subject"], segmenter.meta["contrasts"], label)
    pixels, known = image.array, anatomy.to_names(segmenter.names)[truth.array]
    if scan["corruption"] != CLEAN:
        number = int.from_bytes(scan["subject"].encode()[-4:])  # the last characters tell subjects apart
        pixels, known = corrupt(pixels, known, scan["corruption"], scan["severity"], number)
    organs = evaluate.scored_organs((), segmenter.names)
    rows = []
    for name, way in ways.items():
        start = time.monotonic()
        found = segmenter.predict(Volume(pixels, image.affine), way)
        scores = scoring.score(found.volume, Volume(known, truth.affine), organs, surface=False)
        dice = [row["dice"] for row in scores.values() if row["dice"] is not None]
        adaptation = found.report["adaptation"] or {}
        kept = {key: adaptation.get(key) for key in ("accepted", "entropy_before", "entropy_after", "drift")}
        rows.append(
            {
                **scan,
                "way": name,
                "dice": float(np.mean(dice)),
                **kept,
                "seconds": round(time.monotonic() - start, 2),
            }
        )
    return rows


def told(rows: list[dict[str, Any]]) -> str:
    """One line for the log."""
    return ", ".join(f"{row['way']} {row['dice']:.3f}" for row in rows)


if __name__ == "__main__":
    main(sys.argv[1:])
