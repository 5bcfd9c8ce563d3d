"""How a job ends of which some subjects failed: they are listed, counted, and the exit code says so."""

import os
import pathlib
from typing import NamedTuple

from ukbob_jax import files
from ukbob_jax.errors import InputError, SomeFailed, UkbobError

FILE = "failures.jsonl"


class Failure(NamedTuple):
    """Why a subject failed; a row of `failures.jsonl` without `error`."""

    subject: str
    file: str  # what it was made from; "": nothing that a user named
    stage: str  # of the job, such as "read"
    reason: str
    error: type[UkbobError]


def failure(subject: str, file: str, stage: str, error: Exception) -> Failure:
    """Describe why a subject failed; an unexpected error is named with its type."""
    if isinstance(error, UkbobError):
        return Failure(subject, file, stage, str(error), type(error))
    return Failure(subject, file, stage, f"{type(error).__name__}: {error}", UkbobError)


class Failures:
    """The subjects of a job that failed.

    Args:
        path: of the list, a JSON object a line: subject, file, stage, reason.
        noun: what failed, in the plural.
        kind: error to end with where all failed; None: the one that they all had, else InputError.
    """

    def __init__(
        self, path: str | os.PathLike, noun: str = "subjects", kind: type[UkbobError] | None = None
    ) -> None:
        self.path, self.noun, self.kind = pathlib.Path(path), noun, kind
        self.rows: list[Failure] = []

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, subject: str, file: str, stage: str, error: Exception) -> None:
        """Note that `subject` failed."""
        self.rows.append(failure(subject, file, stage, error))

    def to_json(self) -> list[dict[str, str]]:
        """Return the rows of the list, ordered by subject."""
        fields = Failure._fields[:4]
        return [dict(zip(fields, row[:4])) for row in sorted(self.rows, key=lambda row: row[:4])]

    def conclude(self, total: int) -> None:
        """Write the list and end the job as its exit code will say; without failures remove an old list.

        Args:
            total: number of subjects that the job worked on.
        Raises:
            SomeFailed: some failed.
            InputError: all did; see `kind`.
        """
        self.path.unlink(missing_ok=True)
        if not self.rows:
            return
        rows = self.to_json()
        files.write_jsonl(self.path, rows)
        first = f"{rows[0]['subject']}: {rows[0]['reason']}"
        counted = f"{len(rows)} of {total} {self.noun} failed, listed in {self.path}. The first: {first}"
        if len(rows) < total:
            raise SomeFailed(counted)
        if self.kind:
            raise self.kind(counted)
        errors = {row.error for row in self.rows}
        kind = errors.pop() if len(errors) == 1 else InputError
        listed = f"all {total} {self.noun} failed, listed in {self.path}. The first: {first}"
        raise kind(first if total == 1 else listed)
