"""VIBESegmentator and TotalSegmentator from the weights that a user has downloaded: `bob.nnunet.preset(NAME, FOLDER)`.

What these programs do around nnU-Net is in `tptbox.py` and `totalsegmentator.py`, which models they run in `recipes.py`.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ukbob_jax import advice, files
from ukbob_jax.errors import ConfigError, GeometryError, MismatchError
from ukbob_jax.inference.adaptation.methods import MethodLike
from ukbob_jax.inference.nnunet import (
    checkpoint,
    label_tables,
    model,
    preprocess,
    recipes,
    segmenter,
    totalsegmentator,
    tptbox,
    weights_folder,
)
from ukbob_jax.inference.nnunet.model import Announce, NnunetModel, RunTiles
from ukbob_jax.inference.nnunet.preprocess import ScanInput
from ukbob_jax.inference.nnunet.recipes import Part, Recipe
from ukbob_jax.inference.options import PredictOptions
from ukbob_jax.inference.prediction import Prediction
from ukbob_jax.inference.reports import summary
from ukbob_jax.inference.reports.summary import Certainty
from ukbob_jax.inference.windows import memory
from ukbob_jax.inference.windows.memory import MemoryEstimate
from ukbob_jax.options import changed
from ukbob_jax.volumes.volume import Volume

KEPT_BYTES = 2**30  # weights of all models together, up to which they stay in memory between scans
_AS_STORED = "SimpleITKIO"  # a reader that leaves the axes alone, as TPTBox hands its arrays over


class Steps(NamedTuple):
    """What is done around nnU-Net with a channel, x y z, and with the labels."""

    before: Callable[[Volume], Volume]  # as stored -> what nnU-Net gets
    after: Callable[[Volume, Volume], Volume]  # labels on that grid, the image as stored -> what is written


@dataclasses.dataclass(eq=False)
class PartModel:
    """One model of a preset, read anew whenever it is asked for unless it is kept.

    Attributes:
        part: of the recipe.
        read: its networks from their files.
        kept: the networks, of small models.
        estimates: of the programs that were compiled for it.
    """

    part: Part
    read: Callable[[], NnunetModel]
    kept: NnunetModel | None = None
    estimates: dict[Any, MemoryEstimate] = dataclasses.field(default_factory=dict)

    def get(self) -> NnunetModel:
        """The networks."""
        return dataclasses.replace(self.kept or self.read(), estimates=self.estimates)

    def label(
        self, given: Sequence[Volume], held: int, certainty: bool
    ) -> tuple[np.ndarray, Certainty | None]:
        """Its labels x y z on the grid of `given`, and how sure it is of them; then it forgets what it has read.

        Args:
            given: the channels.
            held: bytes that the caller keeps meanwhile.
            certainty: whether the latter is wanted.
        """
        networks = self.get()
        array, properties = networks.preprocess(given, mirror=False)
        labels, found = networks.segment(array, properties, False, certainty, held)
        certain = None if found is None else summary.certainty(found, max(self.part.names) + 1)
        return labels.array, certain


@dataclasses.dataclass(frozen=True, eq=False)
class PresetSegmenter:
    """A preset in the place of a trained network, as `NnunetSegmenter`.

    Attributes:
        recipe: which models, and how they become one label map.
        models: of its parts.
        steps: around nnU-Net.
        renumber: id of the recipe -> id that the model folder has written for it, where that is another.
        channels: names of a scan's channels, in the order of `predict`.
        provenance: what the labels are from, as JSON values.
    """

    recipe: Recipe
    models: tuple[PartModel, ...]
    steps: Steps
    renumber: dict[int, int]
    channels: tuple[str, ...]
    provenance: dict[str, Any]

    def __call__(self, scan: ScanInput | Sequence[ScanInput], adapt: MethodLike = False) -> Volume:
        """Labels of a scan in its own space; as `predict`."""
        return self.predict(scan, method=adapt).volume

    def labels(self, scan: ScanInput | Sequence[ScanInput]) -> Volume:
        """The volume of `predict` without a report, which takes less time."""
        return self._segment(scan, "refuse", certainty=False)[0]

    def running(self, run_tiles: RunTiles | None) -> "PresetSegmenter":
        """The same preset with the tiles of all its models run by `run_tiles`, as `NnunetModel.running`."""
        models = [dataclasses.replace(one, kept=one.get().running(run_tiles)) for one in self.models]
        return dataclasses.replace(self, models=tuple(models))

    def only(self, wanted: Collection[str]) -> "PresetSegmenter":
        """The same preset without the models that draw none of the structures named; all where none is named.

        Where two models claim a voxel the later one has it, so that a model left out may leave voxels to an earlier one.
        """
        ids = {i for i, name in self.recipe.names.items() if i and name in wanted}
        kept = [n for n, one in enumerate(self.models) if not {*one.part.written.values()}.isdisjoint(ids)]
        if not wanted or not kept:
            return self
        provenance = self.provenance | {"parts": [self.provenance["parts"][n] for n in kept]}
        return dataclasses.replace(self, models=tuple(self.models[n] for n in kept), provenance=provenance)

    def predict(
        self, scan: ScanInput | Sequence[ScanInput], options: PredictOptions | None = None, **changes: Any
    ) -> Prediction:
        """Segment a scan.

        Entropy and confidence of a structure are those of the model that has it, over the voxels that this model gives it.

        Args:
            scan: one file, DICOM folder or Volume per channel, in the order of `channels`; or one 4-D for all.
            options: as for `NnunetSegmenter.predict`.
            **changes: fields that differ from `options`.
        Raises:
            ConfigError: a setting that networks of nnU-Net do not take, or more memory is needed than there is.
            MismatchError, FileError, GeometryError, ValuesError: as `preprocess.run`.
        """
        options = changed(options or PredictOptions(), changes, "predict")
        segmenter.check(options)
        found, sums = self._segment(scan, options.nan, certainty=True)
        return Prediction(
            found, segmenter.describe(found, sums, self.names, scan, self.provenance), self.names
        )

    def _segment(
        self, scan: ScanInput | Sequence[ScanInput], nan: Literal["refuse", "zero"], certainty: bool
    ) -> tuple[Volume, Certainty]:
        """Labels in the scan's own space, and how sure the models are of them; zeros without `certainty`."""
        stored, names = preprocess.read(scan, self.channels, nan)
        images = [channel for volume in stored for channel in _channels(volume)]
        if min(images[0].shape) < 2:
            raise GeometryError(
                f"{names[0]}: shape {images[0].shape}, one slice; {self.recipe.name} takes volumes."
            )
        merged, sums = self._label([self.steps.before(image) for image in images], images, certainty)
        return self.steps.after(merged, images[0]), sums

    def _label(
        self, given: Sequence[Volume], images: Sequence[Volume], certainty: bool
    ) -> tuple[Volume, Certainty]:
        """Labels of all models on the grid of `given`, one after the other, and how sure they are."""
        merged = np.zeros(given[0].shape, np.uint8)
        sums = Certainty(*np.zeros((3, max(self.names) + 1)))
        held = sum(volume.array.nbytes for volume in (*images, *given)) + merged.nbytes
        weights = [memory.tree_bytes(one.kept.members) if one.kept else 0 for one in self.models]
        for one, own in zip(self.models, weights):
            labels, certain = one.label(given, held + sum(weights) - own, certainty)
            totalsegmentator.overwrite(merged, labels, one.part.written)
            if certain is not None:
                _add(sums, certain, {own: self._final(i) for own, i in one.part.written.items()})
        return dataclasses.replace(given[0], array=merged), sums

    @property
    def names(self) -> dict[int, str]:
        """Id to name of every label that can be written, background included."""
        return {self._final(i): name for i, name in self.recipe.names.items()}

    @property
    def label_set(self) -> str:
        """Key of `anatomy.DATASETS` whose ids are written; empty: none of them, `names` says it."""
        return "" if self.renumber else self.recipe.label_set

    def _final(self, number: int) -> int:
        return self.renumber.get(number, number)

    @property
    def estimates(self) -> dict[Any, MemoryEstimate]:
        """Of the programs that were compiled."""
        return {
            (number, key): estimate
            for number, one in enumerate(self.models)
            for key, estimate in one.estimates.items()
        }

    @functools.cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with whatever decides a prediction, as `Segmenter.digest`."""
        return files.fingerprint([[one.get().digest for one in self.models], self.provenance])


def preset(
    recipe: str | Recipe,
    folder: str | os.PathLike,
    *,
    speed: str = "",
    folds: str | int | Sequence[int | str] | None = None,
    step_size: float | None = None,
    batch: int = 0,
    dtype: str = "",
    trainer: str = "",
    fill_holes: bool = False,
    keep_size: bool = False,
    kept_bytes: int = KEPT_BYTES,
    announce: Announce | None = None,
) -> PresetSegmenter:
    """VIBESegmentator or TotalSegmentator with the weights in a folder; all of them are read and checked here.

    Args:
        recipe: "vibesegmentator", "totalsegmentator_ct", "totalsegmentator_mr", or a recipe of one's own.
        folder: holds DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION, at the top or some levels down.
        speed: "fast" or "fastest", for TotalSegmentator's models of 3 or 6 mm.
        folds: as for `nnunet.load`; None: those that the program takes.
        step_size: from one tile to the next at most, as a fraction of the tile; None: the program's.
        batch: as for `nnunet.load`.
        dtype: the same.
        trainer: the same.
        fill_holes: fill what a label encloses, as VIBESegmentator can.
        keep_size: leave labels at the model's spacing and orientation, as VIBESegmentator can.
        kept_bytes: up to so many the weights of several models stay in memory; above, one model's at a time.
        announce: called with the estimate of memory for every new bucket of each model.
    Raises:
        ConfigError: no such preset, or an option that it does not take.
        FileError: a model is missing, is there several times, is damaged, or is of an unknown trainer.
        MismatchError: a model has other labels or channels than the preset.
    """
    if isinstance(recipe, str):
        recipe = recipes.find(recipe, speed)
    elif speed:
        raise ConfigError(f"speed {speed!r} goes with the name of a preset, not with a recipe.")
    for name, value in (("fill_holes", fill_holes), ("keep_size", keep_size)):
        if value and recipe.steps != "tptbox":
            raise ConfigError(
                f"{advice.setting(name)}: a step of vibesegmentator, which {recipe.name} lacks."
            )
    places = weights_folder.find(folder, [part.dataset for part in recipe.parts], recipe.model_folders)
    for part, place in zip(recipe.parts, places):
        label_tables.check(place, part.names)
    options = {
        **{"step_size": recipe.step_size if step_size is None else step_size, "announce": announce},
        **{"batch": batch, "dtype": dtype, "trainer": trainer},
    }
    steps, renumber, facts = _steps(recipe, places[0], fill_holes, keep_size)
    models = [
        PartModel(part, functools.partial(_read, recipe, number, place, folds, options))
        for number, (part, place) in enumerate(zip(recipe.parts, places))
    ]
    channels, parts = _check(models, kept_bytes)
    provenance = {"preset": recipe.name, "speed": speed, **facts, "parts": parts}
    return PresetSegmenter(recipe, tuple(models), steps, renumber, channels, provenance)


def _steps(
    recipe: Recipe, place: pathlib.Path, fill_holes: bool, keep_size: bool
) -> tuple[Steps, dict[int, int], dict[str, Any]]:
    """The steps of a recipe, which ids they change, and what they depend on."""
    if recipe.steps == "totalsegmentator":
        before = functools.partial(totalsegmentator.before, spacing_mm=recipe.spacing_mm)
        return Steps(before, totalsegmentator.after), {}, {"spacing_mm": recipe.spacing_mm}
    grid = tptbox.read_grid(place)
    after = functools.partial(tptbox.after, grid=grid, fill=fill_holes, keep_size=keep_size)
    facts = {"orientation": grid.orientation, "spacing_mm": list(grid.spacing_mm)}
    facts |= {"renumber": dict(grid.renumber), "fill_holes": fill_holes, "keep_size": keep_size}
    return Steps(functools.partial(tptbox.before, grid=grid), after), dict(grid.renumber), facts


def _read(
    recipe: Recipe,
    number: int,
    place: pathlib.Path,
    folds: str | int | Sequence[int | str] | None,
    options: Mapping[str, Any],
) -> NnunetModel:
    """The networks of one part, with what the program around them changes in nnU-Net."""
    if folds is None:
        every = [fold.name for fold in sorted(place.glob("fold_*"))] if recipe.folds == recipes.EVERY else []
        folds = every or (checkpoint.ALL if recipe.folds == recipes.EVERY else recipe.folds)
    networks = model.load(place, folds, **options)
    if len(recipe.parts) > 1:
        networks = dataclasses.replace(networks, title=f"segment, part {number + 1} of {len(recipe.parts)}")
    if recipe.steps == "tptbox":
        said = dataclasses.replace(networks.plans, reader=_AS_STORED)
        networks = dataclasses.replace(networks, plans=said, importance=tptbox.importance)
    return networks


def _check(models: Sequence[PartModel], kept_bytes: int) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Read all models once; keep them if they are small enough together. Returns their channels and provenance."""
    read, size = [], 0
    for one in models:
        one.kept = one.read()
        read.append((one.kept.plans, one.kept.provenance))
        size += sum(map(memory.tree_bytes, one.kept.members))
        if size > kept_bytes and len(models) > 1:
            for earlier in models:
                earlier.kept = None
    first, *others = (plans for plans, _ in read)
    for other in others:
        if len(other.channels) != len(first.channels):
            raise MismatchError(
                f"{other.folder}: takes {len(other.channels)} channels, and {first.folder} takes "
                f"{len(first.channels)}. Put the models of one preset together."
            )
    return first.channels, [provenance for _, provenance in read]


def _channels(volume: Volume) -> list[Volume]:
    """The channels of a volume, each x y z."""
    if volume.array.ndim == 3:
        return [volume]
    return [dataclasses.replace(volume, array=volume.array[..., c]) for c in range(volume.array.shape[3])]


def _add(sums: Certainty, own: Certainty, written: Mapping[int, int]) -> None:
    """Add what one model is sure of, in place, under the ids that are `written` for its own."""
    for total, values in zip(sums, own):
        total[0] += values[0]
        for mine, theirs in written.items():
            total[theirs] += values[mine]
