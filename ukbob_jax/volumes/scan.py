"""A case read into memory: its channels as one image, its labels as one map each, all in RAS."""

import pathlib
import warnings
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from ukbob_jax import advice
from ukbob_jax.errors import ConfigError, MismatchError, ValuesError
from ukbob_jax.volumes.case import Case, listed, scans
from ukbob_jax.volumes.nifti import check_same_space, read_label_of, read_volume
from ukbob_jax.volumes.volume import Volume


class Scan(NamedTuple):
    """One subject, in RAS.

    Attributes:
        image: x y z c.
        labels: label-set name to x y z, on the image's grid.
        annotated: label-set name to the ids that were annotated; None where all were.
    """

    image: Volume
    labels: dict[str, Volume]
    annotated: dict[str, tuple[int, ...] | None]


def read_case(
    case: Case,
    *,
    num_classes: int | None = None,
    organs: Mapping[str, int] | None = None,
    nan: Literal["refuse", "zero"] = "refuse",
    assume_ras: bool = False,
) -> Scan:
    """Read and check all files of a case.

    Args:
        case: from a layout.
        num_classes: as `read_volume`, for labels.
        organs: mask name to id, for labels that are a folder of one mask per organ; masks it does not name are left
            out, several masks may share an id.
        nan: as `read_volume`, for images.
        assume_ras: as `read_volume`, for all files.
    Raises:
        MismatchError: the files do not cover the same points in space, or the layout found a problem.
        ConfigError: a folder of masks without `organs`.
        FileError, GeometryError, ValuesError: as `read_volume`.
    """
    if case.problem:
        raise MismatchError(case.problem)
    channels = [
        read_volume(path, channels=True, nan=nan, assume_ras=assume_ras).to_ras() for path in case.images
    ]
    for path, volume in zip(case.images[1:], channels[1:]):
        check_same_space(channels[0], volume, str(case.images[0]), str(path))
    image = channels[0]
    if len(channels) > 1:
        arrays = [volume.array for volume in channels]
        shape = (*image.shape, sum(array.shape[3] for array in arrays))
        together = np.empty(shape, np.result_type(*arrays), order="F")  # each channel in one piece of memory
        image = Volume(np.concatenate(arrays, axis=-1, out=together), image.affine, image.codes)
    labels, annotated = {}, {}
    for name, path in case.labels.items():
        if path.is_dir():
            labels[name], annotated[name] = merge_masks(path, organs, assume_ras=assume_ras)
            check_same_space(image, labels[name], str(case.images[0]), str(path))
        else:
            labels[name] = read_label_of(
                image, path, str(case.images[0]), num_classes=num_classes, assume_ras=assume_ras
            )
            annotated[name] = None
    return Scan(image, labels, annotated)


def check_ids(case: Case, scan: Scan) -> None:
    """Refuse a case whose ids a store cannot hold.

    Raises:
        ValuesError: ids above 255, naming the file and the first of them.
    """
    for name, label in scan.labels.items():
        if label.array.max() > 255:
            ids = np.unique(label.array[label.array > 255])
            shown = ", ".join(map(str, ids[:8])) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
            raise ValuesError(
                f"{case.labels[name]}: label ids {shown}; a store holds 0 to 254 and 255 to ignore. Map them"
                f"{advice.fix(' with {}', 'label_table', 'FILE')}, lines of `id, new id, name`."
            )


def merge_masks(
    folder: pathlib.Path, organs: Mapping[str, int] | None, *, assume_ras: bool = False
) -> tuple[Volume, tuple[int, ...]]:
    """One label map from a folder of masks, in RAS, and the ids all of whose masks are there.

    Where masks overlap, the one whose name comes last in `organs` wins and a warning says how many voxels.

    Args:
        folder: holds NAME.nii.gz with 0 and one other value.
        organs: NAME to id, 1 to 254.
        assume_ras: as `read_volume`.
    Raises:
        ConfigError: no `organs`.
        MismatchError: none of the masks is named in `organs`, or they differ in grid.
        ValuesError: a mask with several ids.
    """
    if not organs:
        raise ConfigError(f"{folder}: a folder of one mask per organ; pass organs, mask name to label id.")
    masks = scans(folder)
    known = {name: i for name, i in organs.items() if name in masks}
    if known and (unknown := [name for name in masks if name not in organs]):
        warnings.warn(
            f"{folder}: {len(unknown)} of {len(masks)} masks are left out, as no class has their name: "
            f"{listed(unknown)}.",
            stacklevel=3,
        )
    merged, overlap = None, 0
    for name, i in known.items():
        mask = read_volume(masks[name], kind="label", assume_ras=assume_ras).to_ras()
        inside = mask.array != 0
        if (mask.array[inside] != mask.array.max()).any():
            raise ValuesError(
                f"{masks[name]}: a label map of several ids; expected a mask, one value beside 0."
            )
        if merged is None:
            merged = Volume(np.zeros(mask.shape, np.uint8, order="F"), mask.affine, mask.codes)
        check_same_space(merged, mask, str(folder), str(masks[name]))
        overlap += int(((merged.array != 0) & (merged.array != i) & inside).sum())
        merged.array[inside] = i
    if merged is None:
        raise MismatchError(
            f"{folder}: none of its {len(masks)} masks is named in organs, such as {next(iter(organs))}."
        )
    if overlap:
        warnings.warn(
            f"{folder}: {overlap} voxels lie in several masks; the later organ was taken.", stacklevel=3
        )
    partial = {i for name, i in organs.items() if name not in masks}
    return merged, tuple(sorted(set(known.values()) - partial))
