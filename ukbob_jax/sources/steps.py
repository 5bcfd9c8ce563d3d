"""What is done to a scan between reading and storing it: steps that each take a scan and return one."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.errors import ValuesError
from ukbob_jax.store.schema import is_mask
from ukbob_jax.volumes.label_table import LabelTable
from ukbob_jax.volumes.resample import LINEAR, NEAREST
from ukbob_jax.volumes.scan import Scan
from ukbob_jax.volumes.volume import Volume

Step = Callable[[Scan], Scan]


def resample(spacing_mm: Sequence[float], order: int = LINEAR) -> Step:
    """Resample image (order 1: linear, 3: cubic spline) and labels (nearest) to `spacing_mm`, x y z."""

    def step(scan: Scan) -> Scan:
        labels = {name: label.resample(spacing_mm, NEAREST) for name, label in scan.labels.items()}
        return scan._replace(image=scan.image.resample(spacing_mm, order), labels=labels)

    return step


def crop_to_content() -> Step:
    """Cut image and labels to the box of the voxels that are not 0 in some channel; an image of zeros stays whole."""

    def step(scan: Scan) -> Scan:
        content = (scan.image.array != 0).any(axis=3)  # x y z
        if not content.any():
            return scan
        lines = [np.flatnonzero(content.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        start = [int(line[0]) for line in lines]
        size = [int(line[-1]) - int(line[0]) + 1 for line in lines]
        labels = {name: label.crop(start, size) for name, label in scan.labels.items()}
        return scan._replace(image=scan.image.crop(start, size), labels=labels)

    return step


def binary(mask: Volume, path: str) -> Volume:
    """Return a mask of 0 and 1 from one of 0 and another value, such as 255.

    Raises:
        ValuesError: several values beside 0, which is a label map.
    """
    inside = mask.array != 0
    if inside.any() and (mask.array[inside] != mask.array.max()).any():
        ids = np.unique(mask.array[inside])
        raise ValuesError(f"{path}: values {ids[:8].tolist()} in a mask; expected 0 and one other.")
    return dataclasses.replace(mask, array=inside.astype(np.uint8))


def relabel(dataset: str) -> Step:
    """Turn the ids of `dataset`, a key of `anatomy.DATASETS`, into ours, also those that were annotated; not in masks.

    Raises:
        ConfigError: no such dataset.
        ValuesError: by the step: ids above 255.
    """
    mapping = anatomy.from_dataset(dataset)

    def step(scan: Scan) -> Scan:
        labels = {
            name: Volume(mapping.lut[as_bytes(label, name)], label.affine)
            for name, label in scan.labels.items()
            if not is_mask(name)
        }
        annotated = {name: reached(mapping, ids) for name, ids in scan.annotated.items() if name in labels}
        return scan._replace(labels={**scan.labels, **labels}, annotated={**scan.annotated, **annotated})

    return step


def map_ids(table: LabelTable) -> Step:
    """Turn the ids of a data set into those of a table; not in masks.

    Raises:
        ValuesError: by the step: ids that the table does not name.
    """

    def step(scan: Scan) -> Scan:
        labels = {
            name: dataclasses.replace(label, array=table.apply(label.array, f"label {name!r}"))
            for name, label in scan.labels.items()
            if not is_mask(name)
        }
        return scan._replace(labels={**scan.labels, **labels})

    return step


def as_bytes(label: Volume, name: str) -> np.ndarray:
    """Return the label map as uint8.

    Raises:
        ValuesError: ids above 255.
    """
    if label.array.max(initial=0) > 255:
        raise ValuesError(
            f"label {name!r} has ids up to {label.array.max()}; a store holds 0 to 254 and 255 to ignore."
        )
    return label.array.astype(np.uint8, copy=False)


def reached(mapping: anatomy.LabelMap, annotated: Sequence[int] | None) -> tuple[int, ...]:
    """Return our ids that a label set speaks of: those of which every id in the dataset was annotated."""
    missing = {
        target
        for source, target in mapping.mapped.items()
        if annotated is not None and source not in annotated
    }
    return tuple(sorted(set(mapping.mapped.values()) - missing))
