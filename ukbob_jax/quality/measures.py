"""Size and shape of every organ of a label map, from one pass over its voxels."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import GeometryError, MismatchError, ValuesError
from ukbob_jax.quality import seams
from ukbob_jax.quality.label_counts import LabelCounts, label_counts
from ukbob_jax.quality.surface import area_table

Array = np.ndarray | jax.Array
FEATURES = ("body_fraction", "sphericity", "eccentricity")  # SOLF's three
_FEWEST_VOXELS = 4  # fewer have no shape


class OrganMeasures(NamedTuple):
    """Arrays over classes, (num_classes,), or (n, num_classes) when stacked over subjects.

    A class that is absent has 0 in all six; an eccentricity that is not defined is NaN, and so is the fraction of a body
    mask that is empty.
    """

    voxels: Array
    volume_mm3: Array
    surface_mm2: Array  # marching cubes, closed at the border of the volume
    body_fraction: Array  # volume / volume of the body
    sphericity: Array  # 1 for a ball; masks of a few voxels may pass 1
    eccentricity: Array  # sqrt(1 - least / greatest principal variance): 0 for a ball, towards 1 for a needle
    # (..., 3): index * spacing, the first voxel's centre being 0; NaN if absent
    centroid_mm: Array | None = None
    first: Array | None = None  # (..., 3): bounding box in voxels, both ends inside it; -1 if absent
    last: Array | None = None
    # bool: some voxel lies in the volume's first or last plane of an axis
    touches_border: Array | None = None
    seam_contact: Array | None = (
        None  # fraction of the voxels beside another station's; 0 without a station map
    )


def measure(
    labels: Array,
    spacing_mm: Sequence[float] | Array,
    num_classes: int = 73,
    body: Array | None = None,
    station: Array | None = None,
) -> OrganMeasures:
    """Measure all classes of a label map at once; 255 belongs to no class.

    On arrays the counts are finished in float64 and returned as numpy arrays. Inside jit or vmap (over subjects, also
    over spacings) they are finished in float32; the counts themselves are exact integers either way.

    Args:
        labels: `x y z`, integers or bool.
        spacing_mm: 3, size of a voxel.
        num_classes: labels are 0 to `num_classes` - 1 (at most 255 classes); 0, the background, is measured like the rest.
        body: `x y z`, nonzero inside the body; by default the union of all labels but background and 255.
        station: number of the station that each voxel comes from, `x y z`, or of each axial slice, `z`; 255 or
            negative where there is none. It adds `seam_contact`.
    Raises:
        GeometryError: the shape or the spacing cannot be measured.
        ValuesError: labels are not integers, or one is not a class (not noticed inside jit).
        MismatchError: `body` or `station` has another shape.
    """
    if not 0 < num_classes <= IGNORE:
        raise ValuesError(f"num_classes={num_classes}: must be 1 to {IGNORE}; {IGNORE} itself means ignore.")
    if body is not None and body.shape != labels.shape:
        raise MismatchError(
            f"body mask of shape {body.shape} for labels of shape {labels.shape}: use one grid."
        )
    traced = any(isinstance(a, Tracer) for a in (labels, spacing_mm, body, station))
    labels = _as_bytes(labels, num_classes)
    counts = label_counts(labels, num_classes)
    body_voxels = None if body is None else (body != 0).sum()
    touching = None if station is None else seams.contact(labels, station, num_classes)
    if traced:
        found = measures_from_counts(counts, jnp.asarray(spacing_mm, jnp.float32), body_voxels, jnp)
        return _with_seams(found, touching, jnp.float32, jnp)
    counts = jax.tree.map(np.asarray, counts)
    if counts.highest >= num_classes:
        raise ValuesError(
            f"label {counts.highest} is not in 0..{num_classes - 1} (or {IGNORE}, ignore). "
            "Map it in anatomy.py, or pass a larger num_classes."
        )
    spacing = np.asarray(spacing_mm, np.float64)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise GeometryError(f"spacing_mm={spacing_mm}: need three positive numbers, in mm along x, y, z.")
    return _with_seams(measures_from_counts(counts, spacing, body_voxels, np), touching, np.float64, np)


def _with_seams(found: OrganMeasures, touching: Array | None, dtype: type, xp: ModuleType) -> OrganMeasures:
    seams_of = xp.zeros_like(found.voxels) if touching is None else xp.asarray(touching)
    return found._replace(seam_contact=seams_of.astype(dtype) / xp.maximum(found.voxels, 1).astype(dtype))


def stack(measures: list[OrganMeasures]) -> OrganMeasures:
    """Stack the measures of several subjects: each field (n, ...)."""
    columns = zip(OrganMeasures._fields, zip(*measures))
    stacked: dict[str, Any] = {name: None if a[0] is None else np.stack(a) for name, a in columns}
    return OrganMeasures(**stacked)


def _as_bytes(labels: Array, num_classes: int) -> Array:
    """Return `labels` as uint8; what does not fit is refused (inside jit: ignored)."""
    if labels.dtype == bool:
        return labels.astype(np.uint8)
    if labels.dtype == np.uint8:
        return labels
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValuesError(
            f"labels are {labels.dtype}: need integers. Round them, or read them with kind='label'."
        )
    if isinstance(labels, Tracer):
        return jnp.where((labels >= 0) & (labels < num_classes), labels, IGNORE).astype(jnp.uint8)
    if labels.size and (labels.min() < 0 or labels.max() > IGNORE):
        raise ValuesError(
            f"labels run from {labels.min()} to {labels.max()}: need 0..{num_classes - 1} (or {IGNORE}, ignore). "
            "Map them in anatomy.py."
        )
    return labels.astype(np.uint8)


def measures_from_counts(
    counts: LabelCounts, spacing_mm: Array, body_voxels: Array | int | None, xp: ModuleType = np
) -> OrganMeasures:
    """Compute measures from counts, in the precision of `spacing_mm` (3,); `xp` is numpy or jax.numpy."""
    planes = (counts.along_x, counts.along_y, counts.along_z)
    voxels = counts.along_x.sum(1)
    present = voxels > 0
    dtype = spacing_mm.dtype
    if body_voxels is None:
        body = xp.maximum(voxels[1:].sum(), 1).astype(dtype)
    else:
        body = xp.where(body_voxels > 0, body_voxels, xp.nan).astype(dtype)
    volume = voxels.astype(dtype) * spacing_mm.prod()
    surface = xp.sum(counts.cells.astype(dtype) * area_table(spacing_mm, xp)[None, :], 1)
    centre, covariance = _moments(counts, voxels, dtype, xp)
    inside = [a > 0 for a in planes]
    first = xp.stack([a.argmax(1) for a in inside], -1)
    last = xp.stack([a.shape[1] - 1 - a[:, ::-1].argmax(1) for a in inside], -1)
    absent = ~present[:, None]
    return OrganMeasures(
        voxels=voxels,
        volume_mm3=volume,
        surface_mm2=surface,
        body_fraction=xp.where(present, voxels.astype(dtype) / body, 0),
        sphericity=_sphericity(volume, surface, xp),
        eccentricity=_eccentricity(
            covariance * spacing_mm[None, :, None] * spacing_mm[None, None, :], voxels, xp
        ),
        centroid_mm=xp.where(absent, xp.nan, centre * spacing_mm[None, :]),
        first=xp.where(absent, -1, first),
        last=xp.where(absent, -1, last),
        touches_border=xp.stack([a[:, 0] | a[:, -1] for a in inside]).any(0),
    )


def _moments(counts: LabelCounts, voxels: Array, dtype: np.dtype, xp: ModuleType) -> tuple[Array, Array]:
    """Compute the mean (k, 3) and covariance (k, 3, 3, divided by n) of voxel positions, in voxels.

    Positions are taken from an integer near the mean, so that float32 sums do not cancel.
    """
    n = xp.maximum(voxels, 1).astype(dtype)
    planes = (counts.along_x, counts.along_y, counts.along_z)
    positions = [xp.arange(a.shape[1], dtype=np.int32)[None, :] for a in planes]
    near = [(xp.sum((a * p).astype(dtype), 1) / n).astype(np.int32) for a, p in zip(planes, positions)]
    offset = [p - c[:, None] for p, c in zip(positions, near)]
    shift = [xp.sum((a * o).astype(dtype), 1) / n for a, o in zip(planes, offset)]

    # sums: k planes of axis a, of positions b from near[b]
    def about_mean(a: int, b: int, sums: Array) -> Array:
        return xp.sum(offset[a].astype(dtype) * sums.astype(dtype), 1) / n - shift[a] * shift[b]

    xx, yy, zz = (about_mean(a, a, planes[a] * offset[a]) for a in range(3))
    xy = about_mean(0, 1, counts.y_by_x - near[1][:, None] * counts.along_x)
    xz = about_mean(0, 2, counts.z_by_x - near[2][:, None] * counts.along_x)
    yz = about_mean(1, 2, counts.z_by_y - near[2][:, None] * counts.along_y)
    rows = (xp.stack(row, -1) for row in ((xx, xy, xz), (xy, yy, yz), (xz, yz, zz)))
    return xp.stack([c + s for c, s in zip(near, shift)], -1), xp.stack(list(rows), -2)


def _sphericity(volume: Array, surface: Array, xp: ModuleType) -> Array:
    """pi**(1/3) (6 V)**(2/3) / A (Wadell 1935); 0 where there is no surface."""
    some = surface > 0
    ratio = np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / xp.where(some, surface, 1)
    return xp.where(some, ratio, 0)


def _eccentricity(covariance: Array, voxels: Array, xp: ModuleType) -> Array:
    """sqrt(1 - least / greatest eigenvalue); 0 for no voxel, NaN for one to three or no extent."""
    values = xp.maximum(xp.linalg.eigvalsh(covariance), 0)
    least, greatest = values[:, 0], values[:, 2]
    defined = (voxels >= _FEWEST_VOXELS) & (greatest > 0)
    ratio = least / xp.where(defined, greatest, 1)
    value = xp.sqrt(xp.maximum(1 - ratio, 0))
    return xp.where(defined, value, xp.where(voxels > 0, xp.nan, 0))
