"""One case of a raw folder as nnU-Net trains on it: the preprocessed image, and its label map on the same grid."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import GeometryError, ValuesError
from ukbob_jax.inference.nnunet import labels, preprocess
from ukbob_jax.inference.nnunet.plans import NnunetPlans
from ukbob_jax.volumes import dataset_json
from ukbob_jax.volumes.nifti import read_volume


def prepare(
    plans: NnunetPlans, images: Sequence[str | os.PathLike], label: str | os.PathLike
) -> tuple[np.ndarray, np.ndarray]:
    """Preprocess one case as `DefaultPreprocessor.run_case` of nnU-Net 2.8.1.

    Args:
        plans: of the model.
        images: one file per channel.
        label: the label map on the images' grid. As in nnU-Net shapes must agree, and headers are not compared.
    Returns:
        Image c z y x float32, and label map z y x uint8: background also where it was outside the mask, 255 where the
        data set's ignored label was.
    Raises:
        GeometryError: label map and images differ in shape.
        ValuesError: ids that dataset.json does not name.
        FileError, MismatchError: as `preprocess.run`.
    """
    array, properties = preprocess.crop([pathlib.Path(path) for path in images], plans)
    ids = _read(plans, label, properties["shape_before_cropping"])
    ids = ids[tuple(slice(*pair) for pair in properties["bbox_used_for_cropping"])]
    array = preprocess.finish(array, properties, plans, ids != 0)
    how, current = plans.resampling_labels, [properties["spacing"][axis] for axis in plans.transpose_forward]
    where = f"{plans.folder}: {plans.configuration}: resampling_fn_seg"
    shape = array.shape[1:]
    return array, _stored(
        plans, labels.on_array_grid(ids, properties["nonzero"], shape, current, plans.spacing, how, where)
    )


def _read(plans: NnunetPlans, path: str | os.PathLike, shape: Sequence[int]) -> np.ndarray:
    """The label map, z y x after `transpose_forward`."""
    volume = read_volume(path, kind="label")
    volume = volume.to_ras() if plans.reader.endswith("WithReorient") else volume
    ids = volume.array.T.transpose(plans.transpose_forward)
    if ids.shape != tuple(shape):
        raise GeometryError(
            f"{path}: {ids.shape} voxels, its images {tuple(shape)} (z y x as transposed). Correct it."
        )
    known = {*plans.labels, *_ignored(plans)}
    if unknown := sorted(set(np.unique(ids).tolist()) - known):
        raise ValuesError(
            f"{path}: ids {unknown} are not among the labels of {dataset_json.NAME}. Name them there."
        )
    return ids


def _stored(plans: NnunetPlans, ids: np.ndarray) -> np.ndarray:
    stored = np.where(ids == labels.OUTSIDE, 0, ids).astype(np.uint8)
    stored[np.isin(ids, _ignored(plans))] = IGNORE
    return stored


def _ignored(plans: NnunetPlans) -> list[int]:
    """The id of voxels nobody annotated, if the data set has one."""
    found = plans.dataset["labels"].get(dataset_json.IGNORE_NAME)
    return [] if found is None else [int(found)]
