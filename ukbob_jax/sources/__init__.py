"""Where subjects come from: each kind of source lists its subjects, and reads and converts one at a time."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ukbob_jax.errors import ConfigError
from ukbob_jax.files import fingerprint


class Origin(Protocol):
    """One subject before it is in the store: small, and sent to worker processes."""

    subject: str
    split: str

    def files(self) -> list[str]:
        """The files it is made from."""

    def checksum(self) -> str:
        """Changes when the result would: of the sources' bytes and every setting."""

    def read(self) -> Any:
        """The subject as it is in the source."""

    def convert(self, scan: Any) -> dict[str, Any]:
        """What `StoreWriter.write` takes beside subject, source and split."""


def find(settings: Mapping[str, Any]) -> list[Origin]:
    """The subjects of a source.

    Args:
        settings: `kind`, one of the modules here, and what that module's `find` takes.
    Raises:
        ConfigError: an unknown kind or field, or a missing one.
        InputError: the source is missing or empty.
    """
    settings = dict(settings)
    kind = settings.pop("kind", None)
    kinds = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if kind not in kinds:
        raise ConfigError(f"config.source.kind is {kind!r}; expected one of {', '.join(kinds)}.")
    finder = importlib.import_module(f"{__name__}.{kind}").find
    try:
        inspect.signature(finder).bind(**settings)
    except TypeError as error:
        fields = ", ".join(inspect.signature(finder).parameters)
        raise ConfigError(f"config.source: {error} (kind {kind!r} takes {fields}).") from error
    return finder(**settings)


def digest(settings: Mapping[str, Any]) -> str:
    """SHA-256 of JSON-able settings."""
    return fingerprint(settings, 64)


def assign_splits(subjects: Sequence[str], sizes: Mapping[str, int], seed: int) -> dict[str, str]:
    """A split for every subject: `sizes` of them drawn by `seed`, the rest "train".

    A subject's draw depends on its own name only, so that adding subjects moves few of the others.

    Raises:
        ConfigError: the sizes leave nothing, or are negative.
    """
    if min(sizes.values(), default=0) < 0 or sum(sizes.values()) > len(subjects):
        raise ConfigError(
            f"config.source.splits {dict(sizes)}: more than the {len(subjects)} subjects there are."
        )
    drawn = sorted(subjects, key=lambda subject: digest({"seed": seed, "subject": subject}))
    names = [name for name, size in sorted(sizes.items()) for _ in range(size)]
    return {subject: names[place] if place < len(names) else "train" for place, subject in enumerate(drawn)}
