"""Decide who trains, validates and tests: the store's own splits, a split file, or one fold of several."""

import collections
import itertools
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from ukbob_jax import files
from ukbob_jax.errors import ConfigError
from ukbob_jax.store.reader import Store

Split = dict[str, list[str]]  # "train", "val" and, where a file names some, "test" -> subjects
SIDES = {"train": "train", "val": "validate", "test": "test"}  # and what a person on them does
NNUNET_FOLDS = 5
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
    data = recipe.data
    if not recipe.splits and recipe.folds < 2:
        return store.split(data.train_split), store.split(data.val_split) if data.val_split else ()
    splits = _all(recipe, store)
    if not recipe.splits:
        import jax  # here, because the processes that ingest only draw splits and do without it

        if jax.process_index() == 0:
            files.write_json(pathlib.Path(workdir) / WRITTEN, splits)
    split = splits[recipe.fold]
    for side in ("train", "val"):
        _check_stored(store, side, split[side])
    _warn_of_persons_on_both_sides(store, split)
    return tuple(split["train"]), tuple(split["val"])


def named(config: ml_collections.ConfigDict, store: Store, name: str) -> tuple[str, ...]:
    """Return the subjects of a split: those that `config.splits` or the fold names, or else the store's own.

    Raises:
        ConfigError: as `choose`, or nobody is in that split.
    """
    recipe: Any = config
    split = _all(recipe, store)[recipe.fold] if recipe.splits or recipe.folds > 1 else {}
    if name not in split:
        return store.split(name)
    if not split[name]:
        raise ConfigError(f"config.splits: nobody is in {name!r}.")
    _check_stored(store, name, split[name])
    return tuple(split[name])


def _all(recipe: Any, store: Store) -> list[Split]:
    """Read the split file or make the folds; `recipe.fold` is one of them."""
    if recipe.splits:
        splits = read(recipe.splits)
    else:
        subjects = store.split(recipe.data.train_split)
        owners = {subject: store.rows[subject].owner for subject in subjects}
        splits = folds(subjects, recipe.folds, recipe.seed, owners)
    if not 0 <= recipe.fold < len(splits):
        raise ConfigError(f"config.fold: {recipe.fold} is not in 0..{len(splits) - 1}.")
    return splits


def _check_stored(store: Store, side: str, subjects: Sequence[str]) -> None:
    if missing := [subject for subject in subjects if subject not in store.rows]:
        raise ConfigError(
            f"config.splits: {store.path} has no subject {missing[0]!r}, which {side} names "
            f"({len(missing)} are missing)."
        )


def _warn_of_persons_on_both_sides(store: Store, split: Split) -> None:
    persons = {
        side: {store.rows[subject].owner for subject in split[side] if subject in store.rows}
        for side in SIDES
        if side in split
    }
    for one, other in itertools.combinations(persons, 2):
        if both := sorted(persons[one] & persons[other]):
            warnings.warn(
                f"config.splits: {len(both)} persons both {SIDES[one]} and {SIDES[other]}, such as {both[0]}: "
                "scores will look better than on new persons. Put all scans of a person on one side.",
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
            f"config.source.splits: {dict(sizes)} has a negative number, or more than the {len(subjects)} persons that may "
            "be drawn; those whom the data set puts in a split itself stay there."
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


def nnunet_folds(subjects: Sequence[str], number: int = NNUNET_FOLDS) -> list[Split]:
    """Make the folds that nnU-Net makes of these names: those of scikit-learn's `KFold` with its seed, 12345.

    Raises:
        ConfigError: fewer subjects than folds.
    """
    names = sorted(subjects)
    if len(names) < number:
        raise ConfigError(
            f"config.splits: {len(names)} subjects, but nnU-Net makes {number} folds; name a splits_final.json."
        )
    order = np.arange(len(names))
    np.random.RandomState(12345).shuffle(order)
    return [
        {
            "train": [name for place, name in enumerate(names) if place not in held_out],
            "val": [name for place, name in enumerate(names) if place in held_out],
        }
        for held_out in map(set, np.array_split(order, number))
    ]


def read(path: str) -> list[Split]:
    """Read the splits of a JSON file, or a list of such, as nnU-Net's splits_final.json.

    A split has lists of names under "train" and "val", and may have one under "test"; other keys, such as a name, do
    not count.

    Raises:
        ConfigError: not of that form, nobody to train on, or a subject on two sides.
    """
    found = files.read_json(path)
    splits = found if isinstance(found, list) else [found]
    return [_sides(split, path) for split in splits]


def _sides(split: Any, path: str) -> Split:
    if not isinstance(split, dict) or not {"train", "val"} <= split.keys() or not split["train"]:
        raise ConfigError(
            f'{path}: expected {{"train": [names], "val": [names]}} with somebody to train on, or a list of such.'
        )
    sides = {side: split[side] for side in SIDES if side in split}
    for side, names in sides.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"{path}: {side!r} is not a list of names.")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"{path}: {side!r} names {twice} twice.")
    for one, other in itertools.combinations(sides, 2):
        if both := sorted(set(sides[one]) & set(sides[other])):
            raise ConfigError(f"{path}: {both[0]} is in both {one!r} and {other!r}.")
    return sides
