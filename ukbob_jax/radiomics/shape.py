"""Shape features of all organs at once: mesh, principal axes and diameters, 14 features.

The mesh is pyradiomics' (`mesh.py`); its area and volume come from a histogram of the 2x2x2 cells of every organ, and of
where they lie. Axes come from the voxels' positions.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ukbob_jax.quality.label_counts import pattern_keys
from ukbob_jax.radiomics import diameters, mesh, neighbours
from ukbob_jax.radiomics.regions import Regions

NAMES = (
    "Elongation", "Flatness", "LeastAxisLength", "MajorAxisLength", "Maximum2DDiameterColumn",
    "Maximum2DDiameterRow", "Maximum2DDiameterSlice", "Maximum3DDiameter", "MeshVolume", "MinorAxisLength",
    "Sphericity", "SurfaceArea", "SurfaceVolumeRatio", "VoxelVolume",
)  # fmt: skip


def shape(regions: Regions, *, closed: bool = False, unbiased: bool = False) -> dict[str, np.ndarray]:
    """Compute the 14 features of every organ, (k,) float64.

    Args:
        closed: take a mesh without the holes of pyradiomics'.
        unbiased: divide the covariance of the positions by n - 1, as IBSI does, not by n.
    """
    area, volume = surface_and_volume(regions, closed)
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(covariance(regions, unbiased)), 0))
    plane, whole = diameters.diameters(regions)
    greatest = np.where(values[:, 2] > 0, values[:, 2], np.nan)
    return {
        "Elongation": values[:, 1] / greatest,
        "Flatness": values[:, 0] / greatest,
        "LeastAxisLength": 4 * values[:, 0],
        "MajorAxisLength": 4 * values[:, 2],
        "Maximum2DDiameterColumn": plane[:, 1],
        "Maximum2DDiameterRow": plane[:, 0],
        "Maximum2DDiameterSlice": plane[:, 2],
        "Maximum3DDiameter": whole,
        "MeshVolume": volume,
        "MinorAxisLength": 4 * values[:, 1],
        "Sphericity": np.cbrt(36 * np.pi * volume**2) / area,
        "SurfaceArea": area,
        "SurfaceVolumeRatio": area / volume,
        "VoxelVolume": regions.sizes * regions.spacing_mm.prod(),
    }


def covariance(regions: Regions, unbiased: bool = False) -> np.ndarray:
    """Covariance of the positions of every organ's voxels, (k, 3, 3) mm²."""
    k, n, organ = regions.count, regions.sizes, regions.organ
    near = (regions.first + regions.last) // 2  # integers, so that sums are exact
    sums, products = np.empty((k, 3)), np.empty((k, 3, 3))
    for a, length in enumerate(regions.shape):
        plane = organ * length + regions.position[a]
        from_near = np.arange(length) - near[:, a, None]  # k planes
        voxels = np.bincount(plane, minlength=k * length).reshape(k, length)
        sums[:, a] = (voxels * from_near).sum(1)
        products[:, a, a] = (voxels * from_near**2).sum(1)
        b = (a + 1) % 3
        other = (
            np.bincount(plane, regions.position[b], k * length).reshape(k, length) - voxels * near[:, b, None]
        )
        products[:, a, b] = products[:, b, a] = (other * from_near).sum(1)
    middle = sums / n[:, None]
    products /= n[:, None, None]
    products -= middle[:, :, None] * middle[:, None, :]
    if unbiased:
        products *= (n / np.maximum(n - 1, 1))[:, None, None]
    return products * regions.spacing_mm[:, None] * regions.spacing_mm[None]


def surface_and_volume(regions: Regions, closed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Area (mm²) and volume (mm³) of every organ's mesh, (k,) each."""
    counts, position = cell_counts(regions)
    tables = mesh.tables(regions.spacing_mm, closed)
    first = (regions.first - 1)[:, None, :]  # the origin: one voxel before the organ's box
    inside = ((position - counts[..., None] * first) * tables.normal).sum((1, 2))
    return counts @ tables.area, counts @ tables.volume + inside


def cell_counts(regions: Regions) -> tuple[np.ndarray, np.ndarray]:
    """Count every organ's cells by corner pattern (k, 256), and sum their positions along x y z (k, 256, 3)."""
    mixed, box = _mixed_cells(regions.box), regions.box.reshape(-1)
    chunk, whole = neighbours.chunks(len(mixed), neighbours.CHUNK)
    listed = np.full(whole, len(box) - 1, np.int64)  # the last voxel of the margin is in no organ's cell
    listed[: len(mixed)] = mixed
    at = np.stack(np.unravel_index(listed, regions.shape)).astype(np.int32).reshape(3, -1, chunk)
    size = neighbours.rounded(regions.count + 1)
    far = np.append(box, np.zeros(regions.shape[1] * regions.shape[2] + regions.shape[2] + 2, box.dtype))
    strides = np.array([regions.shape[1] * regions.shape[2], regions.shape[2], 1], np.int32)
    number = -(-len(mixed) // chunk)
    cells = listed.astype(np.int32).reshape(-1, chunk)
    low, high = _count(far, cells, at.transpose(1, 0, 2), number, strides, size=size)
    found = neighbours.joined(low, high).reshape(4, size, 256)[:, 1 : regions.count + 1]
    return found[0], np.moveaxis(found[1:], 0, -1)


def _mixed_cells(box: np.ndarray) -> np.ndarray:
    """List the cells, by the place of their first corner, whose corners are not all of one organ."""
    mixed = np.zeros(box.shape, bool)
    # a cell is mixed where two neighbours on one of its edges differ
    across_x = box[1:] != box[:-1]
    across_y = box[:, 1:] != box[:, :-1]
    across_z = box[:, :, 1:] != box[:, :, :-1]
    face = across_y[:, :, 1:] | across_y[:, :, :-1] | across_z[:, 1:] | across_z[:, :-1]
    mixed[:-1, :-1, :-1] = face[1:] | face[:-1] | across_x[:, :-1, :-1]
    return np.flatnonzero(mixed)


@functools.partial(jax.jit, static_argnames="size")
def _count(
    box: jax.Array,
    listed: jax.Array,
    positions: jax.Array,
    number: jax.Array,
    strides: jax.Array,
    *,
    size: int,
) -> tuple[jax.Array, jax.Array]:
    """Count cells and sum their x, y and z, chunk by chunk, (4 * size * 256,) in the two parts of `carried`."""

    def chunk(i: jax.Array, carry: tuple) -> tuple[jax.Array, jax.Array]:
        counts, above = carry
        cell, position = listed[i], positions[i]
        corners = [
            cell + (i >> 2) * strides[0] + (i >> 1 & 1) * strides[1] + (i & 1) * strides[2] for i in range(8)
        ]
        organ = jnp.stack([box.at[place].get(mode="promise_in_bounds") for place in corners])
        key = pattern_keys(organ, size)  # corners that repeat another one's organ count in the last row
        counts = counts.at[key.reshape(-1)].add(1, mode="promise_in_bounds")
        for axis in range(3):
            at = key + (axis + 1) * size * 256
            value = jnp.broadcast_to(position[axis][None], key.shape)
            counts = counts.at[at.reshape(-1)].add(value.reshape(-1), mode="promise_in_bounds")
        return neighbours.carried(counts, above)

    empty = jnp.zeros(4 * size * 256, jnp.int32)
    return lax.fori_loop(0, number, chunk, (empty, empty))
