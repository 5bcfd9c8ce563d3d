"""Batches onto the devices, ahead of the step that needs them."""

import collections
from collections.abc import Iterator

import jax
import numpy as np


def to_device(
    batches: Iterator[dict[str, np.ndarray]], sharding: jax.sharding.Sharding, ahead: int = 2
) -> Iterator[dict[str, jax.Array]]:
    """Yield each batch as global arrays, with the transfers of the next ones already under way.

    Args:
        batches: of this process, rows first; closed when this iterator is.
        sharding: of every array, over its first axis.
        ahead: batches held on the device beside the one in use.
    """
    waiting: collections.deque[dict[str, jax.Array]] = collections.deque()
    try:
        for batch in batches:
            waiting.append(
                {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}
            )
            if len(waiting) > ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        batches.close()
