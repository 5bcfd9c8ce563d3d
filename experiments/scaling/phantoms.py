"""The scaling study on phantoms, short enough to repeat: true labels, nested shares of few bodies, equal steps.

    python -m experiments.scaling.phantoms --workdir runs/scaling                 18 short trainings, a quarter of an hour
    python -m experiments.scaling.phantoms --workdir runs/scaling --minutes 5     stop after 5 minutes; again goes on

The network and the trainings are those of `experiments/small.py`; `scaling.py` runs whole recipes on real stores.
"""

import argparse
import functools
import pathlib
import sys
import time

import numpy as np

from experiments import small
from experiments.scaling import scaling
from ukbob_jax import devices

FIRST_TEST = 240  # number of the first body that is scored; the trainings' are below


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, help="default: results.json in the workdir")
    parser.add_argument(
        "--bodies", type=pathlib.Path, help="folder where they are kept; default: the workdir"
    )
    parser.add_argument(
        "--minutes", type=float, default=np.inf, help="stop before a training would end later"
    )
    parser.add_argument("--shares", type=int, nargs="+", default=(5, 10, 20, 40, 70, 100), help="percent")
    parser.add_argument("--subjects", type=int, default=100, help="that are 100 percent")
    parser.add_argument("--tests", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=int, default=small.Setting.width)
    parser.add_argument("--steps", type=int, default=small.Setting.steps)
    options = parser.parse_args(argv)
    options.output = options.output or options.workdir / "results.json"
    devices.use_compile_cache()
    start, last = time.monotonic(), 0.0
    todo = [(seed, share) for seed in range(options.seeds) for share in options.shares]
    made = functools.cache(lambda: parts(options))
    for seed, share in todo:
        path = options.workdir / f"{share:03d}" / str(seed) / "score.json"
        begun = time.monotonic()
        if path.exists():
            continue
        if begun - start + last > 60 * options.minutes:
            break
        one(*made(), seed, share, path, options.subjects)
        last = time.monotonic() - begun
        print(f"{share} %, seed {seed}: {last:.0f} s", file=sys.stderr)
    options.recipe, options.then = f"experiments/small.py, width {options.width}, {options.steps} steps", ""
    scaling.summarise(options, todo)


def parts(options: argparse.Namespace) -> tuple[small.Cohort, small.Cohort, small.Learner]:
    """Bodies to train on, bodies to score, the network. Loss weights are those of the curation experiment's cohort."""
    setting = small.Setting(width=options.width, steps=options.steps)
    folder = options.bodies or options.workdir
    bodies = small.cohort(folder, setting.shape, 0, FIRST_TEST)
    tests = small.cohort(folder, setting.shape, FIRST_TEST, options.tests)
    return bodies, tests, small.Learner(setting, small.TO_CLASSES[small.upper(bodies.labels)])


def one(
    bodies: small.Cohort, tests: small.Cohort, learner: small.Learner, seed: int, share: int,
    path: pathlib.Path, subjects: int,
) -> None:  # fmt: skip
    """Train on a share of the bodies, and score."""
    chosen = nested(subjects, seed, share)
    labels = small.TO_CLASSES[small.upper(bodies.labels)]
    params, _ = learner.train(small.batches(bodies.images[chosen], labels[chosen], seed), seed)
    dice = learner.dice(params, tests.images, small.TO_CLASSES[small.upper(tests.labels)])
    small.write_scores(path, dice, seed=seed, share=share, subjects=len(chosen))


def nested(subjects: int, seed: int, share: int) -> np.ndarray:
    """Numbers of the bodies of a share: the first in an order of the seed's, out of `subjects` of its own."""
    order = np.random.default_rng(seed).permutation(FIRST_TEST)[:subjects]
    return order[: max(1, round(subjects * share / 100))]


if __name__ == "__main__":
    main(sys.argv[1:])
