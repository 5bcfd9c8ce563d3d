"""Grades of all organs of a scan in one batched program of static shapes.

Volumes are padded to multiples of `BUCKET` voxels and the list of crops to a fixed length, of which a loop on the device
runs only the chunks that are filled: scans of like size share one compiled program. Axes: k classes, n crops, h w rows and
columns of a slice, x y z voxels, e numbers of an embedding.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.errors import GeometryError, MismatchError, ValuesError
from ukbob_jax.sentinel import preprocessing
from ukbob_jax.sentinel.embeddings import Embeddings
from ukbob_jax.sentinel.resnet import ResNet50
from ukbob_jax.sentinel.sight import SLICES, Sight, usual
from ukbob_jax.sentinel.volumes import VolumeGrader
from ukbob_jax.volumes import plausibility

BUCKET = 32  # voxels; axes are padded to multiples
EMPTY = "empty mask"
NOT_ASKED = "not asked for"
AIR_HU = -500.0  # MR has no values below
_CHUNKS = {"slices": 16, "cubes": 4}  # crops at a time


class SentinelGrades(NamedTuple):
    """What a grader says of the masks of one scan, by class; NaN where a class was not asked for."""

    dice: np.ndarray  # k, predicted Dice, the mean over slices for a grader of slices; 0 for an empty mask
    low: np.ndarray  # k, the interval's ends within 0 and 1; NaN where none was asked for
    high: np.ndarray
    slices: np.ndarray  # k, slices that were looked at; for a grader of volumes those the mask is in
    repair: np.ndarray  # k, score of a grader with detection: higher where the label needs repair; else NaN
    reason: tuple[str, ...]  # k, why there is no prediction; "" where there is one
    slice_dice: np.ndarray  # k m, of each slice looked at, NaN behind them; m is 0 for a grader of volumes
    slice_index: np.ndarray  # k m, z of that slice, -1 behind them


class _Crops(NamedTuple):
    """What the program is run on: one row per crop."""

    label: np.ndarray  # n
    z: np.ndarray  # n, -1 for cubes
    where: np.ndarray  # n 4, boxes of slices, or n 10, start, stop and place of cubes


def grade(
    model: ResNet50 | VolumeGrader,
    params: Mapping[str, Any],
    image: Any,
    labels: Any,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    *,
    embeddings: Embeddings | np.ndarray | None = None,
    classes: Sequence[int] | None = None,
    num_classes: int = anatomy.NUM_CLASSES,
    sight: Sight | None = None,
    interval: float | np.ndarray | None = None,
) -> SentinelGrades:
    """Predict the Dice of every organ's mask on a scan.

    A grader of slices sees axial slices as they are read, patient's right on the left, anterior on top; it grades at most
    ten of each mask, and the mask's grade is their mean. A grader of volumes sees a cube around each mask.

    Args:
        model: which kind it is decides what it sees.
        params: {"params": ..., "batch_stats": ...}, or the parameters alone.
        image: x y z, or x y z 1, RAS; HU for CT.
        labels: x y z, integers.
        spacing_mm: of a voxel.
        embeddings: of the classes, or k e; not for a model with `learned_classes`.
        classes: to grade; by default those that have an embedding and every other that is in `labels`.
        num_classes: k.
        sight: what the grader was trained to see; None: `sight.usual(model)`, of MR.
        interval: half width of the interval, one number or k, see `intervals.conformal_width`.
    Raises:
        MismatchError: the mask has another shape, a class has no embedding, CT was given to a grader of MR, or the
            network is no grader.
        ValuesError: the image has NaN, or no HU for a grader of CT; labels are not integers or beyond `num_classes`.
        GeometryError: the image is no volume.
    """
    sight = usual(model) if sight is None else sight
    kind, margin = sight.kind, sight.margin
    image, labels = _checked(image, labels, num_classes, sight.modality)
    there = preprocessing.classes_in(labels)
    vectors, wanted = _vectors(model, embeddings, classes, there, num_classes)
    found = [label for label in wanted if label in set(there.tolist())]
    oriented = _as_slices if kind == "slices" else np.ascontiguousarray
    masks = oriented(labels)
    crops = (
        _slices(masks, found, num_classes, int(margin))
        if kind == "slices"
        else _cubes(masks, found, num_classes, spacing_mm, float(margin))
    )
    chunk = _CHUNKS[kind]
    capacity = -(-len(wanted) * (SLICES if kind == "slices" else 1) // chunk) * chunk
    limits = preprocessing.window(image, sight.modality, sight.rule) if found else preprocessing.Window(0, 1)
    values, scores = _run(
        model,
        params if "params" in params else {"params": params},
        (_padded(oriented(image), limits.low), _padded(masks, 0), np.array(masks.shape, np.int32)),
        np.asarray(limits, np.float32),
        crops,
        vectors,
        (kind, sight.size, chunk, max(capacity, chunk)),
    )
    return _gathered(crops, masks, wanted, found, values, scores, interval, num_classes)


# -- before the program --------------------------------------------------------------------------------------------


def _checked(image: Any, labels: Any, num_classes: int, modality: str) -> tuple[np.ndarray, np.ndarray]:
    image, labels = np.asarray(image), np.asarray(labels)
    image = image[..., 0] if image.ndim == 4 and image.shape[-1] == 1 else image
    if image.ndim != 3:
        raise GeometryError(
            f"image is {image.shape}: a grader sees one contrast, (x, y, z); choose a channel."
        )
    if image.shape != labels.shape:
        raise MismatchError(
            f"labels of shape {labels.shape} for an image of shape {image.shape}: use one grid."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValuesError(f"labels are {labels.dtype}: need integers. Read them with kind='label'.")
    top = labels[labels != anatomy.IGNORE].max(initial=0)
    if top >= num_classes or labels.min() < 0:
        raise ValuesError(
            f"labels run from {labels.min()} to {top}: need 0..{num_classes - 1}, or a larger num_classes."
        )
    image = image.astype(np.float32)
    if bad := int(np.count_nonzero(~np.isfinite(image))):
        raise ValuesError(f"image: {bad} voxels are NaN or infinite; put 0 there first.")
    if modality == "MR" and np.count_nonzero(image < AIR_HU) > image.size / 100:
        raise MismatchError("image: CT in HU given to a grader of MR; take one of its kind.")
    if modality == "CT" and (doubts := plausibility.hu_doubts(image)):
        raise ValuesError(f"image: {doubts[0]}; a grader of CT needs HU.")
    return image, labels.astype(np.uint8)


def _vectors(
    model: Any, embeddings: Any, classes: Sequence[int] | None, there: np.ndarray, num_classes: int
) -> tuple[np.ndarray, list[int]]:
    """Rows by class (k e, or k class numbers), and the classes to grade."""
    if model.learned_classes:
        known = np.arange(num_classes) < model.learned_classes
        known[0] = False
        rows = Embeddings(np.where(known, np.arange(num_classes), np.nan)[:, None], "the grader")
    elif embeddings is None:
        raise MismatchError("grade: this grader needs embeddings=, such as sentinel.embeddings.taxonomy().")
    else:
        rows = (
            embeddings
            if isinstance(embeddings, Embeddings)
            else Embeddings(np.asarray(embeddings, np.float32))
        )
        width = model.num_classes_embedding
        if rows.vectors.ndim != 2 or rows.vectors.shape[1] != width:
            raise MismatchError(
                f"{rows.source}: vectors are {rows.vectors.shape}, the grader wants (k, {width})."
            )
    known = np.flatnonzero(rows.known[:num_classes])
    wanted = np.union1d(known[known > 0], there) if classes is None else np.unique(np.asarray(classes, int))
    rows.of(wanted)  # every class has one
    table = np.zeros((num_classes, rows.vectors.shape[1]), np.float32)
    table[wanted] = rows.vectors[wanted]
    return (table[:, 0].astype(np.int32) if model.learned_classes else table), wanted.tolist()


def _as_slices(volume: np.ndarray) -> np.ndarray:
    """x y z, RAS, to z h w: rows from anterior to posterior, columns from right to left."""
    return np.ascontiguousarray(volume[::-1, ::-1].transpose(2, 1, 0))


def _padded(volume: np.ndarray, value: float) -> np.ndarray:
    return np.pad(volume, [(0, -n % BUCKET) for n in volume.shape], constant_values=value)


def _present(labels: np.ndarray, num_classes: int, axes: tuple[int, ...]) -> np.ndarray:
    """Whether a class has voxels at each place along some axes: k and those axes, bool. 255 is none of the classes."""
    where = np.nonzero((labels != 0) & (labels != anatomy.IGNORE))
    found = np.zeros((num_classes, *(labels.shape[a] for a in axes)), bool)
    found[(labels[where].astype(np.intp), *(where[a] for a in axes))] = True
    return found


def _slices(labels: np.ndarray, classes: Sequence[int], num_classes: int, margin: int) -> _Crops:
    """The slices to grade of each class, of labels z h w."""
    rows, columns = _present(labels, num_classes, (0, 1)), _present(labels, num_classes, (0, 2))
    chosen = [(c, z) for c in classes for z in _used(rows[c])]
    label, z = (np.array(a, np.int32) for a in zip(*chosen)) if chosen else (np.zeros(0, np.int32),) * 2
    ends = [f(a[label, z]) for a in (rows, columns) for f in (_first, _last)]
    boxes = preprocessing.crop_boxes(np.stack(ends, -1), labels.shape[1:], margin)
    return _Crops(label, z, boxes.astype(np.float32))


def _used(rows: np.ndarray) -> np.ndarray:
    inside = np.flatnonzero(rows.any(-1))
    return inside[preprocessing.slices_used(len(inside), SLICES)]


def _cubes(
    labels: np.ndarray,
    classes: Sequence[int],
    num_classes: int,
    spacing_mm: Sequence[float],
    margin_mm: float,
) -> _Crops:
    """A cube of each class, of labels x y z."""
    along = [_present(labels, num_classes, (axis,)) for axis in range(3)]
    rows = []
    for c in classes:
        first, last = (np.array([f(a[c]) for a in along]) for f in (_first, _last))
        cube = preprocessing.cube(first, last, spacing_mm, margin_mm)
        rows.append([*cube.start, *cube.stop, *preprocessing.place(cube, labels.shape)])
    label = np.array(classes, np.int32)
    return _Crops(label, np.full(len(label), -1, np.int32), np.array(rows, np.float32).reshape(-1, 10))


def _first(inside: np.ndarray) -> np.ndarray:
    return inside.argmax(-1)


def _last(inside: np.ndarray) -> np.ndarray:
    return inside.shape[-1] - 1 - inside[..., ::-1].argmax(-1)


# -- the program ---------------------------------------------------------------------------------------------------


def _run(
    model: Any,
    variables: Mapping[str, Any],
    volumes: tuple[np.ndarray, np.ndarray, np.ndarray],
    window: np.ndarray,
    crops: _Crops,
    vectors: np.ndarray,
    fixed: tuple[str, int, int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Grades and scores of the crops, n each. `volumes`: image and labels, padded, and their shape without."""
    kind, size, chunk, capacity = fixed
    n = len(crops.label)
    rows = jax.tree.map(lambda a: np.pad(a, [(0, capacity - n), *[(0, 0)] * (a.ndim - 1)]), crops)
    run = _program(model, kind, size, chunk)
    grades, scores = run(variables, *volumes, window, rows, vectors[rows.label], np.int32(-(-n // chunk)))
    return np.asarray(grades)[:n], np.asarray(scores)[:n]


@functools.lru_cache(maxsize=16)
def _program(model: Any, kind: str, size: int, chunk: int) -> Any:
    """The jitted program of a model; it compiles anew for each bucket of shapes."""

    def seen(
        image: jax.Array, labels: jax.Array, shape: jax.Array, window: jax.Array, crops: _Crops
    ) -> jax.Array:
        if kind == "slices":
            masks = labels[crops.z] == crops.label[:, None, None].astype(labels.dtype)
            return preprocessing.prepare_slices(image[crops.z], masks, crops.where, window, size)
        masks = labels[None] == crops.label[:, None, None, None].astype(labels.dtype)
        starts, stops = crops.where[:, :3], crops.where[:, 3:6]
        return preprocessing.prepare_cubes(image, masks, starts, stops, window, size, shape)

    def run(
        variables: Any,
        image: Any,
        labels: Any,
        shape: Any,
        window: Any,
        crops: _Crops,
        vectors: Any,
        chunks: Any,
    ) -> tuple[jax.Array, jax.Array]:
        capacity = len(crops.label)

        def step(i: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            part, embedding = jax.tree.map(
                lambda a: jax.lax.dynamic_slice_in_dim(a, i * chunk, chunk), (crops, vectors)
            )
            place = () if kind == "slices" else (part.where[:, 6:],)
            out = model.apply(variables, seen(image, labels, shape, window, part), embedding, *place)
            grades, scores = out if model.detection else (out, jnp.full(chunk, jnp.nan))
            put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=i * chunk, axis=0)
            return put(found[0], grades), put(found[1], scores)

        empty = jnp.full(capacity, jnp.nan, jnp.float32)
        return jax.lax.fori_loop(0, chunks, step, (empty, empty))

    return jax.jit(run)


# -- after the program ---------------------------------------------------------------------------------------------


def _gathered(
    crops: _Crops,
    masks: np.ndarray,
    wanted: Sequence[int],
    found: Sequence[int],
    values: np.ndarray,
    scores: np.ndarray,
    interval: float | np.ndarray | None,
    k: int,
) -> SentinelGrades:
    """Rows of crops to classes."""
    by_slice = bool((crops.z >= 0).any())
    most = SLICES if by_slice else 0
    dice, repair = np.full(k, np.nan, np.float32), np.full(k, np.nan, np.float32)
    slice_dice, slice_index = np.full((k, most), np.nan, np.float32), np.full((k, most), -1, np.int32)
    slices = np.zeros(k, np.int32)
    reason = [NOT_ASKED] * k
    planes = None if by_slice or not found else _present(masks, k, (2,)).sum(1)
    for label in wanted:
        rows = np.flatnonzero(crops.label == label) if label in found else np.zeros(0, int)
        if not len(rows):
            dice[label], reason[label] = 0, EMPTY
            continue
        dice[label], repair[label], reason[label] = values[rows].mean(), scores[rows].mean(), ""
        slices[label] = len(rows) if planes is None else planes[label]
        if by_slice:
            slice_dice[label, : len(rows)], slice_index[label, : len(rows)] = values[rows], crops.z[rows]
    width = np.nan if interval is None else np.asarray(interval, np.float32)
    width = np.where(
        [r == EMPTY for r in reason], 0, width
    )  # an empty mask is known to be wrong, or to be right
    low, high = (np.clip(dice + sign * width, 0, 1).astype(np.float32) for sign in (-1, 1))
    return SentinelGrades(dice, low, high, slices, repair, tuple(reason), slice_dice, slice_index)
