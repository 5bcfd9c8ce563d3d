"""Which voxels a probe asks about, and what an encoder's maps say at them.

The feature of a voxel is the vector of all encoder maps there, every map interpolated trilinearly. A scan is seen in
windows of training's crop that cover it; a voxel belongs to the window whose centre is nearest.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.data import whole
from ukbob_jax.errors import ConfigError
from ukbob_jax.store.reader import Store
from ukbob_jax.training.objectives import forward

KINDS = ("knn", "linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """The configuration's section `probe`.

    Attributes:
        every: steps between looks at the network, besides one before the first step and one after the last; 0: none.
        store: whose voxels are classified; empty: the store of the training.
        label: label set there; empty: no probes, pictures alone.
        train_split: split of `store` that a probe learns from.
        test_split: split that it is scored on; persons of both are not learnt from.
        subjects: of each split, the first that have the labels.
        voxels: of each class and subject, drawn once.
        kind: of "knn" and "linear".
        neighbours: of "knn".
        ridge: strength of "linear".
        seed: of the draw, not that of the training, so that trainings compare.
    """

    every: int = 0
    store: str = ""
    label: str = ""
    train_split: str = "train"
    test_split: str = "val"
    subjects: int = 8
    voxels: int = 20
    kind: tuple[str, ...] = KINDS
    neighbours: int = 20
    ridge: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("every", 0), ("subjects", 1), ("voxels", 1), ("neighbours", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"config.probe.{name}: {getattr(self, name)} is less than {least}.")
        if not self.kind or (unknown := set(self.kind) - set(KINDS)):
            named = sorted(unknown)[0] if self.kind else ""
            raise ConfigError(f"config.probe.kind: {named!r} is unknown; choose from {', '.join(KINDS)}.")
        if not 0 < self.ridge < float("inf"):
            raise ConfigError(f"config.probe.ridge: {self.ridge} is not above 0.")


class Window(NamedTuple):
    """A part of a scan, and the voxels in it that are asked about.

    Attributes:
        subject: of the store.
        start: first voxel of the window, x y z.
        places: `n 3` float32, voxels from the window's start on.
        classes: stored ids, `n`.
    """

    subject: str
    start: whole.Voxel
    places: np.ndarray
    classes: np.ndarray


def draw(
    store: Store, label: str, subject: str, size: Sequence[int], voxels: int, seed: Sequence[int]
) -> list[Window]:
    """Draw `voxels` voxels of each class of a subject, all where there are fewer, and cut the scan into windows.

    Ignored voxels are none. Background is a class only where the subject was annotated for all others.

    Args:
        size: of a window, voxels x y z.
        seed: of the draw.
    """
    array, row, rng = store.read(subject, f"label/{label}"), store.rows[subject], np.random.default_rng(seed)
    flat, found, ids = array.ravel(), [], []
    for k in np.unique(flat):
        if k == IGNORE or (k == 0 and row.annotated is not None):
            continue
        where = np.flatnonzero(flat == k)
        chosen = rng.choice(where, min(voxels, len(where)), replace=False)
        found.append(np.sort(chosen))
        ids += [int(k)] * len(chosen)
    if not found:
        return []
    places = np.stack(np.unravel_index(np.concatenate(found), array.shape), axis=1)  # n 3
    starts = whole.tiles(array.shape, size)
    owner = [
        np.argmin(np.abs(places[:, axis, None] - (first + (size[axis] - 1) / 2)), axis=1)
        for axis, first in enumerate(starts)
    ]
    windows = []
    for at in itertools.product(*(range(len(first)) for first in starts)):
        mine = np.logical_and.reduce([of == number for of, number in zip(owner, at)])
        if mine.any():
            start = [int(starts[axis][number]) for axis, number in enumerate(at)]
            inside = (places[mine] - start).astype(np.float32)
            windows.append(Window(subject, (start[0], start[1], start[2]), inside, np.array(ids)[mine]))
    return windows


def extractor(model: nn.Module) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
    """Return (variables, image `1 x y z c`, places `n 3`) -> features `n d` float32, compiled once per shape.

    The network is the one that would be used, not the one that trains: no dropout, stored statistics.

    Raises:
        ConfigError: the network does not say how to get its encoder's maps.
    """
    method = forward.features_of(model)

    @jax.jit
    def features(variables: Any, image: jax.Array, places: jax.Array) -> jax.Array:
        given = {**variables, "params": forward.of_network(variables["params"])}
        maps: Any = model.apply(given, image, method=method, train=False)
        return jnp.concatenate([at_places(level[0], image.shape[1:4], places) for level in maps], axis=1)

    return features


def at_places(level: jax.Array, size: Sequence[int], places: jax.Array) -> jax.Array:
    """Interpolate a map at voxels of the image that it is of; both cover the same space, edges are continued.

    Args:
        level: `x y z d`, of any size.
        size: of the image, voxels x y z.
        places: `n 3`, voxel numbers in the image.
    Returns:
        `n d` float32.
    """
    where = [(places[:, axis] + 0.5) * (level.shape[axis] / size[axis]) - 0.5 for axis in range(3)]
    take = functools.partial(jax.scipy.ndimage.map_coordinates, coordinates=where, order=1, mode="nearest")
    return jax.vmap(take, in_axes=-1, out_axes=-1)(level.astype(jnp.float32))
