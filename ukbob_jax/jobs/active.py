"""A campaign of annotation played through: train, choose what to label next, let a label set answer, and again.

For every strategy and seed of `config.active`: the first units are drawn, the recipe's network learns from what is labelled
(255, ignore, elsewhere), is scored, and chooses the next units from the rest of the training split. Written to the workdir:

    start/seedS, STRATEGY/seedS    per round the units (units.csv), who trains (splits.json) and the trainings
    active.jsonl, active.csv       a row per strategy, seed and round: units, voxels, share of the foreground, Dice
    active.summary.json            areas under the budget curves, foreground efficiency, strategies beside each other
    active.png                     Dice by annotated voxels, mean over seeds

The same command resumes: a round that is recorded and a training that is finished are passed over. The first round is the
same for all strategies of a seed, and trained once.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ukbob_jax import files, jobs
from ukbob_jax.active import campaign, learning, records, strategies
from ukbob_jax.active.choices import rising_beta
from ukbob_jax.active.learning import Cohort
from ukbob_jax.active.patches import Unit
from ukbob_jax.active.recipe import pool_of, scorer_of
from ukbob_jax.active.strategies import Pool
from ukbob_jax.data.options import Config
from ukbob_jax.errors import ConfigError
from ukbob_jax.store.reader import Store

START = "start"  # in the place of a strategy: the first round


def run(config: Config, workdir: str) -> None:
    """Play every campaign of `config.active` to its last round.

    Raises:
        ConfigError: a field cannot be used, or the workdir was begun with others.
        FileError: no store, or no grader.
        Preempted: asked to stop; the same command goes on.
    """
    settings, folder = config.active, pathlib.Path(workdir)
    check(config)
    store = Store.open(config.store)
    cohort = learning.cohort_of(config, store, workdir)
    train = cohort.train
    lacking = [subject for subject in train if config.label not in store.rows[subject].labels]
    if lacking:
        raise ConfigError(
            f"config.label: {lacking[0]} has no label set {config.label!r}, which is to answer."
        )
    campaign.check_settings(folder, config, train)
    config = learning.resolved(config, store, cohort, train)
    rows, full = campaign.read(folder)
    for seed in settings.seeds if settings.full else ():
        if seed not in full:
            here = folder / "full" / f"seed{seed}"
            full[seed] = learn(config, here, config.label, train, cohort, seed, 1)
            campaign.write(folder, rows, full)
    total = campaign.foreground(folder, store, train, config.label)
    for seed in settings.seeds:
        for strategy in settings.strategies:
            for number in range(settings.rounds + 1):
                done = campaign.curve(rows, strategy, seed)
                if number < len(done):
                    continue
                row = play(config, folder, cohort, total, strategy, seed, number)
                if row is None:
                    print(f"active: {strategy}, seed {seed}: nothing is left to label", file=sys.stderr)
                    break
                rows.append(row)
                campaign.write(folder, rows, full)
    summary = campaign.write(folder, rows, full)
    for strategy, found in summary["strategies"].items():
        area = "none" if found["mean_area"] is None else f"{found['mean_area']:.4f}"
        print(f"active: {strategy}: mean Dice over the budget {area}", file=sys.stderr)


def check(config: Config) -> None:
    """Refuse settings that cannot be used before anything is trained."""
    settings = config.active
    for name in settings.strategies:
        strategies.find(name, "config.active.strategies")
    if strategies.find(settings.start_by, "config.active.start_by").score:
        raise ConfigError(
            f"config.active.start_by: {settings.start_by!r} takes a trained network; take a random strategy."
        )
    for name, least in (("start", 1), ("budget", 1), ("rounds", 0), ("members", 1)):
        if settings[name] < least:
            raise ConfigError(f"config.active.{name}: {settings[name]} is less than {least}.")
    asked = [strategies.STRATEGIES[name].score for name in settings.strategies]
    if "mutual_information" in asked and settings.members < 2 and settings.ensemble != "checkpoints":
        raise ConfigError(
            "config.active.members: mutual information takes 2 or more networks or draws of dropout."
        )
    if "sentinel" in asked and not settings.grader:
        raise ConfigError("config.active.grader: empty; give the workdir of a trained Sentinel.")
    pool_of(config, {}, [])


def play(
    config: Config,
    folder: pathlib.Path,
    cohort: Cohort,
    total: dict[str, int],
    strategy: str,
    seed: int,
    number: int,
) -> dict[str, Any] | None:
    """One round: choose, label, train, score. None: nothing is left to choose."""
    settings, store = config.active, Store.open(config.store)
    here = place(folder, strategy, seed, number)
    before = [
        unit for n in range(number) for unit in records.read(place(folder, strategy, seed, n) / "units.csv")
    ]
    if not (here / "units.csv").exists():
        pool = pool_with_labels(config, store, cohort.train, before)
        rng = np.random.default_rng([seed, number])
        if number:
            last = place(folder, strategy, seed, number - 1)
            chosen = query(config, store, pool, strategy, last, rng, number)
        else:
            chosen = strategies.choose(settings.start_by, pool, settings.start, rng)
        if not chosen:
            return None
        records.write(here / "units.csv", chosen)
    units = before + records.read(here / "units.csv")
    name = f"{settings.name}_{strategy if number else START}_{seed}"
    subjects = records.write_labels(config.store, config.label, name, units)
    dice = learn(config, here, name, subjects, cohort, seed, members(config))
    cost = campaign.cost(Store.open(config.store), config.label, units, total)
    chosen = units[len(before) :]
    return {
        **{"strategy": strategy, "seed": seed, "round": number, **cost, "dice": files.json_number(dice)},
        "chosen": [[unit.subject, *unit.start, *unit.size] for unit in chosen],
    }


def place(folder: pathlib.Path, strategy: str, seed: int, number: int) -> pathlib.Path:
    """Folder of a round; the first one is shared."""
    return folder / (strategy if number else START) / f"seed{seed}" / f"round{number}"


def members(config: Config) -> int:
    """Trainings per round."""
    return config.active.members if config.active.ensemble == "seeds" else 1


def pool_with_labels(config: Config, store: Store, train: Sequence[str], labelled: Sequence[Unit]) -> Pool:
    """The training split to choose from; foreground-aware random looks at the label set that answers."""
    return pool_of(
        config,
        {subject: store.rows[subject].shape for subject in train},
        labelled,
        segmentation=lambda subject: store.read(subject, f"label/{config.label}"),
        present=lambda subject: store.present(subject, config.label),
    )


def query(
    config: Config,
    store: Store,
    pool: Pool,
    strategy: str,
    last: pathlib.Path,
    rng: np.random.Generator,
    number: int,
) -> list[Unit]:
    """The next units, by the networks of the last round where the strategy asks them."""
    settings = config.active
    scorer = None
    if strategies.STRATEGIES[strategy].score:
        workdirs = [str(last / f"member{m}") for m in range(members(config))]
        scorer = scorer_of(config, store, workdirs)
    beta = rising_beta(number - 1, settings.rounds)
    return strategies.choose(strategy, pool, settings.budget, rng, scorer, beta)


def learn(
    config: Config,
    folder: pathlib.Path,
    label: str,
    subjects: Sequence[str],
    cohort: Cohort,
    seed: int,
    number: int,
) -> float:
    """Train `number` networks on a label set of `subjects`; the Dice of the first."""
    trained = (jobs.find("train").run, jobs.find("evaluate").run)
    return learning.learn(config, folder, subjects, cohort, trained, seed, number, label=label)
