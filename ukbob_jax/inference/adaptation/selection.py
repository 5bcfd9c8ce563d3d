"""Which parameters adaptation may change: chosen by path, split from the rest, and joined again."""

import re
from collections.abc import Mapping
from typing import Any, cast

import jax
from flax import traverse_util
from flax.core import unfreeze

from ukbob_jax.errors import ConfigError

# scale and bias of a module whose name has a word that ends in norm, numbered or not: norm1, LayerNorm_0, norm_out
NORMS = r"(?i)(^|/)[a-z0-9_]*norm[0-9]*(_[a-z0-9_]+)?/(scale|bias)$"


def split(params: Mapping[str, Any], select: str | None = None) -> tuple[dict, dict]:
    """Leaves whose "/"-joined path matches, and the others: two dictionaries from path to array.

    Args:
        params: nested dictionaries of arrays.
        select: regular expression, searched in each path; None takes `NORMS`.

    Raises:
        ConfigError: nothing matches, or the expression cannot be read; names the paths that look like norms.
    """
    leaves = traverse_util.flatten_dict(unfreeze(cast(Any, params)), sep="/")
    pattern = NORMS if select is None else select
    try:
        chosen = {path: leaf for path, leaf in leaves.items() if re.search(pattern, path)}
    except re.error as error:
        raise ConfigError(f"select: {pattern!r} is not a regular expression ({error}).") from error
    if not chosen:
        raise ConfigError(_nothing_selected(pattern, leaves))
    return chosen, {path: leaf for path, leaf in leaves.items() if path not in chosen}


def join(chosen: Mapping[str, jax.Array], others: Mapping[str, jax.Array]) -> dict:
    """The nested parameters from both halves of `split`."""
    return traverse_util.unflatten_dict({**chosen, **others}, sep="/")


def _nothing_selected(pattern: str, leaves: Mapping[str, Any]) -> str:
    """What to say when no path matches."""
    norms = sorted(path for path in leaves if "norm" in path.lower())
    if norms:
        shown = ", ".join(norms[:20]) + (f" and {len(norms) - 20} more" if len(norms) > 20 else "")
        return f"select: no parameter path matches {pattern!r}. Norm-like paths are {shown}."
    return (
        f"select: no parameter path matches {pattern!r}, and none looks like a norm. Build the network with "
        "norm='instance_affine', or select other parameters. The first paths are "
        f"{', '.join(sorted(leaves)[:5])}."
    )
