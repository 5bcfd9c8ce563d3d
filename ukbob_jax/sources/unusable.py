"""A subject that a source lists and nobody can use: it fails by itself, and the others go on."""

import dataclasses
from typing import Any, NoReturn

from ukbob_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Unusable:
    """One subject whose files do not belong together, as their names tell.

    Attributes:
        subject: its id.
        split: where it would be.
        paths: files that there are of it.
        error: raised by whoever wants more.
    """

    subject: str
    split: str
    paths: tuple[str, ...]
    error: InputError

    def files(self) -> list[str]:
        """List the files that there are."""
        return list(self.paths)

    def checksum(self) -> NoReturn:
        """Raise `error`."""
        raise self.error

    def read(self) -> NoReturn:
        """Raise `error`."""
        raise self.error

    def convert(self, scan: Any) -> NoReturn:
        """Raise `error`."""
        raise self.error
