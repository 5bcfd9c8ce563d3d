"""How much do more labelled scans help? One recipe on nested shares of the training subjects, equal steps.

    python -m experiments.scaling.scaling --workdir runs/scaling                    the embedded cohort, an hour on two cores
    python -m experiments.scaling.scaling --workdir runs/scaling --minutes 5        stop after 5 minutes; again goes on
    ... --recipe configs/swin_bob.py --config.store=STORE                           a store of your own
    ... --recipe configs/swin_bob.py --config.store=STORE --then configs/btcv.py --then_store BTCV    the paper's study:
                                          pre-train on each share, fine-tune the result on another dataset, score that

A larger share holds every subject of a smaller one. Held-out subjects are the recipe's, the same for all. Results are
written as they come: `results.json` and `results.png` in the workdir, or where --output says.
"""

import argparse
import json
import pathlib
import sys
import time

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from ukbob_jax import devices, files, settings
from ukbob_jax.jobs import ingest, train
from ukbob_jax.splits import digest
from ukbob_jax.store.reader import Store

# The embedded cohort with true labels: what is asked here is how many, not how clean.
PHANTOM = {"label": "manual", "data.flagged": "off", "source.errors": 0.0}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument(
        "--output", type=pathlib.Path, help="of the results; default: results.json in the workdir"
    )
    parser.add_argument("--recipe", default="configs/swin_bob.py:demo")
    parser.add_argument("--then", default="", help="recipe to fine-tune with, and to score")
    parser.add_argument("--then_store", default="", help="its store")
    parser.add_argument("--shares", type=int, nargs="+", default=(10, 20, 30, 50, 70, 100), help="percent")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=np.inf, help="start no training after so many")
    options, overrides = parser.parse_known_args(argv)
    options.output = options.output or options.workdir / "results.json"
    devices.use_compile_cache()
    until = time.monotonic() + 60 * options.minutes
    todo = [(seed, share) for seed in range(options.seeds) for share in options.shares]
    for seed, share in todo:
        folder = options.workdir / f"{share:03d}" / str(seed)
        if (folder / "score.json").exists():
            continue
        if time.monotonic() > until:
            break
        one(options, overrides, seed, share, folder)
    summarise(options, todo)


def one(
    options: argparse.Namespace, overrides: list[str], seed: int, share: int, folder: pathlib.Path
) -> None:
    """Train on a share of the subjects, and score."""
    config = recipe(options.recipe, overrides, options.workdir, seed)
    if config.job == "demo":
        config = settings.with_fields(config, PHANTOM)
    if "source" in config and not pathlib.Path(config.store, "manifest.jsonl").exists():
        ingest.run(config, str(options.workdir))
    subjects, held_out = split(Store.open(config.store), config, seed, share)
    files.write_json(folder / "split.json", {"train": subjects, "val": held_out})
    train.run(settings.with_fields(config, {"splits": str(folder / "split.json")}), str(folder))
    scored = folder
    if options.then:
        scored = folder / "then"
        changes = {"init": str(folder), "init_new": ("head", "stem_average"), "store": options.then_store}
        after = recipe(options.then, [], scored, seed)
        train.run(settings.with_fields(after, changes), str(scored))
    files.write_json(
        folder / "score.json", {"seed": seed, "share": share, "subjects": len(subjects), "dice": best(scored)}
    )


def recipe(path: str, overrides: list[str], workdir: pathlib.Path, seed: int):
    config, _ = settings.parse([f"--config={path}", f"--workdir={workdir}", *overrides], usage=__doc__)
    return settings.with_fields(settings.resolve(config, workdir), {"seed": seed})


def split(store: Store, config, seed: int, share: int) -> tuple[list[str], list[str]]:
    """The first `share` percent of the training subjects in an order of their own, and those held out."""
    order = sorted(
        store.split(config.data.train_split), key=lambda name: digest({"seed": seed, "subject": name})
    )
    number = max(1, round(len(order) * share / 100))
    return order[:number], list(store.split(config.data.val_split))


def best(workdir: pathlib.Path) -> float:
    """The best mean Dice of a training's evaluations."""
    rows = files.read_jsonl(workdir / "metrics.jsonl")
    return max(row["val/dice"] for row in rows if row.get("val/dice") is not None)


def summarise(options: argparse.Namespace, todo: list[tuple[int, int]]) -> None:
    """What is done so far, as numbers and as a curve."""
    paths = [options.workdir / f"{share:03d}" / str(seed) / "score.json" for seed, share in todo]
    runs = [files.read_json(path) for path in paths if path.exists()]
    rows = []
    for share in sorted({run["share"] for run in runs}):
        dice = [run["dice"] for run in runs if run["share"] == share]
        subjects = next(run["subjects"] for run in runs if run["share"] == share)
        error = float(np.std(dice, ddof=1) / np.sqrt(len(dice))) if len(dice) > 1 else None
        rows.append({"share": share, "subjects": subjects, "seeds": len(dice), "dice": float(np.mean(dice))})
        rows[-1]["error"] = error  # of the mean, over seeds
        print(json.dumps(rows[-1]))
    files.write_json(
        options.output, {"recipe": options.recipe, "then": options.then, "rows": rows, "runs": runs}
    )
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    axes.scatter(
        [run["subjects"] for run in runs], [run["dice"] for run in runs], s=14, color="0.6", label="a seed"
    )
    axes.errorbar(
        [row["subjects"] for row in rows], [row["dice"] for row in rows], [row["error"] or 0 for row in rows],
        marker="o", capsize=3, label="mean and its standard error",
    )  # fmt: skip
    axes.set(xscale="log", xlabel="training subjects", ylabel="mean Dice, held out")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(options.output.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main(sys.argv[1:])
