"""One training of a campaign: who learns, on which label set, and the Dice that it reaches."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ukbob_jax import files, splits
from ukbob_jax.data.options import Config
from ukbob_jax.errors import ConfigError
from ukbob_jax.settings import with_fields
from ukbob_jax.store.reader import Store

Job = Callable[[Config, str], None]  # `run` of a job


class Cohort(NamedTuple):
    """Who takes part: subjects to choose from, to validate with, and to score every training on."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    evaluated: tuple[str, ...]


def cohort_of(config: Config, store: Store, workdir: str) -> Cohort:
    """The splits of the recipe.

    Raises:
        ConfigError: scans to choose from would also be scored, or there are regions in place of classes.
    """
    if config.regions:
        raise ConfigError("config.regions: empty it; this job is for classes that exclude each other.")
    train, held_out = splits.choose(config, store, workdir)
    evaluated = splits.named(config, store, config.evaluate.split)
    if set(evaluated) & set(train):
        raise ConfigError(f"config.evaluate.split: {config.evaluate.split!r} has scans to choose from.")
    return Cohort(train, held_out, evaluated)


def resolved(config: Config, store: Store, cohort: Cohort, labelled: Sequence[str]) -> Config:
    """The recipe of every training: classes are those of all `labelled` scans, since a first round may lack some."""
    changes: dict[str, Any] = {"data.flagged": "off", "folds": 0, "fold": 0}
    if not config.model.out_channels and not config.data.organs and not config.data.names:
        ids = [store.present(subject, config.label) for subject in labelled]
        ids += [store.present(subject, config.data.val_label) for subject in cohort.held_out]
        changes["model.out_channels"] = 1 + max(max(found, default=0) for found in ids)
    return with_fields(config, changes)


def learn(
    config: Config,
    folder: pathlib.Path,
    subjects: Sequence[str],
    cohort: Cohort,
    jobs: tuple[Job, Job],
    seed: int,
    number: int = 1,
    **changes: Any,
) -> float:
    """Train `number` networks, in `folder/member0` and so on, and score the first; what is finished is passed over.

    Args:
        config: the recipe.
        folder: of these trainings.
        subjects: that are learnt from.
        cohort: who validates and who is scored.
        jobs: what trains and what scores.
        seed: of the first network; the next ones have the next seeds.
        number: of networks.
        **changes: of the recipe's fields.
    Returns:
        Mean Dice over the scans of `config.evaluate.split`; NaN: none has a structure.
    """
    path, split = folder / "splits.json", config.evaluate.split
    sides = {"train": list(subjects), "val": list(cohort.held_out)}
    if split in splits.SIDES:  # others are the store's own
        sides[split] = list(cohort.evaluated)
    files.write_json(path, sides)
    train, evaluate = jobs
    for member in range(number):
        here = folder / f"member{member}"
        here.mkdir(parents=True, exist_ok=True)
        own = {"splits": str(path), "seed": seed * number + member, **changes}
        train(with_fields(config, own), str(here))
    scored = {"splits": str(path), "evaluate.methods": ("off",)}
    evaluate(with_fields(config, scored), str(folder / "member0"))
    summary = folder / "member0" / "evaluation" / f"{config.evaluate.name}.summary.json"
    dice = files.read_json(summary)["off"]["dice"]
    return float("nan") if dice is None else float(dice)
