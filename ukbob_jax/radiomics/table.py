"""Features as a table that pandas reads: a row per organ, or per subject and organ."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax import files
from ukbob_jax.radiomics.features import ALL, NAMES


def columns(families: Sequence[str]) -> list[str]:
    """List the names of the features of some families, in the order of a table."""
    chosen = (family for family in ALL if family in families)
    return [f"original_{family}_{name}" for family in chosen for name in NAMES[family]]


def rows(
    found: Mapping[str, np.ndarray], organs: Sequence[int], names: Mapping[int, str]
) -> Iterator[dict[str, Any]]:
    """Yield a row per organ: id, name and every feature; a value that is not defined is None, an empty cell.

    Args:
        found: name -> (len(organs),), as `features(..., classes=organs)` returns.
        names: id -> name; others are "class 91".
    """
    for i, organ in enumerate(organs):
        values = {name: files.json_number(float(column[i])) for name, column in found.items()}
        yield {"organ": organ, "name": names.get(organ, f"class {organ}"), **values}
