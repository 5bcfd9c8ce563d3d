"""Six small subjects whose voxel values tell where they come from."""

import numpy as np
import pytest

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
