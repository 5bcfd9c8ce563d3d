"""Where subjects come from: each kind of source lists its subjects, and reads and converts one at a time."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any, Protocol

from ukbob_jax.errors import ConfigError


class SubjectSource(Protocol):
    """One subject before it is in the store: small, and sent to worker processes."""

    @property
    def subject(self) -> str:
        """The subject's id."""
        ...

    @property
    def split(self) -> str:
        """The subject's split."""
        ...

    def files(self) -> list[str]:
        """List the files that the subject is made from."""
        ...

    def checksum(self) -> str:
        """Return a digest of the sources' bytes and every setting: it changes when the result would."""
        ...

    def read(self) -> Any:
        """Read the subject as it is in the source."""
        ...

    def convert(self, scan: Any) -> dict[str, Any]:
        """Return what `StoreWriter.write` takes beside subject, source and split."""
        ...


def list_subjects(settings: Mapping[str, Any]) -> list[SubjectSource]:
    """List the subjects of a source.

    Args:
        settings: `kind`, one of the modules here, and what that module's `list_subjects` takes.
    Raises:
        ConfigError: an unknown kind or field, or a missing one.
        InputError: the source is missing or empty.
    """
    settings = dict(settings)
    kind = settings.pop("kind", None)
    kinds = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if kind not in kinds:
        raise ConfigError(f"config.source.kind is {kind!r}; expected one of {', '.join(kinds)}.")
    lister = importlib.import_module(f"{__name__}.{kind}").list_subjects
    try:
        inspect.signature(lister).bind(**settings)
    except TypeError as error:
        fields = ", ".join(inspect.signature(lister).parameters)
        raise ConfigError(f"config.source: {error} (kind {kind!r} takes {fields}).") from error
    return lister(**settings)
