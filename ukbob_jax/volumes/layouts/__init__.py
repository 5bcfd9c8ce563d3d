"""How datasets lie on disk: one module per layout, each with `list_cases(...) -> list[Case]`.

A new layout is a new module here; nothing else changes.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

from ukbob_jax.errors import ConfigError, MismatchError
from ukbob_jax.volumes.case import Case


def names() -> list[str]:
    """The layouts there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def selectors(path: str) -> dict[str, str]:
    """What the layouts that lie under `path` ("root" or "images") take beside it, and "" for each: not given.

    Such as the entities of BIDS, or the ending of the names of label maps.
    """
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names()]
    taken = [inspect.signature(module.list_cases).parameters for module in modules]
    found = [p for parameters in taken if path in parameters for p in parameters.values()]
    return {p.name: "" for p in found if p.kind is p.KEYWORD_ONLY}


def list_cases(layout: str, *args: Any, **options: Any) -> list[Case]:
    """The subjects of a dataset, sorted by split as the layout lists them and then by name.

    A subject that cannot be used, such as an image without its label map, is listed with its `problem`.

    Args:
        layout: one of `names()`; the other arguments are those of that module's `list_cases`.
    Raises:
        ConfigError: no such layout, or arguments that it does not take.
        FileError: missing or empty folders, missing files.
        MismatchError: images and labels of no subject match, or two files for one subject.
    """
    lister = _lister(layout)
    takes = inspect.signature(lister)
    try:
        takes.bind(*args, **options)
    except TypeError as error:
        raise ConfigError(f"layout={layout!r} takes {', '.join(takes.parameters)}: {error}.") from error
    cases = lister(*args, **options)
    if cases and all(case.problem for case in cases):
        more = f" None of the {len(cases)} subjects can be used." if len(cases) > 1 else ""
        raise MismatchError(f"{cases[0].problem}{more}")
    return cases


def arguments(layout: str) -> dict[str, Any]:
    """What a layout's `list_cases` takes, the place of the data first: name -> default.

    Raises:
        ConfigError: no such layout.
    """
    parameters = inspect.signature(_lister(layout)).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def _lister(layout: str) -> Callable[..., list[Case]]:
    if layout not in names():
        raise ConfigError(f"layout={layout!r} is not known; expected one of {', '.join(names())}.")
    return importlib.import_module(f"{__name__}.{layout}").list_cases
