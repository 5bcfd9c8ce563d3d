"""Scans into the store: `config.source` says from where, `config.store` where to."""

import functools
import pathlib
import warnings
from collections.abc import Collection
from typing import Any

import ml_collections

from ukbob_jax import advice, cluster, processes, sources
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.failures import FILE, Failure, Failures, failure
from ukbob_jax.progress import track
from ukbob_jax.sources import known_issues
from ukbob_jax.store import origins, reader
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes import sets


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Write every subject of the source that the store does not have yet; one that fails does not stop the others.

    Subjects whose source and settings are unchanged are passed over, so the same command resumes. What is doubtful of
    scans, or unlike the others of the store, is told at the end; see `volumes.sets`. `config.cluster`
    says who works: processes of this machine (""), or dask: "local" or a scheduler's address (docs/ingestion.md).

    Raises:
        ConfigError: a field of `config.source` cannot be used.
        InputError: the source cannot be listed, no subject could be used, or the store cannot be written.
        SomeFailed: some subjects failed; `failures.jsonl` in the workdir says which and why.
    """
    with advice.fields("source", config.source):
        subjects = sources.list_subjects(config.source.to_dict())
    workers = min(config.get("workers", 0) or processes.cores(), len(subjects))
    write = functools.partial(write_one, store=config.store, fields=tuple(config.source))
    if address := config.get("cluster", ""):
        done = cluster.each(write, subjects, address, workers)
    else:
        done = processes.each(write, subjects, workers)
    failures = Failures(pathlib.Path(workdir) / FILE)
    with StoreWriter(config.store):
        outcomes = track(done, "ingest", total=len(subjects))
        failures.rows += [row for subject, outcome in outcomes if (row := failure_of(subject, outcome))]
    if len(failures) < len(subjects):
        for told in sets.remarks(reader.Store.open(config.store).rows.values()):
            warnings.warn(f"{config.store}: {told}", stacklevel=2)
        origins.note(config.store, known_issues.of_source(config.source.to_dict()))
    failures.conclude(len(subjects))


def write_one(subject: sources.SubjectSource, store: str, fields: Collection[str] = ()) -> Failure | None:
    """Read, convert and write one subject, unless it is there; runs in a worker process.

    Args:
        subject: of the source.
        store: folder.
        fields: of `config.source`, which messages may name.
    Raises:
        ConfigError, FileError: a setting is wrong, or the store cannot be written: no other subject would fare better.
    """
    stage = "list" if isinstance(subject, sources.Unusable) else "checksum"
    try:
        with advice.fields("source", fields):
            source = subject.checksum()
            writer = StoreWriter(store)
            if writer.has(subject.subject, source):
                return None
            stage = "read"
            scan = subject.read()
            stage = "convert"
            values = subject.convert(scan)
        stage = "write"
        writer.write(subject.subject, source=source, split=subject.split, **values)
    except Exception as error:
        if isinstance(error, ConfigError) or (stage == "write" and isinstance(error, FileError)):
            raise
        return failure(subject.subject, ", ".join(subject.files()), stage, error)
    return None


def failure_of(subject: sources.SubjectSource, outcome: Any) -> Failure | None:
    """Return the failure of one subject, if it failed; errors that concern all of them are raised."""
    if isinstance(outcome, processes.WorkerDied):
        return failure(subject.subject, ", ".join(subject.files()), "worker", outcome)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
