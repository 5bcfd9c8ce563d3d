"""Does filtering labels make a better network? One network, equal steps, labels chosen in different ways.

    python experiments/solf/curation.py --workdir runs/curation                  the default: small, hours on two cores
    python experiments/solf/curation.py --workdir runs/curation --minutes 5      stop after 5 minutes; again goes on
    ... --levels 0.3 --arms all random solf_2 oracle --seeds 2                   a part of it
    ... --shape 64 32 128 --steps 2000 --subjects 1000                           a larger one, for an accelerator

Arms, by the labels that training ignores: none (all), as many as solf_2 drawn at random (random), those whose volume
alone is among the extreme 2 percent at either end (volume), SOLF at ε percent (solf_ε), SOLF with robust limits
(robust), exactly the wrong ones (oracle). Each is scored by Dice on clean bodies nobody trained on. Results are written
as they come.
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from configs import swin_bob
from ukbob_jax import anatomy, devices, files
from ukbob_jax.jobs import evaluate, ingest, train
from ukbob_jax.jobs.demo import changed
from ukbob_jax.quality import cohort, planted, solf, stack, verdicts
from ukbob_jax.quality.measures import OrganMeasures
from ukbob_jax.settings import resolve
from ukbob_jax.store.reader import Store

EPSILONS = (0.5, 1, 2, 3, 5)
ARMS = ("all", "random", "volume", *(f"solf_{e:g}" for e in EPSILONS), "robust", "oracle")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, help="default: results.json in the workdir")
    parser.add_argument("--minutes", type=float, default=np.inf, help="start no training after so many")
    parser.add_argument("--levels", type=float, nargs="+", default=(0.1, 0.3), help="share of organs spoilt")
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--subjects", type=int, default=240, help="whose labels are filtered and trained on")
    parser.add_argument("--tests", type=int, default=6, help="clean bodies that are scored")
    parser.add_argument("--shape", type=int, nargs=3, default=(32, 32, 64), help="voxels, x y z")
    parser.add_argument("--steps", type=int, default=120)
    options = parser.parse_args(argv)
    options.output = options.output or options.workdir / "results.json"
    devices.use_compile_cache()
    until = time.monotonic() + 60 * options.minutes
    todo = [(s, level, arm) for s in range(options.seeds) for level in options.levels for arm in options.arms]
    for seed, level, arm in todo:
        folder = options.workdir / f"{level:g}" / arm / str(seed)
        if (folder / "score.json").exists():
            continue
        if time.monotonic() > until:
            break
        one(options, level, arm, seed, folder)
        summarise(options, todo)
    summarise(options, todo)


def one(options: argparse.Namespace, level: float, arm: str, seed: int, folder: pathlib.Path) -> None:
    """Make what is missing: stores, verdicts, the network, its scores."""
    config = recipe(options, level, seed)
    clean = changed(
        config,
        {
            "store": f"{options.workdir}/stores/clean",
            "source.first": options.subjects,  # bodies that no training subject has
            "source.count": options.tests,
            "source.errors": 0.0,
            "source.splits": {"test": options.tests},
            "evaluate.name": "clean",
        },
    )
    for made in (config, clean):
        if not pathlib.Path(made.store, "manifest.jsonl").exists():
            ingest.run(made, str(options.workdir))
    share = verdict_file(config, arm, seed, folder / "solf.jsonl")
    training = changed(config, {"data.verdicts": str(folder / "solf.jsonl")})
    train.run(training, str(folder))
    evaluate.run(clean, str(folder))
    rows = files.read_jsonl(folder / "evaluation" / "clean.jsonl")
    organs = {name: mean([r["dice"] for r in rows if r["organ"] == name]) for name in config.organs}
    found = {"level": level, "arm": arm, "seed": seed, "dice": mean(list(organs.values())), "organs": organs}
    files.write_json(folder / "score.json", found | share)


def recipe(options: argparse.Namespace, level: float, seed: int):
    """The demo's network and cohort, with this experiment's sizes."""
    config = changed(
        swin_bob.get_config("demo"),
        {
            "seed": seed,
            "store": f"{options.workdir}/stores/{level:g}",
            "source.count": options.subjects,
            "source.shape": tuple(options.shape),
            "source.splits": {},
            "source.spoilt": 1.0,
            "source.errors": level,
            "data.crop": tuple(options.shape),
            "data.val_split": "",
            "train.steps": options.steps,
            "optimizer.warmup_steps": options.steps // 6,
            "train.eval_every": 10 * options.steps,
            "train.checkpoint_every": options.steps,
            "evaluate.adapt": ("off",),
            "evaluate.surface": False,
            "evaluate.pictures": 0,
        },
    )
    return resolve(changed(config, {"data.store": config.store}), options.workdir)


def verdict_file(config, arm: str, seed: int, path: pathlib.Path) -> dict:
    """Write the labels that this arm ignores; returns how many, and how many of them are wrong."""
    store = Store.open(config.store)
    subjects = list(store.split("train"))
    found, failures = cohort.measured(
        store, subjects, config.label, verdicts.folder(store.path, config.label)
    )
    if failures:
        raise SystemExit(f"{store.path}: {failures[0]['reason']}")
    measures = solf.large(stack([found[name] for name in subjects]), config.solf.min_voxels)
    errors = [
        {"subject": name, **error} for name in subjects for error in store.rows[name]["quality"]["planted"]
    ]
    kind, _ = planted.truth(subjects, errors, anatomy.NUM_CLASSES)
    flagged = ignored(arm, seed, measures, kind >= 0)
    flagged[:, 0] = False
    files.write_jsonl(
        path,
        ({"subject": subjects[i], "organ": int(organ), "flagged": True} for i, organ in np.argwhere(flagged)),
    )
    return {
        "ignored": int(flagged.sum()),
        "ignored_wrong": int((flagged & (kind >= 0)).sum()),
        "wrong": len(errors),
    }


def ignored(arm: str, seed: int, measures: OrganMeasures, wrong: np.ndarray) -> np.ndarray:
    """bool (n, num_classes): the labels this arm does not train on."""
    if arm == "all":
        return np.zeros(wrong.shape, bool)
    if arm == "oracle":
        return wrong.copy()
    if arm == "robust":
        return solf.flag(measures, solf.fit_robust(measures))
    if arm == "volume":
        return solf.outside(measures, solf.fit(measures, 2.0))[..., 0]
    if arm == "random":
        as_many = ignored("solf_2", seed, measures, wrong)[:, 1:].sum()
        present = np.argwhere(np.asarray(measures.voxels)[:, 1:] > 0) + [0, 1]
        drawn = np.random.default_rng(seed).choice(len(present), as_many, replace=False)
        flagged = np.zeros(wrong.shape, bool)
        flagged[tuple(present[drawn].T)] = True
        return flagged
    return solf.flag(measures, solf.fit(measures, float(arm.removeprefix("solf_"))))


def mean(values: list[float | None]) -> float:
    """Of the values there are."""
    return float(np.mean([value for value in values if value is not None]))


def summarise(options: argparse.Namespace, todo: list[tuple[int, float, str]]) -> None:
    """Mean and standard error over the seeds that are done, to the output and the terminal."""
    scores = [
        files.read_json(path)
        for seed, level, arm in todo
        if (path := options.workdir / f"{level:g}" / arm / str(seed) / "score.json").exists()
    ]
    rows = []
    for level in options.levels:
        for arm in options.arms:
            own = [s for s in scores if (s["level"], s["arm"]) == (level, arm)]
            dice = np.array([s["dice"] for s in own])
            if own:
                error = float(dice.std(ddof=1) / np.sqrt(len(dice))) if len(dice) > 1 else None
                same = {key: own[0][key] for key in ("ignored", "ignored_wrong", "wrong")}
                rows.append(
                    {
                        "level": level,
                        "arm": arm,
                        "seeds": len(own),
                        "dice": float(dice.mean()),
                        "error": error,
                    }
                    | same
                )
    size = {key: getattr(options, key) for key in ("subjects", "tests", "shape", "steps")}
    files.write_json(options.output, {**size, "rows": rows, "runs": scores})
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main(sys.argv[1:])
