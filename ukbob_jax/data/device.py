"""Batches onto the devices, ahead of the step that needs them."""

import collections
from collections.abc import Callable, Generator

import jax
import numpy as np


def to_device(
    batches: Generator[dict[str, np.ndarray]], place: Callable[[str], jax.sharding.Sharding], ahead: int = 2
) -> Generator[dict[str, jax.Array]]:
    """Yield each batch as global arrays, with the transfers of the next ones already under way.

    The first comes as soon as it is there, so that reading the others and compiling the step go on together.

    Args:
        batches: of this process, rows first; closed when this iterator is.
        place: name of an array -> its sharding.
        ahead: batches held on the device beside the one in use.
    """
    waiting: collections.deque[dict[str, jax.Array]] = collections.deque()
    try:
        for number, batch in enumerate(batches):
            waiting.append(
                {
                    name: jax.make_array_from_process_local_data(place(name), rows)
                    for name, rows in batch.items()
                }
            )
            if number == 0 or len(waiting) > ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        batches.close()
