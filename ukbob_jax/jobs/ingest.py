"""Scans into the store: `config.source` says from where, `config.store` where to."""

import functools
import pathlib
from typing import Any, NamedTuple

import ml_collections

from ukbob_jax import cluster, files, processes, sources
from ukbob_jax.errors import ConfigError, FileError, InputError, SomeFailed, UkbobError
from ukbob_jax.progress import track
from ukbob_jax.store.writer import StoreWriter

FAILURES = "failures.jsonl"


class Failure(NamedTuple):
    """Why a subject is not in the store."""

    subject: str
    file: str
    stage: str  # "checksum", "read", "convert", "write", or "worker": the process was killed
    reason: str
    error: type[UkbobError]


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Write every subject of the source that the store does not have yet; one that fails does not stop the others.

    Subjects whose source and settings are unchanged are passed over, so the same command resumes. `config.cluster`
    says who works: processes of this machine (""), or dask: "local" or a scheduler's address (docs/ingestion.md).

    Raises:
        ConfigError: a field of `config.source` cannot be used.
        InputError: the source cannot be listed, no subject could be used, or the store cannot be written.
        SomeFailed: some subjects failed; `failures.jsonl` in the workdir says which and why.
    """
    origins = sources.find(config.source.to_dict())
    workers = min(config.get("workers", 0) or processes.cores(), len(origins))
    write = functools.partial(write_one, store=config.store)
    if address := config.get("cluster", ""):
        done = cluster.each(write, origins, address, workers)
    else:
        done = processes.each(write, origins, workers)
    with StoreWriter(config.store):
        outcomes = track(done, "ingest", total=len(origins))
        failures = [failure for origin, outcome in outcomes if (failure := failed(origin, outcome))]
    report(failures, len(origins), pathlib.Path(workdir))


def write_one(origin: sources.Origin, store: str) -> Failure | None:
    """Read, convert and write one subject, unless it is there; runs in a worker process.

    Raises:
        ConfigError, FileError: a setting is wrong, or the store cannot be written: no other subject would fare better.
    """
    stage = "checksum"
    try:
        source = origin.checksum()
        writer = StoreWriter(store)
        if writer.has(origin.subject, source):
            return None
        stage = "read"
        scan = origin.read()
        stage = "convert"
        values = origin.convert(scan)
        stage = "write"
        writer.write(origin.subject, source=source, split=origin.split, **values)
    except Exception as error:
        if isinstance(error, ConfigError) or (stage == "write" and isinstance(error, FileError)):
            raise
        return failure(origin, stage, error)
    return None


def failed(origin: sources.Origin, outcome: Any) -> Failure | None:
    """The failure of one subject, if it failed; errors that concern them all are raised."""
    if isinstance(outcome, processes.WorkerDied):
        return failure(origin, "worker", outcome)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def failure(origin: sources.Origin, stage: str, error: Exception) -> Failure:
    """What `failures.jsonl` says of one subject; an unexpected error is told with its type."""
    file = ", ".join(origin.files())
    if isinstance(error, UkbobError):
        return Failure(origin.subject, file, stage, str(error), type(error))
    return Failure(origin.subject, file, stage, f"{type(error).__name__}: {error}", UkbobError)


def report(failures: list[Failure], total: int, workdir: pathlib.Path) -> None:
    """Write `failures.jsonl`, or remove an old one, and end the job as its exit code will say.

    Raises:
        InputError: all subjects failed.
        SomeFailed: some did.
    """
    path = workdir / FAILURES
    path.unlink(missing_ok=True)
    if not failures:
        return
    failures = sorted(failures)
    fields = ("subject", "file", "stage", "reason")
    files.write_jsonl(path, ({name: getattr(found, name) for name in fields} for found in failures))
    first = f"{failures[0].subject}: {failures[0].reason}"
    if len(failures) < total:
        raise SomeFailed(f"{len(failures)} of {total} subjects failed, listed in {path}. The first: {first}")
    kinds = {found.error for found in failures}
    kind = kinds.pop() if len(kinds) == 1 else InputError
    raise kind(first if total == 1 else f"all {total} subjects failed, listed in {path}. The first: {first}")
