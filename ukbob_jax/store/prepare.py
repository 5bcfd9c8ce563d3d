"""What is checked and worked out of a subject before a byte of it is written; whoever only asks stops here."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np

from ukbob_jax.store import checks, values
from ukbob_jax.store.row import Channel, Subject
from ukbob_jax.volumes import intensity
from ukbob_jax.volumes.case import Description


class About(TypedDict, total=False):
    """What may be known of a subject beside image and labels.

    split: "train", "val", "test" or "".
    contrasts: per channel its name, or a `Channel` where more is known; empty: named by number.
    annotated: class ids that were looked for in this subject; None: all.
    attributes: technical facts, of `schema.ATTRIBUTES` only.
    quality: JSON-able findings about the scan or its labels.
    person: whose scan it is, where one person has several subjects.
    exact: the image is float32, and stored so.
    description: what the data set says; its names of channels count where `contrasts` is empty.
    """

    split: str
    contrasts: Sequence[str | Channel]
    annotated: Sequence[int] | None
    attributes: Mapping[str, Any] | None
    quality: Mapping[str, Any] | None
    person: str
    exact: bool
    description: Description


class Prepared(NamedTuple):
    """A subject as it would be stored.

    Attributes:
        row: without what the arrays bring (labels, folders, digests) and without source and version.
        image: `x y z c` as it is stored, see `values.encode`.
        labels: per label set, `x y z` uint8.
    """

    row: Subject
    image: np.ndarray
    labels: dict[str, np.ndarray]


def prepare(
    subject: str,
    image: np.ndarray,
    affine: np.ndarray,
    labels: Mapping[str, np.ndarray],
    **about: Unpack[About],
) -> Prepared:
    """Check a subject and work out its row.

    Args:
        subject: id, safe as a folder name.
        image: `x y z c`, RAS voxel order, any real dtype.
        affine: `4 4`, voxel to world in mm.
        labels: per label set, `x y z`, integers 0..255 (255: ignore).
        **about: see `About`.
    Raises:
        GeometryError: rank or affine cannot be used.
        MismatchError: image, labels and contrasts do not belong together.
        ValuesError: a name, attribute or voxel value cannot be stored.
    """
    image = np.asarray(image)
    said = about.get("description", Description())
    named = about.get("contrasts") or said.contrasts
    channels = tuple(c if isinstance(c, Channel) else Channel(c) for c in named)
    annotated = about.get("annotated")
    names = [channel.name for channel in channels]
    checks.check_image(image, names, subject)
    labels = {
        name: checks.check_label(label, name, image.shape[:3], subject) for name, label in labels.items()
    }
    if about.get("exact"):
        values.check_finite(image, subject)
        stored, slope, intercept, remark = values.Encoded(image.astype(np.float32), None, None)
    else:
        stored, slope, intercept, remark = values.encode(image, subject, names)
    new = Subject.new(subject, image.shape, checks.check_affine(affine, subject))
    row = dataclasses.replace(
        new,
        split=about.get("split", ""),
        channels=channels or new.channels,
        annotated=None if annotated is None else tuple(sorted(int(organ) for organ in annotated)),
        intensity=plain(intensity.statistics(image)._asdict()),
        slope=slope,
        intercept=intercept,
        dtype=stored.dtype.name,
        person=about.get("person", ""),
        modality=said.modality,
        units=said.units,
        label_names={name: dict(names) for name, names in said.label_names.items() if name in labels},
        regions={name: found.to_json() for name, found in said.regions.items() if name in labels},
        attributes=checks.check_attributes(about.get("attributes") or {}, subject),
        quality={**(about.get("quality") or {}), **({"stored": remark} if remark else {})},
    )
    checks.check_json(row)
    return Prepared(row, stored, labels)


def plain(statistics: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Turn statistics per channel into lists that JSON can hold."""
    return {name: [float(value) for value in channel] for name, channel in statistics.items()}
