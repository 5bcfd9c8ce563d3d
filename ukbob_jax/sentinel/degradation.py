"""Labels made worse on purpose, to a chosen Dice: what a grader learns from where no early checkpoints are.

Every kind works on one organ's mask, x y z, on the host, and is given the Dice that it should leave. Kinds that only
remove voxels, or only add some, order them and take as many as that Dice asks for: of N voxels a subset of a has Dice
2a / (N + a), a superset with m more has 2N / (2N + m). Others are searched by bisection. Random numbers come from the
generator passed in, so the same generator state gives the same mask.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cc3d
import numpy as np
from scipy import ndimage

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError, MismatchError, ValuesError
from ukbob_jax.sentinel.preprocessing import classes_in

LARGEST = (
    500_000  # voxels of a crop whose distances are computed voxel by voxel; of larger ones on a coarser grid
)
STEPS = 7  # of a bisection
PIECES = 6  # that a mask of one component is cut into
Mask = np.ndarray  # x y z, bool


class Organ(NamedTuple):
    """One organ of a label map, and the crop around it in which the local kinds work."""

    labels: np.ndarray  # x y z, the whole map
    label: int
    crop: tuple[slice, ...]
    spacing_mm: np.ndarray  # 3
    seams: np.ndarray  # slices z before which another station begins

    def inside(self, mask: Mask) -> Mask:
        """The crop of a mask."""
        return mask[self.crop]

    def whole(self, part: Mask) -> Mask:
        """A mask of the whole volume from its crop."""
        mask = np.zeros(self.labels.shape, bool)
        mask[self.crop] = part
        return mask


def dice(mask: Mask, truth: Mask) -> float:
    """2 |A & B| / (|A| + |B|); 0 where just one is empty, NaN where both are."""
    total = int(np.count_nonzero(mask)) + int(np.count_nonzero(truth))
    return 2 * int(np.count_nonzero(mask & truth)) / total if total else float("nan")


def organ_of(
    labels: np.ndarray, label: int, spacing_mm: Sequence[float] = (1, 1, 1), seams: Sequence[int] = ()
) -> Organ:
    """The organ `label` of a label map, with the room around it that the kinds need.

    Args:
        labels: x y z, integers.
        spacing_mm: of a voxel.
        seams: slices z before which another station begins; "truncate" cuts there. Empty: anywhere.
    Raises:
        MismatchError: `labels` is no volume.
        ValuesError: the organ is not in it.
    """
    labels = np.asarray(labels)
    if labels.ndim != 3:
        raise MismatchError(f"labels are {labels.shape}; a label map is (x, y, z).")
    found = ndimage.find_objects((labels == label).astype(np.uint8))
    if not found or found[0] is None:
        raise ValuesError(
            f"label {label} ({anatomy.NAMES.get(label, '?')}) is not in this map; only organs that are there degrade."
        )
    pads = [max(4, (s.stop - s.start) // 2) for s in found[0]]
    crop = tuple(
        slice(max(s.start - pad, 0), min(s.stop + pad, n)) for s, pad, n in zip(found[0], pads, labels.shape)
    )
    return Organ(labels, label, crop, np.asarray(spacing_mm, np.float64), np.asarray(seams, int))


def degrade(
    organ: Organ, kind: str, severity: float, rng: np.random.Generator, mask: Mask | None = None
) -> Mask | None:
    """The organ's mask after an error of `kind` that leaves a Dice of about 1 - severity.

    Args:
        organ: see `organ_of`.
        kind: of `KINDS`, or two joined by "+", of which the first makes a part of the error.
        severity: 0 to 1. "wrong_organ", "zero_overlap" and "empty" always leave 0.
        rng: random numbers.
        mask: x y z, what to degrade; by default the organ's label.
    Returns:
        x y z, bool; None where this organ cannot have this error (no neighbour, no other organ).
    Raises:
        ConfigError: an unknown kind, or a severity outside 0 to 1.
    """
    if not 0 <= severity <= 1 or any(part not in KINDS for part in kind.split("+")):
        raise ConfigError(
            f"kind {kind!r} with severity {severity}: kinds are {', '.join(KINDS)}, or two joined by +; severity is 0 to 1."
        )
    truth = organ.labels == organ.label
    current = truth if mask is None else mask
    first, *second = kind.split("+")
    target = 1 - severity
    if second:
        half = KINDS[first](organ, current, 1 - severity * rng.uniform(0.2, 0.8), rng)
        if half is None or not half.any():
            return half
        so_far = dice(half, truth)
        target = min(1.0, target / so_far) if so_far > 0 else target
        return KINDS[second[0]](organ, half, target, rng)
    return KINDS[first](organ, current, target, rng)


# -- what several kinds need ---------------------------------------------------------------------------------------


def _distance(mask: Mask, spacing_mm: np.ndarray) -> np.ndarray:
    """mm from each voxel inside `mask` to the nearest outside; of large crops on a grid of every step-th voxel."""
    step = max(1, int(np.ceil((mask.size / LARGEST) ** (1 / 3))))
    found: Any = ndimage.distance_transform_edt(mask[::step, ::step, ::step], spacing_mm * step)
    coarse: np.ndarray = found
    if step == 1:
        return coarse
    for axis in range(3):
        coarse = coarse.repeat(step, axis)
    return coarse[tuple(slice(n) for n in mask.shape)]


def _noise(shape: Sequence[int], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth random numbers of deviation 1."""
    step = max(1, int(sigma / 2))
    coarse = rng.standard_normal([n // step + 2 for n in shape]).astype(np.float32)
    coarse = ndimage.gaussian_filter(coarse, sigma / step, mode="wrap")
    for axis in range(3):
        coarse = coarse.repeat(step, axis)
    field = coarse[tuple(slice(n) for n in shape)]
    return field / max(float(field.std()), 1e-6)


def _fewer(part: Mask, order: np.ndarray, target: float) -> Mask:
    """The voxels of `part` of highest `order`, as many as leave this Dice."""
    where = np.flatnonzero(part)
    count = round(len(where) * target / (2 - target))
    kept = np.zeros(part.size, bool)
    if count:
        kept[where[np.argpartition(order.ravel()[where], len(where) - count)[len(where) - count :]]] = True
    return kept.reshape(part.shape)


def _more(part: Mask, order: np.ndarray, room: Mask, target: float) -> Mask:
    """`part` with the voxels of `room` of lowest `order`, as many as leave this Dice, or all of them."""
    where = np.flatnonzero(room & ~part)
    count = min(len(where), round(2 * part.sum() * (1 - target) / max(target, 1e-3)))
    grown = part.copy().ravel()
    if count:
        grown[where[np.argpartition(order.ravel()[where], count - 1)[:count]]] = True
    return grown.reshape(part.shape)


def _search(make: Callable[[float], Mask], part: Mask, target: float, most: float) -> Mask:
    """Of `make(size)` for sizes 0 to `most`, by bisection, the one whose Dice is nearest to `target`."""
    low, high = 0.0, most
    best, error = part, 1 - target
    for _ in range(STEPS):
        size = (low + high) / 2
        found = make(size)
        score = dice(found, part)
        if abs(score - target) < error:
            best, error = found, abs(score - target)
        low, high = (size, high) if score > target else (low, size)
    return best


# -- the kinds: (organ, mask x y z, Dice to leave, rng) -> mask ------------------------------------------------------


def _erode(organ: Organ, mask: Mask, target: float, rng: np.random.Generator) -> Mask:
    part = organ.inside(mask)
    order = _distance(part, organ.spacing_mm) + rng.uniform(0, 0.1, part.shape) * organ.spacing_mm.min()
    return organ.whole(_fewer(part, order, target))


def _dilate(organ: Organ, mask: Mask, target: float, rng: np.random.Generator) -> Mask:
    part = organ.inside(mask)
    order = _distance(~part, organ.spacing_mm) + rng.uniform(0, 0.1, part.shape) * organ.spacing_mm.min()
    return organ.whole(_more(part, order, ~part, target))


def _rough(organ: Organ, mask: Mask, target: float, rng: np.random.Generator) -> Mask:
    """The surface moved in and out by a smooth random field, as of a network that is not sure."""
    part = organ.inside(mask)
    signed = _distance(part, organ.spacing_mm) - _distance(~part, organ.spacing_mm)
    signed += np.where(part, -0.5, 0.5) * organ.spacing_mm.min()
    field = _noise(part.shape, rng.uniform(1.0, 4.0), rng)
    most = 4 * float(np.abs(signed).max())
    return organ.whole(_search(lambda size: signed + size * field > 0, part, target, most))


def _drop_components(organ: Organ, mask: Mask, target: float, rng: np.random.Generator) -> Mask:
    """Components left out in random order; a mask of one is first cut into pieces around random voxels of it."""
    part = organ.inside(mask)
    pieces, count = cc3d.connected_components(part, connectivity=26, return_N=True)
    if count < 2:
        where = np.argwhere(part)
        seeds = where[rng.integers(len(where), size=PIECES)] * organ.spacing_mm
        nearest = np.argmin(((where[:, None] * organ.spacing_mm - seeds[None]) ** 2).sum(-1), 1)
        pieces, count = np.zeros(part.shape, np.int64), PIECES
        pieces[tuple(where.T)] = nearest + 1
    voxels = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    order = rng.permutation(count)
    left = voxels.sum() - np.concatenate([[0], np.cumsum(voxels[order])])
    scores = 2 * left / (left + voxels.sum())
    dropped = order[: int(np.argmin(np.abs(scores - target)))]
    return organ.whole(part & ~np.isin(pieces, dropped + 1))


def _add_components(organ: Organ, mask: Mask, target: float, rng: np.random.Generator) -> Mask:
    """Balls of foreign voxels beside the organ."""
    part = organ.inside(mask)
    free = ~part & (_distance(~part, organ.spacing_mm) > 1.5 * organ.spacing_mm.max())
    where = np.argwhere(free)
    if not len(where):
        return _dilate(organ, mask, target, rng)
    centres = where[rng.integers(len(where), size=rng.integers(1, 5))]
    seeds = np.ones(part.shape, bool)
    seeds[tuple(centres.T)] = False
    return organ.whole(_more(part, _distance(seeds, organ.spacing_mm), free, target))


def _moved(mask: Mask, steps: Sequence[int]) -> Mask:
    """`mask` shifted by voxels; what leaves the volume is lost."""
    moved = np.zeros_like(mask)
    to = tuple(slice(max(s, 0), min(n + s, n)) for s, n in zip(steps, mask.shape))
    source = tuple(slice(max(-s, 0), min(n - s, n)) for s, n in zip(steps, mask.shape))
    if all(s.stop > s.start for s in to):
        moved[to] = mask[source]
    return moved


def _shift(organ: Organ, mask: Mask, target: float, rng: np.random.Generator) -> Mask:
    part = organ.inside(mask)
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    extent = max((s.stop - s.start) * mm for s, mm in zip(organ.crop, organ.spacing_mm))

    def make(size: float) -> Mask:
        return _moved(part, np.rint(size * direction / organ.spacing_mm).astype(int).tolist())

    return organ.whole(_search(make, part, target, extent))


def _swap_sides(organ: Organ, mask: Mask, target: float, rng: np.random.Generator) -> Mask | None:
    """Below or above a plane the mask is that of the organ's mirror image: its partner, or else itself mirrored in x."""
    partner = anatomy.MIRROR[organ.label] if organ.label < len(anatomy.MIRROR) else organ.label
    other = organ.labels == partner if partner != organ.label else mask[::-1]
    if not other.any() or dice(other, mask) > 0.5:
        return None
    # own and foreign voxels up to each slice; those where the two overlap belong to both
    own, foreign, common = (np.cumsum(m.sum((0, 1))) for m in (mask, other, mask & other))
    upper = rng.random() < 0.5  # which part stays
    if upper:
        kept, taken, right = own[-1] - own, foreign, common
    else:
        kept, taken, right = own, foreign[-1] - foreign, common[-1] - common
    scores = 2 * (kept + right) / (own[-1] + kept + taken)
    cut = int(np.argmin(np.abs(scores - target))) + 1
    z = np.arange(mask.shape[2])
    keep = z >= cut if upper else z < cut
    return np.where(keep[None, None], mask, other)


def _merge_neighbours(organ: Organ, mask: Mask, target: float, rng: np.random.Generator) -> Mask | None:
    """The nearest voxels of the organs beside it are taken in, of one of them as long as it has any."""
    part, labels = organ.inside(mask), organ.labels[organ.crop]
    room = (labels != 0) & (labels != anatomy.IGNORE) & (labels != organ.label) & ~part
    if not room.any():
        return None
    away = _distance(~part, organ.spacing_mm)
    closest = ndimage.minimum(away, labels, index=(present := np.unique(labels[room])))
    chosen = present[np.argsort(closest)[: int(rng.integers(1, 3))]]
    order = away + np.where(labels == chosen[0], 0, away.max() + 1)
    return organ.whole(_more(part, order, room & np.isin(labels, chosen), target))


def _truncate(organ: Organ, mask: Mask, target: float, rng: np.random.Generator) -> Mask:
    """Cut off at a seam between stations that leaves the nearest Dice; without seams at any plane of slices."""
    along = mask.sum((0, 1))
    below = np.concatenate([[0], np.cumsum(along)])  # voxels before each plane
    inside = np.flatnonzero(along)
    planes = np.arange(inside[0], inside[-1] + 2)
    seams = organ.seams[(organ.seams > inside[0]) & (organ.seams <= inside[-1])]
    planes = seams if len(seams) else planes
    lower = rng.random() < 0.5
    left = below[planes] if lower else below[-1] - below[planes]
    cut = planes[int(np.argmin(np.abs(2 * left / (left + below[-1]) - target)))]
    z = np.arange(mask.shape[2])
    return mask & (z < cut if lower else z >= cut)[None, None]


def _smooth(organ: Organ, mask: Mask, target: float, rng: np.random.Generator) -> Mask:
    part = organ.inside(mask).astype(np.float32)
    level = rng.uniform(0.4, 0.6)
    most = max(part.shape) * float(organ.spacing_mm.max()) / 2

    def make(size: float) -> Mask:
        return ndimage.gaussian_filter(part, size / organ.spacing_mm, mode="constant", truncate=3) > level

    return organ.whole(_search(make, part > 0, target, most))


def _wrong_organ(organ: Organ, mask: Mask, target: float, rng: np.random.Generator) -> Mask | None:
    """The mask of another organ, as by a wrong id."""
    del target
    others = np.setdiff1d(classes_in(organ.labels), [organ.label])
    return (organ.labels == rng.choice(others)) & ~mask if len(others) else None


def _zero_overlap(organ: Organ, mask: Mask, target: float, rng: np.random.Generator) -> Mask | None:
    """The organ's own form, moved until nothing of it is where it belongs; where there is no room, what is nearest."""
    del target
    truth = organ.labels == organ.label
    inside = [np.flatnonzero(truth.any(tuple(set(range(3)) - {a}))) for a in range(3)]
    ways = []
    for axis, (n, where) in enumerate(zip(mask.shape, inside)):
        extent = int(where[-1] - where[0]) + 1
        if where[0] >= extent // 2 + 1:
            ways.append((axis, -extent))
        if n - 1 - where[-1] >= extent // 2 + 1:
            ways.append((axis, extent))
    if ways:
        axis, step = ways[int(rng.integers(len(ways)))]
        found = _moved(mask, [step if a == axis else 0 for a in range(3)]) & ~truth
    else:
        part = organ.inside(truth)
        order = _distance(~part, organ.spacing_mm)
        found = organ.whole(_more(part, order, ~part, 0.67)) & ~truth
    return found if found.any() else None


def _empty(organ: Organ, mask: Mask, target: float, rng: np.random.Generator) -> Mask:
    del organ, target, rng
    return np.zeros_like(mask)


KINDS: dict[str, Callable[[Organ, Mask, float, np.random.Generator], Mask | None]] = {
    "erode": _erode,
    "dilate": _dilate,
    "rough": _rough,
    "drop_components": _drop_components,
    "add_components": _add_components,
    "shift": _shift,
    "swap_sides": _swap_sides,
    "merge_neighbours": _merge_neighbours,
    "truncate": _truncate,
    "smooth": _smooth,
    "wrong_organ": _wrong_organ,
    "zero_overlap": _zero_overlap,
    "empty": _empty,
}
NOTHING_LEFT = ("wrong_organ", "zero_overlap", "empty")  # always Dice 0
