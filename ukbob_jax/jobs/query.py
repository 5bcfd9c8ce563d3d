"""What to annotate next, for a store without labels to answer: trained networks score its scans, a person labels.

Writes to `config.query.output`: `query.csv`, the units from the most wanted on, and per scan `SUBJECT.nii.gz`, whose voxels
hold the rank of the unit that they belong to, to open beside the image in any annotation program.
"""

import functools
import pathlib
import sys
from typing import Any

import numpy as np

from ukbob_jax import splits
from ukbob_jax.active import records, strategies
from ukbob_jax.active.committee import Scorer
from ukbob_jax.active.recipe import pool_of, scorer_of
from ukbob_jax.data.options import Config
from ukbob_jax.errors import ConfigError
from ukbob_jax.store.reader import Store

TABLE = "query.csv"


def run(config: Config, workdir: str) -> None:
    """Choose `config.active.budget` units by the first of `config.active.strategies`.

    Raises:
        ConfigError: a field cannot be used, or no scan is left to annotate.
        FileError: no store, no trained network, or the list of what is labelled cannot be used.
    """
    settings, asked = config.active, config.query
    store, folder = Store.open(config.store), pathlib.Path(asked.output)
    if len(settings.strategies) != 1:
        raise ConfigError(f"config.active.strategies: name one to choose by, not {len(settings.strategies)}.")
    name = settings.strategies[0]
    strategy = strategies.find(name, "config.active.strategies")
    subjects = splits.named(config, store, asked.split) if asked.split else store.subjects
    labelled = records.read(asked.labelled, shapes(store, store.subjects)) if asked.labelled else []
    left = [subject for subject in subjects if config.label not in store.rows[subject].labels]
    if not left:
        raise ConfigError(
            f"config.label: every scan has a label set {config.label!r}. Name the one that persons make, or other scans "
            "with config.query.split."
        )
    scorer = None
    if strategy.score or strategy.choice == "foreground":
        if not asked.workdirs:
            raise ConfigError("config.query.workdirs: empty; give the workdirs of trainings.")
        scorer = scorer_of(config, store, tuple(asked.workdirs))
    of_these = [unit for unit in labelled if unit.subject in set(left)]
    pool = pool_of(config, shapes(store, left), of_these, **({} if scorer is None else predicted(scorer)))
    rng = np.random.default_rng(config.seed)
    units = strategies.choose(name, pool, settings.budget, rng, scorer, asked.beta)
    if not units:
        raise ConfigError(
            f"config.query.labelled: {asked.labelled} leaves nothing to annotate in these scans."
        )
    records.write(folder / TABLE, units)
    records.write_boxes(folder, store, units)
    scans = len({unit.subject for unit in units})
    print(
        f"query: {len(units)} of {settings.budget} units in {scans} scans, {folder / TABLE}", file=sys.stderr
    )


def shapes(store: Store, subjects: Any) -> dict[str, tuple[int, int, int]]:
    """Voxels x y z of each scan."""
    return {subject: store.rows[subject].shape for subject in subjects}


def predicted(scorer: Scorer) -> dict[str, Any]:
    """Structures as the first network sees them, for foreground-aware random."""

    @functools.lru_cache(maxsize=8)
    def segmentation(subject: str) -> np.ndarray:
        return np.asarray(scorer.segment(subject).labels)

    def present(subject: str) -> list[int]:
        return [i for i in np.unique(segmentation(subject)).tolist() if i]

    return {"segmentation": segmentation, "present": present}
