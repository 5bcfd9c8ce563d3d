"""A probe of a network under training: how well its encoder's maps tell labelled structures apart."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ukbob_jax.data import whole
from ukbob_jax.errors import ConfigError
from ukbob_jax.store.reader import Store
from ukbob_jax.training.probes import classify, voxels
from ukbob_jax.training.probes.voxels import ProbeOptions, Window

Probe = Callable[[Any], dict[str, float]]  # variables, on one device -> numbers by name


def build(
    options: ProbeOptions,
    model: nn.Module,
    *,
    store: Store | None,
    split: Callable[[str], Sequence[str]],
    contrasts: tuple[str, ...],
    normalize: str,
    crop: Sequence[int],
) -> Probe:
    """Return variables -> "probe/knn", "probe/linear" (balanced accuracy) and "probe/chance".

    Voxels are drawn here, once; images are read anew at every call, a window at a time.

    Args:
        options: what is asked.
        model: whose encoder answers.
        store: of the training; None: it has none.
        split: name -> subjects of `store`; an `options.store` says itself who is in its splits.
        contrasts: that are fed.
        normalize: as `intensity.normalize`.
        crop: of training, voxels x y z; the windows.
    Raises:
        ConfigError: naming the field: a split or label set that is not there, or nothing to learn or to score.
    """
    opened = Store.open(options.store) if options.store else store
    if opened is None:
        raise ConfigError("config.probe.store: empty, and this training has no store; name one with labels.")
    split = opened.split if options.store else split
    features = voxels.extractor(model)
    train, test = _windows(options, opened, split, contrasts, crop)
    ids = [np.concatenate([window.classes for window in side]) for side in (train, test)]
    classes = np.intersect1d(ids[0], ids[1])
    if len(classes) < 2:
        raise ConfigError(
            f"config.probe.label: {options.label!r} has {len(classes)} classes that subjects of both "
            f"{options.train_split!r} and {options.test_split!r} have; a probe tells 2 apart."
        )
    longest = max(len(window.places) for window in (*train, *test))  # one shape, one compilation
    known = [np.isin(of, classes) for of in ids]
    ours, theirs = (np.searchsorted(classes, of[which]) for of, which in zip(ids, known))

    def side(variables: Any, windows: Sequence[Window]) -> np.ndarray:
        rows = []
        for window in windows:
            image = whole.read_window(
                opened, window.subject, contrasts, normalize, window.start, (crop[0], crop[1], crop[2])
            )
            n = len(window.places)
            places = np.pad(window.places, ((0, longest - n), (0, 0)))
            rows.append(np.asarray(features(variables, jnp.asarray(image[None]), jnp.asarray(places)))[:n])
        return np.concatenate(rows)

    def probe(variables: Any) -> dict[str, float]:
        found = [side(variables, windows)[which] for windows, which in zip((train, test), known)]
        if not all(np.isfinite(rows).all() for rows in found):
            return {f"probe/{kind}": float("nan") for kind in options.kind}
        found = classify.standardised(*found)
        numbers = {}
        for kind in options.kind:
            guess = _classifier(kind, options, len(ours), len(classes))(found[0], ours, found[1])
            numbers[f"probe/{kind}"] = classify.balanced_accuracy(np.asarray(guess), theirs)
        return {**numbers, "probe/chance": 1 / len(classes)}

    return probe


def _classifier(kind: str, options: ProbeOptions, rows: int, num_classes: int) -> Callable[..., Any]:
    if kind == "knn":
        return functools.partial(
            classify.knn, neighbours=min(options.neighbours, rows), num_classes=num_classes
        )
    return functools.partial(classify.ridge, strength=options.ridge, num_classes=num_classes)


def _windows(
    options: ProbeOptions,
    store: Store,
    split: Callable[[str], Sequence[str]],
    contrasts: tuple[str, ...],
    crop: Sequence[int],
) -> tuple[list[Window], list[Window]]:
    """The windows of both splits."""
    held_out = _labelled(options, store, split, "test_split", ())
    owners = {store.rows[subject].owner for subject in held_out}
    learnt = _labelled(options, store, split, "train_split", owners)
    sides = []
    for subjects, field in ((learnt, "train_split"), (held_out, "test_split")):
        for subject in subjects:
            store.rows[subject].channel_indices(contrasts, "config.probe.store")
        windows = [
            window
            for number, subject in enumerate(subjects)
            for window in voxels.draw(
                store, options.label, subject, crop, options.voxels, (options.seed, len(sides), number)
            )
        ]
        if not windows:
            raise ConfigError(
                f"config.probe.{field}: no subject of {getattr(options, field)!r} has a labelled voxel in {options.label!r}."
            )
        sides.append(windows)
    return sides[0], sides[1]


def _labelled(
    options: ProbeOptions, store: Store, split: Callable[[str], Sequence[str]], field: str, others: Any
) -> list[str]:
    """The first subjects of a split that have the label set, without persons among `others`."""
    try:
        subjects = split(getattr(options, field))
    except ConfigError as error:
        raise ConfigError(f"config.probe.{field}: {error}") from error
    chosen = [
        subject
        for subject in subjects
        if options.label in store.rows[subject].labels and store.rows[subject].owner not in others
    ][: options.subjects]
    if not chosen:
        raise ConfigError(
            f"config.probe.{field}: no subject of {getattr(options, field)!r} in {store.path} has the label set "
            f"{options.label!r}" + (" and is not on the other side too." if others else ".")
        )
    return chosen
