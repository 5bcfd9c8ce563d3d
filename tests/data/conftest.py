"""Six small subjects whose voxel values tell where they come from."""

import itertools

import numpy as np
import pytest

from ukbob_jax.data.options import Crops, Labels, Reading
from ukbob_jax.data.pipeline import batches
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter

SHAPE = (24, 20, 28)
AFFINE = np.diag([8.0, 8.0, 8.0, 1.0])


def image_of(number: int, shape=SHAPE) -> np.ndarray:
    """Channels: subject and x, y, z."""
    x, y, z = np.indices(shape)
    return np.stack([100 * (number + 1) + x, y + 1, z + 1], axis=-1).astype(np.int16)


def label_of(number: int, shape=SHAPE) -> np.ndarray:
    """A large organ 5, a tiny organ 9 of two voxels, and organ 7 in odd subjects."""
    label = np.zeros(shape, np.uint8)
    label[4:14, 4:14, 4:14] = 5
    label[20, 3, 3:5] = 9
    if number % 2:
        label[15:18, 15:18, 20:24] = 7
    return label


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("data") / "store"
    with StoreWriter(path) as writer:
        for number in range(6):
            writer.write(
                f"s{number}", image_of(number), AFFINE, {"auto": label_of(number)}, source=str(number),
                split="train" if number < 5 else "val", contrasts=("fat", "water", "other"),
                annotated=[5, 9] if number == 5 else None,
            )  # fmt: skip
    return Store.open(path)


TRAIN = ("s0", "s1", "s2", "s3", "s4")
# Keywords of `stream` -> which options of `batches` they belong to.
OF_CROPS = ("foreground", "views", "max_shift", "sampling")
OF_LABELS = ("lookup", "flagged", "action", "weights", "groups", "num_classes", "regions")
OF_READING = ("threads", "workers", "packed", "cache_gb", "damaged", "process", "processes")


def stream(store: Store, label: str | None = "auto", subjects=TRAIN, crop=(8, 8, 8), **changes):
    """Batches of small crops; `changes` are fields of any of the options, or keywords of `batches`."""

    def chosen(names: tuple[str, ...]) -> dict:
        return {name: changes.pop(name) for name in names if name in changes}

    crops, reading = Crops(crop, **chosen(OF_CROPS)), Reading(**{"threads": 2, **chosen(OF_READING)})
    of_labels = chosen(OF_LABELS)
    labels = None if label is None else Labels(label, **of_labels)
    return batches(
        store,
        subjects,
        crops=crops,
        labels=labels,
        reading=reading,
        **{"batch_size": 4, "seed": 3, **changes},
    )


def take(store: Store, number: int, **changes) -> list[dict[str, np.ndarray]]:
    """The first batches of a `stream`."""
    source = stream(store, **changes)
    taken = list(itertools.islice(source, number))
    source.close()
    return taken
