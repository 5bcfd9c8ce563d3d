"""A trained grader, ready to use: `load(workdir).grade(image, labels, spacing_mm)`.

Whoever asks for grades takes any object with that one method, `Grader`.
"""

import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ukbob_jax import files, weights
from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.models.card import ModelCard
from ukbob_jax.sentinel import embeddings as tables
from ukbob_jax.sentinel import grading
from ukbob_jax.sentinel.embeddings import Embeddings
from ukbob_jax.sentinel.grading import SentinelGrades
from ukbob_jax.sentinel.resnet import ResNet50
from ukbob_jax.sentinel.sight import Sight, kind_of, usual
from ukbob_jax.training.checkpoints import restore_params
from ukbob_jax.training.digests import digests
from ukbob_jax.training.state import split_pretext

FILE = "sentinel.json"
TABLE = "embeddings.npy"
VERSION = 1
TASK = "regression"


class Grader(Protocol):
    """What predicts the Dice of every organ's label on a scan."""

    def grade(self, image: Any, labels: Any, spacing_mm: Sequence[float]) -> SentinelGrades:
        """Grades by class id of labels x y z (uint8) on an image x y z or x y z 1."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedGrader:
    """A grader with all that it must be called with.

    Attributes:
        model: the network.
        variables: its parameters and other collections.
        embeddings: by class; None: the network has learned them.
        sight: how it looks at a scan.
        num_classes: k, of the label sets it grades.
        curve: from what the network says to Dice: numbers of the network, ascending, and their Dice; None: the same.
        interval: half width; None: not known.
        contrast: that it was trained on; "": not known.
        facts: of `sentinel.json`; empty for a released file.
    """

    model: Any
    variables: Mapping[str, Any]
    embeddings: Embeddings | None
    sight: Sight
    num_classes: int
    interval: float | None = None
    curve: tuple[Sequence[float], Sequence[float]] | None = None
    contrast: str = ""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with whatever decides a grade, for grades to be kept under."""
        table = None if self.embeddings is None else self.embeddings.vectors.tobytes().hex()
        said = [repr(self.model), table, list(self.sight), self.num_classes, self.interval, self.curve]
        return files.fingerprint([digests(dict(self.variables)), *said])

    def grade(
        self, image: Any, labels: Any, spacing_mm: Sequence[float], *, image_modality: str = ""
    ) -> SentinelGrades:
        """Predict the Dice of every organ's label on a scan.

        Args:
            image: x y z, or x y z 1, RAS, of the contrast that the grader was trained on; HU for CT.
            labels: x y z, integers.
            spacing_mm: of a voxel.
            image_modality: of the image, where known.
        Raises:
            MismatchError, ValuesError, GeometryError: as `grading.grade`.
        """
        if image_modality and image_modality != self.sight.modality:
            raise MismatchError(
                f"image: {image_modality} given to a grader of {self.sight.modality}; take one of its kind."
            )
        found = grading.grade(
            self.model,
            self.variables,
            image,
            labels,
            spacing_mm,
            embeddings=self.embeddings,
            num_classes=self.num_classes,
            sight=self.sight,
        )
        empty = np.array([reason == grading.EMPTY for reason in found.reason])
        dice = np.where(empty, found.dice, self.calibrated(found.dice)).astype(np.float32)
        width = np.where(empty, 0, np.nan if self.interval is None else self.interval)
        low, high = (np.clip(dice + sign * width, 0, 1).astype(np.float32) for sign in (-1, 1))
        return found._replace(dice=dice, low=low, high=high)

    def calibrated(self, said: np.ndarray) -> np.ndarray:
        """Dice of what the network says; NaN stays. What it says of single slices, `slice_dice`, is left as it is."""
        return said if self.curve is None else np.interp(said, *self.curve)


def load(workdir: str | os.PathLike, which: str = "best") -> TrainedGrader:
    """The grader of a training run.

    Args:
        workdir: of the run; holds `checkpoints` and `sentinel.json`.
        which: "best" by validation, or "latest".
    Raises:
        FileError: no grader there, or it is damaged.
        MismatchError: a network of another kind.
    """
    folder = pathlib.Path(workdir)
    facts = read_facts(folder)
    params, model_state, meta = restore_params(folder / "checkpoints", which)
    card = ModelCard.from_json(meta, folder)
    if card.task != TASK:
        raise MismatchError(
            f"{folder}: holds a network of {card.task}, no grader. Give the workdir of sentinel_train."
        )
    return assemble(folder, facts, card.build(), split_pretext(params)[0], model_state)


def assemble(
    folder: pathlib.Path, facts: Mapping[str, Any], model: Any, params: Any, model_state: Any
) -> TrainedGrader:
    """A grader from parameters and the facts that its training wrote."""
    try:
        sight = Sight(kind_of(model), *(facts[name] for name in Sight._fields[1:]))
        classes, interval = int(facts["num_classes"]), facts["interval"]
        curve = facts["curve"][0], facts["curve"][1]
        contrast = str(facts["contrast"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FileError(
            f"{folder / FILE}: damaged ({error!r}). Run the training again; it goes on at its end."
        ) from None
    table = None if model.learned_classes else tables.load(folder / TABLE, classes)
    table = None if table is None else table._replace(source=f"{folder.name}'s embeddings")
    variables = {"params": params, **model_state}
    return TrainedGrader(model, variables, table, sight, classes, interval, curve, contrast, facts)


def read_facts(folder: pathlib.Path) -> dict[str, Any]:
    """What a training wrote of its grader.

    Raises:
        FileError: there is none, or it is damaged or of another version.
    """
    path = folder / FILE
    if not path.is_file():
        what = "its training has not ended" if (folder / "checkpoints").is_dir() else "no grader there"
        raise FileError(f"{path}: {what}. Train one with --config=configs/sentinel.py, or correct the path.")
    facts = files.read_json(path)
    if not isinstance(facts, dict) or facts.get("version") != VERSION:
        raise FileError(f"{path}: is no description of a grader of version {VERSION}. Train it again.")
    return facts


def released(
    path: str | os.PathLike, embeddings: str | os.PathLike, modality: str = "CT", rule: str = "percentile"
) -> TrainedGrader:
    """The grader of slices of a file in the released layout, with the embeddings that it was trained with.

    Args:
        path: `.pth`, `.pt` or `.safetensors`.
        embeddings: file of `embeddings.load`.
        modality: of its training.
        rule: of the window of MR.
    Raises:
        FileError: a file is missing or damaged.
        MismatchError: the weights do not fit, such as with embeddings of another length.
    """
    table = tables.load(embeddings)
    model = ResNet50(num_classes_embedding=table.vectors.shape[1])
    read = weights.read(path, model)
    sight = usual(model, modality)._replace(rule=rule)
    variables = {"params": read.params, **read.model_state}
    return TrainedGrader(model, variables, table, sight, len(table.vectors))


def open_grader(path: str, embeddings: str, modality: str, rule: str) -> TrainedGrader:
    """A workdir's grader, or that of a file; `embeddings`, `modality` and `rule` count for a file alone.

    Raises:
        FileError: no grader there.
    """
    found = pathlib.Path(path)
    if found.is_file():
        return released(found, embeddings, modality, rule)
    if not path or not found.is_dir():
        raise FileError(
            f"config.sentinel.grader: {path or 'empty'}: no grader there. Give the workdir of a training of "
            "configs/sentinel.py, or a .pth file."
        )
    return load(found)


def save_table(folder: pathlib.Path, table: Embeddings) -> None:
    """Write the embeddings beside a grader's checkpoints."""
    buffer = io.BytesIO()
    np.save(buffer, table.vectors)
    files.write_bytes(folder / TABLE, buffer.getvalue())
