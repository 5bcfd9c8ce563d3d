"""Decide who trains and who validates: the store's own splits, a split file, or one fold of several."""

import collections
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from ukbob_jax import files
from ukbob_jax.errors import ConfigError
from ukbob_jax.store.reader import Store

Split = dict[str, list[str]]  # "train" and "val" -> subjects
WRITTEN = "splits.json"  # in the workdir, where folds were made


def choose(
    config: ml_collections.ConfigDict, store: Store, workdir: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose the subjects to train on and to validate with; an empty second means no validation.

    With `config.splits`, those a file names; with `config.folds`, all of the training split but one fold, and that
    fold. Folds are also written to the workdir, in the form of split files.

    Raises:
        ConfigError: an unknown split, file, fold or subject, or a subject on both sides.
    """
    recipe: Any = config  # its fields have no types
    data, number, fold = recipe.data, recipe.folds, recipe.fold
    if not recipe.splits and number < 2:
        return store.split(data.train_split), store.split(data.val_split) if data.val_split else ()
    if recipe.splits:
        splits = read(recipe.splits)
    else:
        subjects = store.split(data.train_split)
        splits = folds(
            subjects, number, recipe.seed, {subject: store.rows[subject].owner for subject in subjects}
        )
        import jax  # here, because the processes that ingest only draw splits and do without it

        if jax.process_index() == 0:
            files.write_json(pathlib.Path(workdir) / WRITTEN, splits)
    if not 0 <= fold < len(splits):
        raise ConfigError(f"config.fold: {fold} is not in 0..{len(splits) - 1}.")
    split = splits[fold]
    for side, subjects in split.items():
        missing = [subject for subject in subjects if subject not in store.rows]
        if missing:
            raise ConfigError(
                f"config.splits: {store.path} has no subject {missing[0]!r}, which {side} names "
                f"({len(missing)} are missing)."
            )
    _warn_of_persons_on_both_sides(store, split)
    return tuple(split["train"]), tuple(split["val"])


def _warn_of_persons_on_both_sides(store: Store, split: Split) -> None:
    trains, validates = ({store.rows[subject].owner for subject in split[side]} for side in ("train", "val"))
    if both := sorted(trains & validates):
        warnings.warn(
            f"config.splits: {len(both)} persons both train and validate, such as {both[0]}: scores will look "
            "better than on new persons. Put all scans of a person on one side.",
            stacklevel=3,
        )


def units(subjects: Sequence[str], owners: Mapping[str, str]) -> dict[str, str]:
    """Return what is drawn for each subject: its person, or itself where it is that person's only subject."""
    number = collections.Counter(owners[subject] for subject in subjects)
    return {subject: owners[subject] if number[owners[subject]] > 1 else subject for subject in subjects}


def digest(settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON-able settings; stores hold it, so another value would make them all anew."""
    return files.fingerprint(settings, 64)


def assign_splits(subjects: Sequence[str], sizes: Mapping[str, int], seed: int) -> dict[str, str]:
    """Give every subject a split: `sizes` of them drawn by `seed`, the rest "train".

    A subject's draw depends on its own name only, so that adding subjects moves few of the others.

    Raises:
        ConfigError: the sizes leave nothing, or are negative.
    """
    if min(sizes.values(), default=0) < 0 or sum(sizes.values()) > len(subjects):
        raise ConfigError(
            f"config.source.splits {dict(sizes)}: negative, or more than the {len(subjects)} subjects of the source."
        )
    drawn = sorted(subjects, key=lambda subject: digest({"seed": seed, "subject": subject}))
    names = [name for name, size in sorted(sizes.items()) for _ in range(size)]
    return {subject: names[place] if place < len(names) else "train" for place, subject in enumerate(drawn)}


def folds(
    subjects: Sequence[str], number: int, seed: int, owners: Mapping[str, str] | None = None
) -> list[Split]:
    """Make `number` splits, in each of which another fold validates; folds differ by one person at most.

    The same names and seed give the same folds on every machine.

    Args:
        subjects: to divide.
        number: of folds.
        seed: decides who goes where.
        owners: subject to person; a person's subjects are in one fold. None: every subject is a person.
    Raises:
        ConfigError: more folds than persons.
    """
    unit_of = units(subjects, owners or {subject: subject for subject in subjects})
    drawn = list(dict.fromkeys(unit_of.values()))
    if number > len(drawn):
        what = "subjects" if len(drawn) == len(subjects) else "persons"
        raise ConfigError(f"config.folds: {number} folds of {len(drawn)} {what}; take fewer.")
    sizes = {f"{fold:06d}": len(drawn[fold::number]) for fold in range(number)}
    fold_of = assign_splits(drawn, sizes, seed)
    return [
        {
            "train": [subject for subject in subjects if fold_of[unit_of[subject]] != fold],
            "val": [subject for subject in subjects if fold_of[unit_of[subject]] == fold],
        }
        for fold in sizes
    ]


def read(path: str) -> list[Split]:
    """Read the splits of a JSON file: {"train": [...], "val": [...]}, or a list of such, as nnU-Net's splits_final.json.

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
