"""From the labels of a model folder to the ids of `anatomy`, by their names, by a known label set, or by a table."""

import os
import pathlib
from collections.abc import Mapping

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError, MismatchError
from ukbob_jax.inference.nnunet import label_tables
from ukbob_jax.volumes import dataset_json, label_table


def to_taxonomy(
    names: Mapping[int, str], folder: str | os.PathLike, label_set: str = "", table: str = ""
) -> np.ndarray:
    """Lookup, uint8, from a model's labels to our ids.

    With a table that decides; with a label set the model must have just its labels, and `anatomy.from_dataset` maps
    them; else each name must be one of `anatomy`, in any case and with blanks or hyphens.

    Args:
        names: id to name of every label, background included.
        folder: of the model, for messages and dataset.json.
        label_set: a key of `anatomy.DATASETS`; empty: none.
        table: a file of `source id, target id` for `label_table.read`; empty: none.
    Raises:
        ConfigError: both are given, the label set is not known, the table lacks a label or names an id that is not ours,
            or a name is not.
        MismatchError: the model has other labels than the label set.
        FileError: the table cannot be read.
    """
    if label_set and table:
        raise ConfigError("labeller.labels and labeller.label_table are both given; leave one empty.")
    if table:
        return _by_table(names, folder, table)
    if label_set:
        lookup = anatomy.from_dataset(label_set).lut
        label_tables.check(folder, anatomy.DATASETS[label_set])
        return lookup
    if _fits(folder, anatomy.NAMES):
        return np.arange(256, dtype=np.uint8)
    lookup = np.zeros(max(names) + 1, np.uint8)
    for number, name in names.items():
        if number == 0:
            continue
        if (found := label_tables.ours(name)) is None:
            raise ConfigError(f"{_where(folder)}: label {number}, {name!r}, {_remedy(folder)}")
        lookup[number] = anatomy.IDS[found]
    return lookup


def by_label_set(names: Mapping[int, str], label_set: str) -> np.ndarray:
    """Lookup, uint8, from ids whose names are those of a label set, whatever its own ids, to ours.

    Args:
        names: id to name, background included.
        label_set: a key of `anatomy.DATASETS`.
    """
    lut = anatomy.from_dataset(label_set).lut
    known = {name: number for number, name in anatomy.DATASETS[label_set].items()}
    lookup = np.full(max(names) + 1, anatomy.IGNORE, np.uint8)
    for number, name in names.items():
        lookup[number] = lut[known[name]]
    return lookup


def _by_table(names: Mapping[int, str], folder: str | os.PathLike, table: str) -> np.ndarray:
    targets = {0: 0, **label_table.read(table).targets}
    if missing := [i for i in names if i not in targets]:
        raise ConfigError(
            f"{table}: no row for label {missing[0]}, {names[missing[0]]!r}, of {_where(folder)}; add one for each."
        )
    allowed = {*anatomy.NAMES, anatomy.IGNORE}
    if wrong := [f"{source} to {target}" for source, target in targets.items() if target not in allowed]:
        raise ConfigError(
            f"{table}: takes {wrong[0]}, which is no id of `ukbob labels` and not {anatomy.IGNORE} (ignored)."
        )
    lookup = np.full(max(names) + 1, anatomy.IGNORE, np.uint8)
    for number in names:
        lookup[number] = targets[number]
    return lookup


def _remedy(folder: str | os.PathLike) -> str:
    sets = [name for name, expected in anatomy.DATASETS.items() if _fits(folder, expected)]
    if sets:
        return f"is not a structure of `ukbob labels`, but all are those of {sets[0]}: set labeller.labels to it."
    return (
        "is not a structure of `ukbob labels`. Say what each label becomes with labeller.label_table, a file of lines "
        "`source id, target id`."
    )


def _fits(folder: str | os.PathLike, expected: Mapping[int, str]) -> bool:
    """Whether a model has just these labels."""
    try:
        label_tables.check(folder, expected)
    except MismatchError:
        return False
    return True


def _where(folder: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(folder) / dataset_json.NAME
