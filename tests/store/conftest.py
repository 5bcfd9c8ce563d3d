"""A store of three small random subjects."""

import numpy as np
import pytest

from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter

AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])
SHAPE = (40, 36, 33)


def volume(seed: int, shape=SHAPE, channels=2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(-50, 900, (*shape, channels)).astype(np.int16)
    label = rng.integers(0, 5, shape).astype(np.uint8)
    label[:8] = 0
    return image, label


@pytest.fixture
def store(tmp_path) -> Store:
    with StoreWriter(tmp_path / "store") as writer:
        for seed, split in enumerate(("train", "train", "test")):
            image, label = volume(seed)
            writer.write(
                f"sub-{seed}", image, AFFINE, {"auto": label, "manual": label[::-1]}, source=f"sum{seed}",
                split=split, contrasts=("fat", "water"), annotated=[3, 1] if seed else None,
                attributes={"sex": "F"}, quality={"seam": 0.5},
            )  # fmt: skip
    return Store.open(tmp_path / "store")
