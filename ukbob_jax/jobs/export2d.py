"""Slices of a store as 2D images and masks, in the layout of SA-Med2D-20M or the one SAM-Med2D's loader reads.

Written to `config.export2d.output`; docs/export2d.md tells what every file is. A large store is exported by several
processes or machines, each with its share (`config.export2d.process` of `.processes`), or over dask (`config.cluster`); a
last run without shares makes the tables. Subjects whose files are there are passed over, so the same command resumes.
"""

import functools
import pathlib
import sys
import time
from typing import Any

import ml_collections

from ukbob_jax import advice, cluster, options, processes
from ukbob_jax.errors import ConfigError, FileError, ValuesError
from ukbob_jax.export2d import classes, manifest, naming, writing
from ukbob_jax.export2d.options import Export2dOptions, field
from ukbob_jax.export2d.writing import Plan
from ukbob_jax.failures import Failure, Failures, failure
from ukbob_jax.progress import track
from ukbob_jax.store.reader import Store


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Export label set `config.label` of `config.store` by `config.export2d`.

    Raises:
        ConfigError: no subject has the label set, a contrast or class has no code or id, or the folder has other rules.
        FileError: the folder cannot be written; or all subjects failed.
        SomeFailed: some subjects failed; `failures.jsonl` in the workdir lists them.
    """
    with advice.fields("export2d", options.names(Export2dOptions)):
        settings = Export2dOptions(**config.export2d)
        export(config.store, config.label, settings, workdir, config.workers, config.cluster)


def export(
    path: str, label: str, settings: Export2dOptions, workdir: str, workers: int = 0, address: str = ""
) -> dict[str, Any] | None:
    """Export a store; see `run`.

    Args:
        path: of the store.
        label: name of the label set.
        settings: the rules, and where to.
        workdir: folder of `failures.jsonl`.
        workers: processes; 0: one per core.
        address: of dask's scheduler, or "local"; "": processes of this machine.
    Returns:
        The counts; None for a share.
    """
    store = Store.open(path)
    named = store.split(settings.split) if settings.split else store.subjects
    subjects = [name for name in named if label in store.rows[name].labels]
    if not subjects:
        there = sorted({found for name in named for found in store.rows[name].labels})
        raise ConfigError(
            f"{path}: no subject has a label set {label!r}. Choose one of {', '.join(there) or 'none'}."
        )
    plan = planned(store, label, settings, subjects)
    manifest.begin(plan)
    sharded = settings.processes > 1
    mine = processes.shard(subjects, settings.process, settings.processes)
    workers = min(workers or processes.cores(), max(len(mine), 1))
    write = functools.partial(write_one, plan=plan, path=path, opened=time.time_ns())
    done = cluster.each(write, mine, address, workers) if address else processes.each(write, mine, workers)
    part = f".{settings.process}-of-{settings.processes}" if sharded else ""
    failures = Failures(pathlib.Path(workdir) / f"failures{part}.jsonl", "subjects", FileError)
    for subject, outcome in track(done, "export2d", total=len(mine)):
        if row := _failure_of(subject, outcome):
            failures.rows.append(row)
    counted = None
    if not sharded and len(failures) < len(mine):
        counted = manifest.collect(plan, subjects)
        print(
            f"export2d: {counted['images']} images, {counted['masks']} masks of {counted['subjects']} subjects in "
            f"{plan.folder}",
            file=sys.stderr,
        )
    failures.conclude(len(mine))
    return counted


def planned(store: Store, label: str, settings: Export2dOptions, subjects: list[str]) -> Plan:
    """Look at every row before anything is written: all contrasts need codes, all classes ids.

    Raises:
        ConfigError: naming the first that has none.
    """
    try:
        naming.check_part(settings.dataset, field("dataset"))
    except ValuesError as error:
        raise ConfigError(str(error)) from error
    present: set[int] = set()
    for subject in subjects:
        row = store.rows[subject]
        writing.codes(row, settings)
        present.update(row.present[label])
    exported = classes.table(classes.names(store, label, subjects), present, label, settings)
    return Plan(label, settings, exported, settings.output)


def write_one(subject: str, plan: Plan, path: str, opened: int) -> Failure | None:
    """Export one subject; runs in a worker process.

    Args:
        opened: changes with every run, so that a worker opens the store once in each.
    Raises:
        ConfigError: no other subject would fare better.
    """
    try:
        writing.export(plan, _opened(path, opened), subject)
    except Exception as error:
        if isinstance(error, ConfigError):
            raise
        return failure(subject, "", "export", error)
    return None


@functools.lru_cache(maxsize=1)
def _opened(path: str, run: int) -> Store:
    return Store.open(path)


def _failure_of(subject: str, outcome: Any) -> Failure | None:
    """The failure of one subject, if it failed; errors that concern all of them are raised."""
    if isinstance(outcome, processes.WorkerDied):
        return failure(subject, "", "worker", outcome)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
