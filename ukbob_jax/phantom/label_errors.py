"""Known gross errors in a label map, to measure whether a filter finds them.

Every error leaves the organ with a Dice of about 0.3 to 0.75 against the clean map, however large the organ is,
because voxels are ranked and an exact number of them is taken or added:

- shrunken: the outer layers are gone; 25 to 50 % of the voxels stay, the deepest ones.
- inflated: layers are added, over what lies there, until the volume is 1.8 to 3.5 times the true one.
- missing_part: a cut by a plane; 22 to 50 % of the voxels stay, on one side of it.
- leaked: a round bulge grows from a point of the surface until the volume is 1.8 to 3.5 times the true one.
- fragmented: scattered pieces hold 25 to 45 % of the voxels, and specks around the organ hold a few more.
- swapped: the organ and its mirror image trade a part, each taking over the other's id there, as a network does that
  was trained with left-right flips. Trading whole organs would leave every shape as it was; trading parts breaks
  both. An unpaired organ trades with a touching neighbour of similar size. Both organs are listed.

Lost voxels become background, as where a network misses an organ, so no other organ gains any. Added voxels come from
tissues first come, and from any other organ at most `MAX_TAKEN` of its voxels, so that an organ that is not listed
stays nearly whole.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError
from ukbob_jax.phantom.person import stream

KINDS = ("shrunken", "inflated", "missing_part", "leaked", "fragmented", "swapped")
MIN_VOXELS = 24  # smaller organs are left alone: an error there is not gross, it is a few voxels
MAX_TAKEN = 0.2
_PARTNER = {**{a: b for a, b in anatomy.PAIRS}, **{b: a for a, b in anatomy.PAIRS}}


class PlantedError(NamedTuple):
    """One organ whose label was damaged."""

    organ: int  # label id
    kind: str  # one of `KINDS`


Box = tuple[slice, ...]  # x y z


def _box(label: np.ndarray, organ_box: Box) -> Box:
    """The organ's box with room around it for the organ to grow to several times its volume."""
    return tuple(
        slice(
            max(0, s.start - max(4, (s.stop - s.start) // 2)),
            min(n, s.stop + max(4, (s.stop - s.start) // 2)),
        )
        for s, n in zip(organ_box, label.shape)
    )


def _keep(view: np.ndarray, mask: np.ndarray, score: np.ndarray, share: float) -> None:
    """Leave the `share` of the organ with the highest scores; the rest becomes background."""
    values = score[mask]
    lost = np.argsort(values, kind="stable")[: values.size - max(1, round(share * values.size))]
    at = np.flatnonzero(mask)[lost]
    view[np.unravel_index(at, view.shape)] = 0


def _add(
    view: np.ndarray, mask: np.ndarray, distance: np.ndarray, count: int, organ: int, spare: np.ndarray
) -> bool:
    """Give the organ the `count` nearest voxels of the body outside it, no class losing more than it can spare.

    Returns False, and changes nothing, where there are too few.
    """
    free = np.flatnonzero(~mask & (view > 0) & np.isfinite(distance))
    nearest = free[np.argsort(distance.ravel()[free], kind="stable")]
    owner = view.ravel()[nearest]
    by_owner = np.argsort(owner, kind="stable")
    first = np.searchsorted(owner[by_owner], owner[by_owner])
    rank = np.empty_like(by_owner)
    rank[by_owner] = np.arange(owner.size) - first  # how many voxels its owner has lost before this one
    chosen = np.flatnonzero(rank < spare[owner])[:count]
    if chosen.size < 0.7 * count:
        return False
    spare -= np.bincount(owner[chosen], minlength=256)
    view[np.unravel_index(nearest[chosen], view.shape)] = organ
    return True


def _grid(shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)  # x y z 3


def _along(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Position along a random direction, in units of the box, so that a cut never runs along a thin organ."""
    return (_grid(shape) / np.array(shape)) @ rng.standard_normal(3)


def _shrunken(view: np.ndarray, organ: int, spare: np.ndarray, rng: np.random.Generator) -> bool:
    mask = view == organ
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1)))[1:-1, 1:-1, 1:-1]
    _keep(view, mask, depth + 0.3 * rng.random(mask.shape), rng.uniform(0.25, 0.5))
    return True


def _inflated(view: np.ndarray, organ: int, spare: np.ndarray, rng: np.random.Generator) -> bool:
    mask = view == organ
    distance = ndimage.distance_transform_edt(~mask) + 0.3 * rng.random(mask.shape)
    return _add(view, mask, distance, round(rng.uniform(0.8, 2.5) * mask.sum()), organ, spare)


def _missing_part(view: np.ndarray, organ: int, spare: np.ndarray, rng: np.random.Generator) -> bool:
    _keep(view, view == organ, _along(rng, view.shape), rng.uniform(0.22, 0.5))
    return True


def _leaked(view: np.ndarray, organ: int, spare: np.ndarray, rng: np.random.Generator) -> bool:
    mask = view == organ
    rim = np.argwhere(mask & ndimage.binary_dilation((view != organ) & (view > 0)))
    start = rim[rng.integers(len(rim))] if len(rim) else np.argwhere(mask)[0]
    distance = np.linalg.norm(_grid(view.shape) - start, axis=-1)
    return _add(view, mask, distance, round(rng.uniform(0.8, 2.5) * mask.sum()), organ, spare)


def _fragmented(view: np.ndarray, organ: int, spare: np.ndarray, rng: np.random.Generator) -> bool:
    mask = view == organ
    noise = ndimage.gaussian_filter(rng.standard_normal(view.shape, np.float32), 0.9)
    near = np.asarray(ndimage.distance_transform_edt(~mask)) < 5
    specks = round(rng.uniform(0.05, 0.2) * mask.sum())
    _keep(view, mask, noise, rng.uniform(0.25, 0.45))
    _add(view, mask, np.where(near & ~mask, -noise, np.inf).astype(np.float32), specks, organ, spare)
    return True


_ALONE = {
    "shrunken": _shrunken,
    "inflated": _inflated,
    "missing_part": _missing_part,
    "leaked": _leaked,
    "fragmented": _fragmented,
}


def _neighbour(label: np.ndarray, organ: int, box: Box, sizes: np.ndarray, taken: set[int]) -> int | None:
    """The organ with most voxels around this one, neither tissue nor damaged already, at most twice or half as large."""
    view = label[box]
    ring = ndimage.binary_dilation(view == organ, iterations=2) & (view != organ)
    touching = np.bincount(view[ring], minlength=256)[: anatomy.NUM_CLASSES]
    ratio = sizes[organ] / np.maximum(sizes[: anatomy.NUM_CLASSES], 1)
    touching[(ratio > 2) | (ratio < 0.5)] = 0
    touching[[0, *anatomy.GROUPS["tissues"], *taken]] = 0
    return int(touching.argmax()) if touching.any() else None


def _trade(label: np.ndarray, a: int, b: int, boxes: Mapping[int, Box], rng: np.random.Generator) -> None:
    """Both organs take over the same number of voxels of the other, cut off by a plane."""
    sizes = [int(np.count_nonzero(label[boxes[i]] == i)) for i in (a, b)]
    count = round(rng.uniform(0.28, max(0.28, min(0.6, 0.7 * min(sizes) / max(sizes)))) * max(sizes))
    count = min(count, round(0.7 * min(sizes)))
    direction = rng.standard_normal(3)
    parts = []
    for organ in (a, b):
        box = boxes[organ]
        at = np.argwhere(label[box] == organ)
        position = (at / np.array(label[box].shape)) @ direction
        parts.append(at[np.argsort(position, kind="stable")[:count]] + [s.start for s in box])
    for part, other in zip(parts, (b, a)):
        label[tuple(part.T)] = other


def _swap(
    label: np.ndarray,
    organ: int,
    boxes: Mapping[int, Box],
    sizes: np.ndarray,
    taken: set[int],
    rng: np.random.Generator,
) -> int | None:
    """Trade with the partner; returns its id, or None where there is none to trade with."""
    partner = _PARTNER.get(organ)
    if partner is None:
        partner = _neighbour(label, organ, _box(label, boxes[organ]), sizes, taken)
    if partner is None or partner in taken or sizes[partner] < MIN_VOXELS:
        return None
    if min(sizes[organ], sizes[partner]) < 0.45 * max(sizes[organ], sizes[partner]):
        return None
    _trade(label, organ, partner, boxes, rng)
    return partner


def plant(
    label: np.ndarray,
    seed: int,
    *,
    organs: Sequence[int] | None = None,
    count: int | None = None,
    share: float = 0.1,
    kinds: Sequence[str] = KINDS,
) -> tuple[np.ndarray, list[PlantedError]]:
    """Damage some organs of one label map.

    Args:
        label: `x y z`, uint8; not changed.
        seed: draws organs, kinds and extents.
        organs: ids that may be damaged; None for every structure but the three tissues. Those with fewer than
            `MIN_VOXELS` voxels are left out. Distances are in voxels.
        count: how many organs to damage (a swap adds the partner); None for `share` of those that may be.
        share: 0 to 1.
        kinds: which errors to choose from; one that the place does not allow becomes a missing part.
    Returns:
        The noisy label map, `x y z` uint8, and the damaged organs, sorted by id.
    Raises:
        ConfigError: a kind is not known, or `share` is not in 0..1.
    """
    if not set(kinds) <= set(KINDS) or not kinds:
        raise ConfigError(f"error kinds {tuple(kinds)} are not known; choose from {', '.join(KINDS)}.")
    if not 0 <= share <= 1:
        raise ConfigError(f"share {share} of damaged organs is not in 0..1.")
    rng = stream(seed, 10)
    noisy = label.copy()
    found = ndimage.find_objects(label, max_label=anatomy.NUM_CLASSES - 1)
    boxes = {organ: box for organ, box in enumerate(found, 1) if box is not None}
    sizes = np.bincount(label.ravel(), minlength=256)
    if organs is None:
        organs = [i for i in range(1, anatomy.NUM_CLASSES) if i not in anatomy.GROUPS["tissues"]]
    eligible = [i for i in organs if sizes[i] >= MIN_VOXELS]
    wanted = round(share * len(eligible)) if count is None else min(count, len(eligible))
    spare = np.floor(MAX_TAKEN * sizes)  # voxels that each class may still lose to others
    spare[anatomy.IGNORE] = 0
    spare[[0, *anatomy.GROUPS["tissues"]]] = sizes.sum()
    taken: dict[int, str] = {}
    for organ in rng.permutation(eligible).tolist():
        if len(taken) >= wanted:
            break
        if organ in taken:
            continue
        kind = str(rng.choice(kinds))
        if kind == "swapped":
            partner = _swap(noisy, organ, boxes, sizes, set(taken), rng)
            if partner is not None:
                taken[organ] = taken[partner] = kind
                spare[[organ, partner]] = 0
                continue
            kind = "missing_part"  # nothing of similar size to trade with
        view = noisy[_box(noisy, boxes[organ])]
        if not _ALONE[kind](view, organ, spare, rng):
            kind = "missing_part"  # nowhere to grow
            _missing_part(view, organ, spare, rng)
        taken[organ] = kind
        spare[organ] = 0
    return noisy, [PlantedError(organ, kind) for organ, kind in sorted(taken.items())]
