"""What the writer refuses before a byte is written."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax.errors import GeometryError, MismatchError, ValuesError
from ukbob_jax.store import schema
from ukbob_jax.store.row import Subject
from ukbob_jax.volumes import array_checks
from ukbob_jax.volumes.volume import LONGEST


def check_affine(affine: np.ndarray, subject: str) -> np.ndarray:
    """Return `affine` as `4 4` float64.

    Raises:
        GeometryError: another shape, not finite, or singular.
    """
    affine = np.asarray(affine, np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise GeometryError(
            f"{subject}: affine {affine.tolist()} is not an invertible 4 by 4 matrix. Check the header."
        )
    return affine


def check_image(image: np.ndarray, contrasts: Sequence[str], subject: str) -> None:
    """Refuse an image that is not `x y z c` with a contrast name per channel.

    Raises:
        GeometryError, MismatchError, ValuesError: naming the subject and what was found.
    """
    if image.ndim != 4 or 0 in image.shape or image.dtype.kind not in "fiub":
        raise GeometryError(
            f"{subject}: image {image.dtype} {image.shape}: expected real values x y z c, none empty."
        )
    if max(image.shape[:3]) > LONGEST:
        raise GeometryError(
            f"{subject}: {image.shape[:3]} voxels; an axis has at most {LONGEST}. Check the spacing asked for."
        )
    if contrasts and len(contrasts) != image.shape[3]:
        raise MismatchError(
            f"{subject}: {image.shape[3]} channels but contrasts {list(contrasts)}. Name each channel."
        )
    for name in contrasts:
        schema.check_name(name, f"{subject}: contrast")


def check_label(label: np.ndarray, name: str, shape: tuple[int, ...], subject: str) -> np.ndarray:
    """Return `label` as uint8 on the image's grid.

    Raises:
        MismatchError: another shape than the image's.
        ValuesError: values that are not integers 0..255, in a mask not 0 and 1, or an unusable name.
    """
    schema.check_label_set(name, f"{subject}: label set")
    label = np.asarray(array_checks.label_array(f"{subject}: label {name!r}", label))
    if label.shape != tuple(shape):
        raise MismatchError(
            f"{subject}: label {name!r} is {label.shape}, its image {tuple(shape)}. Resample one."
        )
    if schema.is_mask(name) and label.size and not (label.min() >= 0 and label.max() <= 1):
        raise ValuesError(
            f"{subject}: mask {name!r} has values {label.min()} to {label.max()}; expected 0 and 1."
        )
    if label.dtype == np.uint8:
        return label
    stored = label.astype(np.uint8)
    if not np.array_equal(stored, label):
        raise ValuesError(
            f"{subject}: label {name!r} has values that are not integers 0..255. Map them first."
        )
    return stored


def check_attributes(attributes: Mapping[str, Any], subject: str) -> dict[str, Any]:
    """Return `attributes`, having checked that all of them may be stored.

    Raises:
        ValuesError: a key is not of `schema.ATTRIBUTES`.
    """
    for key in attributes:
        if key not in schema.ATTRIBUTES:
            raise ValuesError(
                f"{subject}: attribute {key!r} may not be stored; allowed: {', '.join(schema.ATTRIBUTES)}."
            )
    return dict(attributes)


def check_json(subject: Subject) -> None:
    """Refuse a subject with facts that JSON cannot hold.

    Raises:
        ValuesError: an attribute, quality finding or statistic is NaN, or no plain number, text, list or dict.
    """
    try:
        json.dumps(subject.to_json(), allow_nan=False)
    except (TypeError, ValueError) as error:
        facts = {key: getattr(subject, key) for key in ("intensity", "attributes", "quality", "provenance")}
        raise ValuesError(f"{subject.id}: cannot be stored as JSON ({error}): {facts}.") from error
