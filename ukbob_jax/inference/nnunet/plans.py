"""What the plans.json and dataset.json of an nnU-Net v2 model folder say of one configuration.

A model folder is `DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION`. Numbers per axis are in the order of nnU-Net's arrays
after `transpose_forward`, which is z y x of the file permuted.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from ukbob_jax import files
from ukbob_jax.errors import FileError
from ukbob_jax.inference.nnunet import folders, networks
from ukbob_jax.inference.nnunet.folders import PLANS
from ukbob_jax.inference.nnunet.networks import Network
from ukbob_jax.regions import Regions
from ukbob_jax.volumes import dataset_json

READERS = ("SimpleITKIO", "NibabelIO", "SimpleITKIOWithReorient", "NibabelIOWithReorient")
SCHEMES = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
RESAMPLERS = ("resample_data_or_seg_to_shape", "resample_torch_fornnunet", "no_resampling_hack")
PREPROCESSOR = "DefaultPreprocessor"
_CT_KEYS = ("mean", "std", "percentile_00_5", "percentile_99_5")


class Resampling(NamedTuple):
    """One of nnU-Net's functions that resample, with its arguments (defaults are the function's own)."""

    function: str
    arguments: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class NnunetPlans:
    """One configuration of a model folder.

    Attributes:
        folder: the model folder.
        dataset_name: such as Dataset123_Name.
        trainer: class of the trainer.
        plans_name: such as nnUNetPlans.
        configuration: such as 3d_fullres.
        channels: names of the input channels, in order.
        labels: id to name of every label that can be written, background included.
        regions: overlapping regions in the order of the heads; None: labels that exclude each other.
        file_ending: of the data set's files.
        reader: of images, one of `READERS`.
        transpose_forward: axes z y x of the file in the order of the arrays.
        transpose_backward: its inverse.
        patch_size: voxels; two numbers for a network of slices.
        spacing: mm; as many numbers as the patch.
        normalization_schemes: one of `SCHEMES` per channel.
        use_mask_for_norm: per channel, whether z-score looks at non-zero voxels only.
        intensities: per channel, of the training set's foreground: `mean`, `std`, `percentile_00_5`, ...; may be empty
            where the scheme needs none.
        resampling_data: of images.
        resampling_labels: of labels of a previous stage.
        resampling_logits: of logits.
        batch_size: of training.
        batch_dice: whether training takes the Dice of a batch as one.
        network: ours, by name and fields.
        previous_stage: configuration whose labels a cascade takes as input; "": no cascade.
        plans: the whole plans.json.
        dataset: the whole dataset.json, keys in its order.
    """

    folder: pathlib.Path
    dataset_name: str
    trainer: str
    plans_name: str
    configuration: str
    channels: tuple[str, ...]
    labels: dict[int, str]
    regions: Regions | None
    file_ending: str
    reader: str
    transpose_forward: tuple[int, ...]
    transpose_backward: tuple[int, ...]
    patch_size: tuple[int, ...]
    spacing: tuple[float, ...]
    normalization_schemes: tuple[str, ...]
    use_mask_for_norm: tuple[bool, ...]
    intensities: tuple[Mapping[str, float], ...]
    resampling_data: Resampling
    resampling_labels: Resampling
    resampling_logits: Resampling
    batch_size: int
    batch_dice: bool
    network: Network
    previous_stage: str
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]

    @property
    def in_channels(self) -> int:
        """Of the network: contrasts, and for a cascade a mask per foreground label."""
        return len(self.channels) + (self.foreground if self.previous_stage else 0)

    @property
    def out_channels(self) -> int:
        """Of the network: regions, or labels with the background."""
        return len(self.regions.values) if self.regions else len(self.labels)

    @property
    def foreground(self) -> int:
        """Labels without the background."""
        return len(self.labels) - 1

    @property
    def region_labels(self) -> tuple[int, ...]:
        """Label that each head of a network of regions writes, later ones over earlier ones; empty: no regions."""
        return self.regions.region_labels if self.regions else ()


def read(folder: str | os.PathLike, trainer: str = "", configuration: str = "") -> NnunetPlans:
    """Read plans.json and dataset.json.

    Args:
        folder: the model folder.
        trainer: class of the trainer; by default the first part of the folder's name.
        configuration: by default the last part.
    Raises:
        FileError: a file is missing or damaged, or names something that is not known here.
    """
    folder = folders.find(folder)
    parts = folder.resolve().name.split("__")
    named = parts if folders.is_named(folder) else ["", "", ""]
    trainer, configuration = trainer or named[0], configuration or named[2]
    path = folder / PLANS
    if not trainer or not configuration:
        raise FileError(f"{folder}: the folder's name is not TRAINER__PLANS__CONFIGURATION; name it so.")
    plans = files.read_json(path)
    try:
        return _parse(folder, plans, trainer, configuration, named[1])
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, FileError):
            raise
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise FileError(f"{path}: configuration {configuration!r} cannot be read: {what}.") from error


def resolve(plans: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """The configuration `name` with everything it inherits.

    Raises:
        FileError: there is no such configuration, or it inherits from itself.
    """
    chain: list[dict[str, Any]] = []
    seen: list[str] = []
    at: str | None = name
    while at is not None:
        if at in seen:
            raise FileError(
                f"{where}: configuration {at!r} inherits from itself ({' -> '.join([*seen, at])})."
            )
        if at not in plans["configurations"]:
            raise FileError(
                f"{where}: no configuration {at!r}; there are {', '.join(plans['configurations'])}."
            )
        seen.append(at)
        chain.append(plans["configurations"][at])
        at = chain[-1].get("inherits_from")
    return {key: value for part in reversed(chain) for key, value in part.items()}


def _parse(
    folder: pathlib.Path, plans: Mapping[str, Any], trainer: str, configuration: str, plans_name: str
) -> NnunetPlans:
    path = folder / PLANS
    where = f"{path}: {configuration}"
    chosen = resolve(plans, configuration, str(path))
    dataset = dataset_json.read(folder)
    channels = dataset.contrasts
    forward = tuple(map(int, plans["transpose_forward"]))
    rank = len(chosen["patch_size"])
    found = NnunetPlans(
        folder=folder,
        dataset_name=str(plans.get("dataset_name", "")),
        trainer=trainer,
        plans_name=str(plans.get("plans_name", plans_name)),
        configuration=configuration,
        channels=channels,
        labels=_labels(dataset),
        regions=dataset.regions,
        file_ending=str(dataset.fields.get("file_ending", ".nii.gz")),
        reader=_one_of(plans["image_reader_writer"], READERS, f"{path}: image_reader_writer"),
        transpose_forward=forward,
        transpose_backward=tuple(map(int, plans["transpose_backward"])),
        patch_size=tuple(map(int, chosen["patch_size"])),
        spacing=tuple(map(float, chosen["spacing"])),
        normalization_schemes=tuple(
            _one_of(s, SCHEMES, f"{where}: normalization_schemes") for s in chosen["normalization_schemes"]
        ),
        use_mask_for_norm=tuple(map(bool, chosen["use_mask_for_norm"])),
        intensities=_intensities(plans, len(channels)),
        resampling_data=_resampling(chosen, "data", where),
        resampling_labels=_resampling(chosen, "seg", where),
        resampling_logits=_resampling(chosen, "probabilities", where),
        batch_size=int(chosen["batch_size"]),
        batch_dice=bool(chosen["batch_dice"]),
        network=networks.of_trainer(trainer, chosen, where),
        previous_stage=str(chosen.get("previous_stage") or ""),
        plans=plans,
        dataset=dataset.fields,
    )
    _one_of(chosen.get("preprocessor_name", PREPROCESSOR), (PREPROCESSOR,), f"{where}: preprocessor_name")
    _check(found, rank, where)
    return found


def _labels(dataset: dataset_json.Dataset) -> dict[int, str]:
    """Id to name of what can be written."""
    where = dataset.folder / dataset_json.NAME
    labels = dict(sorted(dataset.labels.items()))
    if labels.get(0) is None or dataset.fields["labels"].get("background") != 0:
        raise FileError(f'{where}: labels {dataset.fields.get("labels")!r} lack "background": 0.')
    if dataset.regions:
        return labels
    if list(labels) != list(range(len(labels))):
        raise FileError(
            f"{where}: labels {list(labels)} are not 0, 1, 2, ..., which nnU-Net's networks write them as."
        )
    return labels


def _intensities(plans: Mapping[str, Any], channels: int) -> tuple[Mapping[str, float], ...]:
    """Per channel; before version 2.4 under another key."""
    keys = ("foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality")
    found = next((plans[key] for key in keys if key in plans), {})
    return tuple(found.get(str(channel), {}) for channel in range(channels))


def _resampling(chosen: Mapping[str, Any], what: str, where: str) -> Resampling:
    key = f"resampling_fn_{what}"
    name = _one_of(chosen[key], RESAMPLERS, f"{where}: {key}")
    return Resampling(name, dict(chosen.get(f"{key}_kwargs") or {}))


def _one_of(value: Any, known: tuple[str, ...], where: str) -> str:
    if value not in known:
        raise FileError(f"{where} {value!r} is not known; known are {', '.join(known)}.")
    return str(value)


def _check(plans: NnunetPlans, rank: int, where: str) -> None:
    """Refuse what does not fit together."""
    channels = len(plans.channels)
    if not channels:
        raise FileError(f"{plans.folder / dataset_json.NAME}: channel_names are missing.")
    for what, count in (
        ("normalization_schemes", len(plans.normalization_schemes)),
        ("use_mask_for_norm", len(plans.use_mask_for_norm)),
    ):
        if count != channels:
            raise FileError(f"{where}: {what} has {count} entries, and dataset.json {channels} channels.")
    if rank not in (2, 3) or len(plans.spacing) != rank:
        raise FileError(
            f"{where}: patch_size {plans.patch_size} and spacing {plans.spacing} differ in length."
        )
    if sorted(plans.transpose_forward) != [0, 1, 2] or any(
        plans.transpose_forward[b] != a for a, b in enumerate(plans.transpose_backward)
    ):
        raise FileError(f"{where}: transpose_backward does not undo transpose_forward.")
    for number, scheme in enumerate(plans.normalization_schemes):
        lacking = [key for key in _CT_KEYS if key not in plans.intensities[number]]
        if scheme == "CTNormalization" and lacking:
            raise FileError(
                f"{where}: channel {number} is CT, and its intensity properties lack {lacking[0]}."
            )
