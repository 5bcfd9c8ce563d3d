"""Where subjects come from: each kind of source lists its subjects, and reads and converts one at a time."""

import dataclasses
import importlib
import inspect
import pkgutil
import types
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

from ukbob_jax.errors import ConfigError
from ukbob_jax.sources import known_issues
from ukbob_jax.sources.unusable import Unusable as Unusable

HELPERS = {
    "known_issues",
    "names_in_headers",
    "nnssl_arrays",
    "openmind_manifest",
    "persons",
    "steps",
    "unusable",
}  # modules here that are no kind of source


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
    """List the subjects of a source; warn of what is known of the public data set it holds, see `known_issues`.

    Args:
        settings: `kind`, one of the modules here, and what that module's `list_subjects` takes.
    Raises:
        ConfigError: an unknown kind or field, or a missing one.
        InputError: the source is missing or empty.
    """
    datasets, settings = known_issues.of_source(settings), dict(settings)
    kind = settings.pop("kind", None)
    kinds = sorted({module.name for module in pkgutil.iter_modules(__path__)} - HELPERS)
    if kind not in kinds:
        raise ConfigError(f"config.source.kind is {kind!r}; expected one of {', '.join(kinds)}.")
    module = importlib.import_module(f"{__name__}.{kind}")
    known = fields(module)
    try:
        for name in settings:
            if name not in known:
                raise TypeError(f"got an unexpected keyword argument {name!r}")
        inspect.signature(module.list_subjects).bind(**settings)
    except TypeError as error:
        raise ConfigError(f"config.source: {error} (kind {kind!r} takes {', '.join(known)}).") from error
    found = module.list_subjects(**settings)
    for line in known_issues.told(datasets):
        warnings.warn(line, stacklevel=2)
    return found


def fields(module: types.ModuleType) -> list[str]:
    """Return the names that a kind's `list_subjects` takes; its `**settings` are the fields of `ReadOptions`."""
    parameters = inspect.signature(module.list_subjects).parameters
    names = [name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
    if len(names) < len(parameters):
        names += [field.name for field in dataclasses.fields(module.ReadOptions)]
    return names
