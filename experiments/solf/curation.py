"""Does filtering labels make a better network? One network, equal steps, labels chosen in different ways.

    python -m experiments.solf.curation --workdir runs/curation                  all: 126 trainings, and the grader's
    python -m experiments.solf.curation --workdir runs/curation --minutes 5      stop after 5 minutes; again goes on
    ... --levels 0.5 --arms all random solf_2 oracle --seeds 2                   a part of it
    ... --shape 64 64 128 --width 24 --steps 2000                                a larger one, for an accelerator

Arms, by the labels that training leaves out: none (all), as many as solf_2 drawn at random (random), those whose volume
alone is among the extreme 2 percent at either end (volume), SOLF at ε percent (solf_ε), SOLF with robust limits
(robust), those graded below t tenths (sentinel_t; the grader: `grader.py`), what SOLF at 5 percent or a grade below 0.8
finds (either), what both find (both), none but each counts by its grade (weighted), exactly the wrong ones (oracle). Each
is scored by Dice on clean bodies nobody trained on. A seed draws the planted errors, the network's start and the order of
the subjects, alike for all arms, so that arms are compared pairwise.

A label that is left out is ignored where it lies, as the package does. What it lacks stays: of an organ that was cut in
half, the lost half is background, and is learnt as such. In the arms ending in _unknown it is not: there the background
of that subject may be that organ (the loss's `annotated`).

Every training that is done is kept in the workdir and passed over; results are of all that are in it.
"""

import argparse
import functools
import pathlib
import sys
import time

import numpy as np
from scipy import stats

from experiments import small
from experiments.solf import curation_figure, grader
from ukbob_jax import anatomy, devices, files
from ukbob_jax.phantom import label_errors
from ukbob_jax.quality import measure, solf, stack
from ukbob_jax.quality.measures import OrganMeasures

EPSILONS = (0.5, 1, 2, 3, 5)
SHAPES = ("random", "volume", *(f"solf_{e:g}" for e in EPSILONS), "robust")  # arms that look at shapes alone
GRADED = ("sentinel_5", "sentinel_8", "both", "either", "weighted")  # arms that ask the grader
ARMS = ("all", *SHAPES, *GRADED, "oracle")
UNKNOWN = "_unknown"
ALL_ARMS = (
    *ARMS,
    *(arm + UNKNOWN for arm in ("solf_2", "solf_5", "robust", "sentinel_8", "either", "oracle")),
)
FEWEST = 24  # voxels, as in configs/common.py
LEARNT = [anatomy.IDS[name] for name in small.ORGANS]


def main(argv: list[str]) -> None:
    options = parse(argv)
    devices.use_compile_cache()
    start, last = time.monotonic(), 0.0
    wanted = [
        (s, level, arm) for s in range(options.seeds) for level in options.levels for arm in options.arms
    ]
    todo = [task for task in wanted if not score_file(options, *task).exists()]
    work = functools.cache(lambda: Work(options))  # not made where nothing is left to do
    for task in todo:
        begun = time.monotonic()
        if begun - start + last > 60 * options.minutes:
            break
        work().one(*task)
        last = time.monotonic() - begun
        print(f"{task}: {last:.0f} s", file=sys.stderr)
    scores = [files.read_json(path) for path in options.workdir.glob("*/*/*.json")]
    scores.sort(key=lambda score: (-score["level"], ALL_ARMS.index(score["arm"]), score["seed"]))
    rows = table(scores)
    keys = ("subjects", "tests", "shape", "width", "steps", "kinds")
    files.write_json(options.output, {**{k: getattr(options, k) for k in keys}, "rows": rows, "runs": scores})
    files.write_bytes(options.output.with_suffix(".png"), curation_figure.draw(rows))
    print(curation_figure.markdown(rows))


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, help="default: results.json in the workdir")
    parser.add_argument(
        "--minutes", type=float, default=np.inf, help="stop before a training would end later"
    )
    parser.add_argument("--levels", type=float, nargs="+", default=(0.5, 0.2), help="share of organs spoilt")
    parser.add_argument("--kinds", nargs="+", default=label_errors.KINDS, choices=label_errors.KINDS)
    parser.add_argument("--arms", nargs="+", default=ALL_ARMS, choices=ALL_ARMS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--subjects", type=int, default=240, help="whose labels are filtered and trained on")
    parser.add_argument("--tests", type=int, default=20, help="clean bodies that are scored")
    parser.add_argument("--shape", type=int, nargs=3, default=small.Setting.shape, help="voxels, x y z")
    parser.add_argument("--width", type=int, default=small.Setting.width)
    parser.add_argument("--steps", type=int, default=small.Setting.steps)
    parser.add_argument("--grader_steps", type=int, default=3000, help="of the grader, which is trained once")
    options = parser.parse_args(argv)
    options.output = options.output or options.workdir / "results.json"
    return options


def score_file(options: argparse.Namespace, seed: int, level: float, arm: str) -> pathlib.Path:
    return options.workdir / f"{level:g}" / arm / f"{seed}.json"


class Work:
    """What the trainings share: bodies, the compiled network, the noisy labels of the seed and level at hand."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        shape = tuple(options.shape)
        self.bodies = small.cohort(options.workdir, shape, 0, options.subjects)
        self.tests = small.cohort(options.workdir, shape, options.subjects, options.tests)
        setting = small.Setting(shape, options.width, options.steps)
        self.learner = small.Learner(setting, small.TO_CLASSES[small.upper(self.bodies.labels)])
        self.noisy = functools.lru_cache(maxsize=1)(self._noisy)
        self.grades = functools.lru_cache(maxsize=1)(self._grades)

    def one(self, seed: int, level: float, arm: str) -> None:
        """Choose labels, train, score."""
        labels, wrong, measures = self.noisy(seed, level)
        rule = arm.removesuffix(UNKNOWN)
        grades = self.grades(seed, level) if rule in GRADED else np.ones(wrong.shape)
        out = ignored(rule, seed, measures, wrong, grades)
        out[:, 0] = False
        begun = time.monotonic()
        silent = out if arm.endswith(UNKNOWN) else np.zeros_like(out)
        unknown = np.pad(silent[:, LEARNT], ((0, 0), (1, 0)))  # n k, in the network's classes
        weights = (
            np.pad(grades[:, LEARNT], ((0, 0), (1, 0)), constant_values=1) if rule == "weighted" else None
        )
        stream = small.batches(self.bodies.images, self.targets(labels, out), seed, unknown, weights)
        params, losses = self.learner.train(stream, seed)
        truth = small.TO_CLASSES[small.upper(self.tests.labels)]
        small.write_scores(
            score_file(self.options, seed, level, arm),
            self.learner.dice(params, self.tests.images, truth),
            level=level, arm=arm, seed=seed, losses=losses, seconds=round(time.monotonic() - begun, 1),
            labels=int((np.asarray(measures.voxels)[:, LEARNT] > 0).sum()), wrong=int(wrong[:, LEARNT].sum()),
            ignored=int(out[:, LEARNT].sum()), ignored_wrong=int((out & wrong)[:, LEARNT].sum()),
        )  # fmt: skip

    def _noisy(self, seed: int, level: float) -> tuple[np.ndarray, np.ndarray, OrganMeasures]:
        """Label maps with planted errors, which labels are wrong (n, num_classes), and what the filter measures."""
        labels, found = self.bodies.labels.copy(), []
        wrong = np.zeros((len(labels), anatomy.NUM_CLASSES), bool)
        for i, label in enumerate(labels):
            number = seed * len(labels) + i
            labels[i], errors = label_errors.plant(label, number, share=level, kinds=self.options.kinds)
            wrong[i, [error.organ for error in errors]] = True
            found.append(measure(labels[i], self.bodies.spacing_mm))
        return labels, wrong, solf.drop_small_organs(stack(found), FEWEST)

    def _grades(self, seed: int, level: float) -> np.ndarray:
        """Predicted Dice of the noisy labels (n, num_classes); 1 where an organ is not learnt or not there."""
        path = self.options.workdir / f"grades_{level:g}_{seed}.npy"
        if not path.exists():
            shape = tuple(self.options.shape)
            trained = grader.trained(self.options.workdir, shape, self.options.grader_steps)
            partial = path.with_suffix(".partial.npy")
            np.save(partial, grader.grades(trained, self.noisy(seed, level)[0], shape, LEARNT))
            partial.replace(path)
        return np.load(path)

    def targets(self, labels: np.ndarray, out: np.ndarray) -> np.ndarray:
        """What is learnt: classes of the network, 255 where a label is left out."""
        lookup = np.tile(small.TO_CLASSES, (len(labels), 1))
        lookup[:, : anatomy.NUM_CLASSES][out] = anatomy.IGNORE
        return np.stack([own[label] for own, label in zip(lookup, small.upper(labels))])


def ignored(
    arm: str, seed: int, measures: OrganMeasures, wrong: np.ndarray, grades: np.ndarray
) -> np.ndarray:
    """bool (n, num_classes): the labels this arm does not train on; `grades` are of the same shape."""
    if arm in ("all", "weighted"):
        return np.zeros(wrong.shape, bool)
    if arm.startswith("sentinel_"):
        return grades < float(arm.removeprefix("sentinel_")) / 10
    if arm in ("either", "both"):
        by_shape, by_grade = (ignored(a, seed, measures, wrong, grades) for a in ("solf_5", "sentinel_8"))
        return by_shape | by_grade if arm == "either" else by_shape & by_grade
    if arm == "oracle":
        return wrong.copy()
    if arm == "robust":
        return solf.flag(measures, solf.fit_robust(measures))
    if arm == "volume":
        return solf.outside(measures, solf.fit(measures, 2.0))[..., 0]
    if arm == "random":
        as_many = ignored("solf_2", seed, measures, wrong, grades)[:, 1:].sum()
        present = np.argwhere(np.asarray(measures.voxels)[:, 1:] > 0) + [0, 1]
        drawn = np.random.default_rng(seed).choice(len(present), as_many, replace=False)
        flagged = np.zeros(wrong.shape, bool)
        flagged[tuple(present[drawn].T)] = True
        return flagged
    return solf.flag(measures, solf.fit(measures, float(arm.removeprefix("solf_"))))


def table(scores: list[dict]) -> list[dict]:
    """A row per level and arm: mean over seeds with its standard error, and against `all` of the same seeds."""
    rows = []
    for level, arm in dict.fromkeys((s["level"], s["arm"]) for s in scores):
        own = {s["seed"]: s for s in scores if (s["level"], s["arm"]) == (level, arm)}
        base = {s["seed"]: s["dice"] for s in scores if (s["level"], s["arm"]) == (level, "all")}
        dice, error = mean_and_error([s["dice"] for s in own.values()])
        gains = [s["dice"] - base[seed] for seed, s in own.items() if seed in base]
        gain, gain_error = mean_and_error(gains) if arm != "all" else (None, None)
        p = float(stats.ttest_1samp(gains, 0).pvalue) if gain_error else None
        counts = {key: float(np.mean([s[key] for s in own.values()])) for key in COUNTS}
        rows.append(
            {"level": level, "arm": arm, "seeds": len(own), "dice": dice, "error": error}
            | {"gain": gain, "gain_error": gain_error, "p": p, **counts}
        )
    return rows


COUNTS = ("labels", "wrong", "ignored", "ignored_wrong")  # of the organs that are learnt, mean over seeds


def mean_and_error(values: list[float]) -> tuple[float | None, float | None]:
    """Mean, and its standard error where there are two values or more."""
    if not values:
        return None, None
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(np.mean(values)), error


if __name__ == "__main__":
    main(sys.argv[1:])
