"""What is checked and worked out of a subject before a byte of it is written; whoever only asks stops here."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax.store import checks, values
from ukbob_jax.store.row import Channel, Subject
from ukbob_jax.volumes import intensity
from ukbob_jax.volumes.case import Description


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
    *,
    split: str = "",
    contrasts: Sequence[str | Channel] = (),
    annotated: Sequence[int] | None = None,
    attributes: Mapping[str, Any] | None = None,
    quality: Mapping[str, Any] | None = None,
    person: str = "",
    description: Description | None = None,
) -> Prepared:
    """Check a subject and work out its row; the arguments are those of `StoreWriter.write`.

    Raises:
        GeometryError: rank or affine cannot be used.
        MismatchError: image, labels and contrasts do not belong together.
        ValuesError: a name, attribute or voxel value cannot be stored.
    """
    image = np.asarray(image)
    about = description or Description()
    channels = tuple(c if isinstance(c, Channel) else Channel(c) for c in contrasts or about.contrasts)
    names = [channel.name for channel in channels]
    checks.check_image(image, names, subject)
    labels = {
        name: checks.check_label(label, name, image.shape[:3], subject) for name, label in labels.items()
    }
    stored, slope, intercept, remark = values.encode(image, subject, names)
    new = Subject.new(subject, image.shape, checks.check_affine(affine, subject))
    row = dataclasses.replace(
        new,
        split=split,
        channels=channels or new.channels,
        annotated=None if annotated is None else tuple(sorted(int(organ) for organ in annotated)),
        intensity=plain(intensity.statistics(image)._asdict()),
        slope=slope,
        intercept=intercept,
        dtype=stored.dtype.name,
        person=person,
        modality=about.modality,
        units=about.units,
        label_names={name: dict(names) for name, names in about.label_names.items() if name in labels},
        regions={name: found.to_json() for name, found in about.regions.items() if name in labels},
        attributes=checks.check_attributes(attributes or {}, subject),
        quality={**(quality or {}), **({"stored": remark} if remark else {})},
    )
    checks.check_json(row)
    return Prepared(row, stored, labels)


def plain(statistics: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Turn statistics per channel into lists that JSON can hold."""
    return {name: [float(value) for value in channel] for name, channel in statistics.items()}
