"""Compare every byte of a store with the digests written beside it; `config.repair` drops what is damaged."""

import pathlib
import sys

import ml_collections

from ukbob_jax import files
from ukbob_jax.errors import SomeFailed
from ukbob_jax.progress import track
from ukbob_jax.store import reader
from ukbob_jax.store.writer import StoreWriter

DAMAGED = "damaged.jsonl"


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """List damaged subjects in `damaged.jsonl` in the workdir; dropped ones are made anew by the next ingest.

    Raises:
        FileError: there is no store.
        SomeFailed: subjects are damaged, and were not dropped.
    """
    subjects = reader.list_all(config.store)
    checked = track(reader.check_all(config.store, subjects), "verify", total=len(subjects))
    damaged = {subject: found for subject, found in checked if found}
    path = pathlib.Path(workdir) / DAMAGED
    path.unlink(missing_ok=True)
    if damaged:
        files.write_jsonl(path, ({"subject": name, "damage": found} for name, found in damaged.items()))
    count = f"{len(damaged)} of {len(subjects)} subjects in {config.store}"
    if config.repair:
        with StoreWriter(config.store) as writer:
            for subject in damaged:
                writer.drop(subject)
        print(f"verify: dropped {count}. The ingest job makes them anew.", file=sys.stderr)
    elif damaged:
        subject, found = next(iter(damaged.items()))
        raise SomeFailed(
            f"{count} are damaged, listed in {path}. The first: {subject}, {found}. Drop them with "
            "--config.repair=True, then run the ingest job again."
        )
    else:
        print(f"verify: {len(subjects)} subjects in {config.store}, every byte as written.", file=sys.stderr)
