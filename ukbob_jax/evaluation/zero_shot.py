"""Score a network on labels of another data set without training on it: both are read as their common classes."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError


class Common(NamedTuple):
    """How both sides read, and what can be scored."""

    found: np.ndarray  # uint8[256], class of the network -> common class
    truth: np.ndarray  # uint8[256], id of the data set -> common class
    organs: dict[int, str]  # common class -> name: those that the network has all parts of
    left_out: tuple[str, ...]  # common classes that the network lacks a part of


def common(dataset: str, names: Mapping[int, str]) -> Common:
    """Return the tables for a network with these class names.

    A class is scored only if the network knows every structure it is made of: whole lungs need all five lobes.

    Args:
        dataset: a key of `anatomy.DATASETS`.
        names: class of the network -> name.

    Raises:
        ConfigError: no such data set, or nothing in common with the network.
    """
    shared = anatomy.common_classes(dataset)
    ours = np.zeros(256, np.uint8)
    for label, name in names.items():
        ours[label] = anatomy.IDS.get(name, 0)
    found = shared.ours[ours]
    known = set(ours.tolist())
    organs, left_out = {}, []
    for k, name in enumerate(shared.names[1:], start=1):
        if known.issuperset(np.flatnonzero(shared.ours == k).tolist()):
            organs[k] = name
        else:
            left_out.append(name)
    if not organs:
        raise ConfigError(f"evaluate.label_map: the network has no class in common with {dataset}.")
    return Common(found, shared.theirs, organs, tuple(left_out))
