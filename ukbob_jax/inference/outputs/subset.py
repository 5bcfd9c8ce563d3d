"""Only some of a network's structures: the others become background."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping

import numpy as np

from ukbob_jax import advice
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.prediction import Prediction

_NEAR = 3  # names that are offered for a misspelt one


def check(wanted: Collection[str], names: Mapping[int, str]) -> None:
    """Refuse names that the network does not have.

    Args:
        wanted: names of structures.
        names: id to name of the network's, with 0 the background.
    Raises:
        ConfigError: names every unknown one with those that are near it.
    """
    known = [name for i, name in names.items() if i]
    unknown = [name for name in wanted if name not in known]
    if not unknown:
        return
    hints = []
    for name in unknown:
        near = difflib.get_close_matches(name.lower(), known, _NEAR, 0.6)
        near = [one for one in known if one.startswith(f"{name.lower()}_")] or near
        hints.append(f"{name!r}" + (f" (did you mean {', '.join(near[:_NEAR])}?)" if near else ""))
    every = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    raise ConfigError(
        f"{advice.setting('roi_subset')}: this network draws no {', no '.join(hints)}. It draws {every}."
    )


def keep(prediction: Prediction, wanted: Collection[str]) -> Prediction:
    """The prediction with the structures of `wanted` alone, in labels, names and report; all where it is empty.

    The labels are taken out of the network's whole answer: where another structure won, there is background, as in a
    label map from which one deletes it.
    """
    if not wanted:
        return prediction
    names = {i: name for i, name in prediction.names.items() if i == 0 or name in wanted}
    lookup = np.zeros(np.iinfo(np.uint16).max + 1, prediction.volume.array.dtype)
    ids = [i for i in names if i]
    lookup[ids] = ids
    volume = dataclasses.replace(prediction.volume, array=lookup[prediction.volume.array])
    structures = prediction.report["structures"]
    report = prediction.report | {"structures": {n: found for n, found in structures.items() if n in wanted}}
    return Prediction(volume, report, names)
