"""What the presets are made of: the data sets whose models they run, how these are named, and which ids they write.

Sources: `map_tasks_config.py`, `map_to_binary.py` and `nnunet.py` of TotalSegmentator at 0e65a448; `VibeSeg/vibeseg.py` and
`VibeSeg/inference_nnunet.py` of TPTBox at f43f7fb5.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.nnunet import label_tables
from ukbob_jax.inference.preset_names import PRESETS, SPEEDS

EVERY = "every"  # fold, that of all cases too
_LARGEST = 255  # id, since labels are merged as uint8


@dataclasses.dataclass(frozen=True)
class Part:
    """One model of a preset.

    Attributes:
        dataset: number of its data set, which its folder is named by.
        names: its own ids to names, background included.
        first: id in the label map that its own 1 is written as; the others follow.
    """

    dataset: int
    names: Mapping[int, str]
    first: int = 1

    @property
    def written(self) -> dict[int, int]:
        """Its own id to the id in the label map; the background is not written."""
        return {i: i + self.first - 1 for i in self.names if i}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A preset: models, and the steps around them.

    Attributes:
        name: for messages and reports.
        parts: models, each of which overwrites those before.
        steps: whose steps are taken around nnU-Net.
        model_folders: patterns of a model folder's name, the first that there is one of counts.
        folds: as for `checkpoint.find`, or `EVERY`.
        step_size: from one tile to the next at most, as a fraction of the tile.
        spacing_mm: along all axes, that images are resampled to; 0: the model folder names it.
        label_set: key of `anatomy.DATASETS` whose ids are written; empty: none of them.
    Raises:
        ConfigError: ids that a label map of uint8 does not hold.
    """

    name: str
    parts: tuple[Part, ...]
    steps: Literal["tptbox", "totalsegmentator"]
    model_folders: tuple[str, ...]
    folds: str
    step_size: float
    spacing_mm: float = 0.0
    label_set: str = ""

    def __post_init__(self) -> None:
        if max(self.names) > _LARGEST:
            raise ConfigError(f"{self.name}: label {max(self.names)} is above {_LARGEST}.")

    @property
    def names(self) -> dict[int, str]:
        """Id to name of every label that can be written, background included."""
        found = {0: "background"}
        for part in self.parts:
            found |= {written: part.names[own] for own, written in part.written.items()}
        return found


def _stretches(label_set: str, stretches: Mapping[int, tuple[int, int]]) -> tuple[Part, ...]:
    """Parts that have a stretch of a label set each: number of the data set -> first and last id."""
    return tuple(
        Part(dataset, label_tables.part_of(label_set, first, last), first)
        for dataset, (first, last) in stretches.items()
    )


def _total(name: str, trainer: str, spacing_mm: float, stretches: Mapping[int, tuple[int, int]]) -> Recipe:
    """One of TotalSegmentator's tasks "total" and "total_mr"."""
    ending = "__nnUNetPlans__3d_fullres"
    return Recipe(
        name=name,
        parts=_stretches(name, stretches),
        steps="totalsegmentator",
        model_folders=(trainer + ending, "*" + ending),
        folds="0",
        step_size=0.8,  # of both tasks at all spacings
        spacing_mm=spacing_mm,
        label_set=name,
    )


_CT, _MR = "totalsegmentator_ct", "totalsegmentator_mr"
_CT_SMALL, _MR_ALL = "nnUNetTrainer_4000epochs_NoMirroring", "nnUNetTrainer_2000epochs_NoMirroring"
_CT_PARTS = {291: (1, 24), 292: (25, 50), 293: (51, 68), 294: (69, 91), 295: (92, 117)}
_MR_PARTS = {850: (1, 29), 851: (30, 50)}

# Preset -> speed -> recipe.
RECIPES: dict[str, dict[str, Recipe]] = {
    "vibesegmentator": {
        "": Recipe(
            name="vibesegmentator",
            parts=_stretches("vibesegmentator_ct", {100: (1, 72)}),
            steps="tptbox",
            model_folders=("*__nnUNet*ResEnc*", "*__nnUNetPlans*"),
            folds=EVERY,
            step_size=0.5,
            label_set="vibesegmentator_ct",
        )
    },
    _CT: {
        "": _total(_CT, "nnUNetTrainerNoMirroring", 1.5, _CT_PARTS),
        "fast": _total(_CT, _CT_SMALL, 3.0, {297: (1, 117)}),
        "fastest": _total(_CT, _CT_SMALL, 6.0, {298: (1, 117)}),
    },
    _MR: {
        "": _total(_MR, _MR_ALL, 1.5, _MR_PARTS),
        "fast": _total(_MR, _MR_ALL, 3.0, {852: (1, 50)}),
        "fastest": _total(_MR, _MR_ALL, 6.0, {853: (1, 50)}),
    },
}


def find(name: str, speed: str = "") -> Recipe:
    """The recipe of a preset.

    Raises:
        ConfigError: there is no such preset, or it has no such models.
    """
    if name not in RECIPES:
        raise ConfigError(f"preset {name!r} is not known; choose one of {', '.join(PRESETS)}.")
    if speed not in SPEEDS:
        raise ConfigError(f'speed {speed!r} is not one of "", "fast", "fastest".')
    if speed not in RECIPES[name]:
        raise ConfigError(f"preset {name!r} has no models for {speed!r}, only those of full resolution.")
    return RECIPES[name][speed]
