"""Masks that a segmentation training would have drawn on its way: each kept checkpoint on each training subject."""

import pathlib
import sys
from collections.abc import Mapping

import numpy as np

from ukbob_jax import anatomy, files
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.evaluation import metrics
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.models.card import ModelCard
from ukbob_jax.progress import track
from ukbob_jax.sentinel.predictions import TABLE, Predictions
from ukbob_jax.training.checkpoint_folder import step_name
from ukbob_jax.training.checkpoints import restore_params, steps_of
from ukbob_jax.volumes.volume import Volume

FOLDER = "predictions"


def make(workdirs: str, data: TrainingData, subjects: tuple[str, ...], folder: pathlib.Path) -> Predictions:
    """Predict `subjects` with every checkpoint of the trainings `workdirs`, unless that was done; list true Dice too.

    Args:
        workdirs: of segmentation trainings, with commas between them.
        data: of the grader's training.
        subjects: to predict.
        folder: the grader's workdir.
    Raises:
        ConfigError: no checkpoints.
        FileError: a workdir is none of a training.
        MismatchError: a network of other labels or contrasts.
    """
    found: list[tuple[str, pathlib.Path, int]] = []
    for number, text in enumerate(filter(None, (part.strip() for part in workdirs.split(",")))):
        checkpoints = pathlib.Path(text) / "checkpoints"
        steps = steps_of(checkpoints)
        if not steps:
            raise FileError(
                f"config.sentinel.checkpoints: {checkpoints}: no complete checkpoint in this folder."
            )
        found += [(f"{number}_{step_name(step)}", checkpoints, step) for step in steps]
    if not found:
        raise ConfigError(f"config.sentinel.checkpoints: {workdirs!r} names no workdir.")
    made = Predictions(folder / FOLDER, tuple(name for name, _, _ in found))
    rows: list[dict] = []
    for name, checkpoints, step in found:
        rows += _of_checkpoint(made, name, (checkpoints, step), data, subjects)
    files.write_jsonl(made.folder / TABLE, rows)
    return made


def _of_checkpoint(
    made: Predictions,
    name: str,
    where: tuple[pathlib.Path, int],
    data: TrainingData,
    subjects: tuple[str, ...],
) -> list[dict]:
    """Predict with one checkpoint; rows of Dice by subject and organ."""
    params, model_state, meta = restore_params(*where)
    card = ModelCard.from_json(meta, where[0])
    if card.task != "segmentation" or card.regions:
        raise MismatchError(
            f"{where[0]}: is no network of classes. Give the workdir of a training on labels."
        )
    _check_labels(where[0], card.used, data.names)
    segmenter = Segmenter(card.build(), params, card, model_state)
    rows, new = [], 0
    for subject in track(subjects, f"sentinel_train: {name}", len(subjects)):
        row = data.store.rows[subject]

        def predict(subject: str = subject) -> np.ndarray:
            image = data.store.read(subject, "image")[
                ..., data.store.rows[subject].channel_indices(card.contrasts)
            ]
            affine = np.asarray(data.store.rows[subject].affine)
            return np.asarray(segmenter.predict(Volume(image, affine)).volume.array)

        new += made.keep(name, subject, f"{row.source}/{row.folders['image']}/{segmenter.digest}", predict)
        true = data.store.read(subject, f"label/{data.label}")
        k = max(data.names) + 1
        dice = metrics.dice(made.read(name, subject), np.where(true == anatomy.IGNORE, 0, true), k)
        present = data.store.present(subject, data.label)
        rows += [
            {"checkpoint": name, "subject": subject, "organ": c, "dice": files.json_number(dice[c])}
            for c in present
        ]
    if new:
        print(f"sentinel_train: {name}: {new} label maps predicted", file=sys.stderr)
    return rows


def _check_labels(where: pathlib.Path, theirs: Mapping[int, str], ours: Mapping[int, str]) -> None:
    for i, name in theirs.items():
        if i and ours.get(i, name) != name:
            raise MismatchError(
                f"{where}: class {i} is {name!r}, in the labels {ours[i]!r}. Train on the same label set."
            )
