"""Who trains and who validates: the store's own splits, a split file, or one fold of several."""

import pathlib
from typing import Any

import jax
import ml_collections

from ukbob_jax import files
from ukbob_jax.errors import ConfigError
from ukbob_jax.sources import assign_splits
from ukbob_jax.store.reader import Store

Split = dict[str, list[str]]  # "train" and "val" -> subjects
WRITTEN = "splits.json"  # in the workdir, where folds were made


def choose(
    config: ml_collections.ConfigDict, store: Store, workdir: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Subjects to train on and to validate with; no validation for an empty second.

    With `config.splits`, those a file names; with `config.folds`, all of the training split but one fold, and that
    fold. Folds are also written to the workdir, in the form of split files.

    Raises:
        ConfigError: a split, file, fold or subject there is not, or a subject on both sides.
    """
    data = config.data
    if not config.splits and config.folds < 2:
        return store.split(data.train_split), store.split(data.val_split) if data.val_split else ()
    if config.splits:
        splits = read(config.splits)
    else:
        splits = folds(store.split(data.train_split), config.folds, config.seed)
        if jax.process_index() == 0:
            files.write_json(pathlib.Path(workdir) / WRITTEN, splits)
    if not 0 <= config.fold < len(splits):
        raise ConfigError(f"config.fold: {config.fold} is not in 0..{len(splits) - 1}.")
    split = splits[config.fold]
    for side, subjects in split.items():
        missing = [subject for subject in subjects if subject not in store.rows]
        if missing:
            raise ConfigError(
                f"config.splits: {store.path} has no subject {missing[0]!r}, which {side} names "
                f"({len(missing)} are missing)."
            )
    return tuple(split["train"]), tuple(split["val"])


def folds(subjects: tuple[str, ...], number: int, seed: int) -> list[Split]:
    """`number` splits, in each another fold validates; folds differ by one subject at most.

    The same names and seed give the same folds on every machine.

    Raises:
        ConfigError: more folds than subjects.
    """
    if number > len(subjects):
        raise ConfigError(f"config.folds: {number} folds of {len(subjects)} subjects; take fewer.")
    sizes = {f"{fold:06d}": len(subjects[fold::number]) for fold in range(number)}
    fold_of = assign_splits(subjects, sizes, seed)
    return [
        {
            "train": [subject for subject in subjects if fold_of[subject] != fold],
            "val": [subject for subject in subjects if fold_of[subject] == fold],
        }
        for fold in sizes
    ]


def read(path: str) -> list[Split]:
    """The splits in a JSON file: {"train": [...], "val": [...]}, or a list of such, as nnU-Net's splits_final.json.

    Raises:
        ConfigError: not of that form, nobody to train on, or a subject on both sides.
    """
    found = files.read_json(path)
    splits = found if isinstance(found, list) else [found]
    for split in splits:
        if not _is_split(split):
            raise ConfigError(
                f'{path}: expected {{"train": [names], "val": [names]}} with somebody to train on, or a list of such.'
            )
        if both := sorted(set(split["train"]) & set(split["val"])):
            raise ConfigError(f"{path}: {both[0]} both trains and validates.")
    return splits


def _is_split(split: Any) -> bool:
    return (
        isinstance(split, dict)
        and split.keys() == {"train", "val"}
        and all(
            isinstance(names, list) and all(isinstance(n, str) for n in names) for names in split.values()
        )
        and bool(split["train"])
    )
