"""Batches on devices: same values, split over the mesh, closed with the source."""

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ukbob_jax.data.device import to_device


def numbered(total: int, log: list):
    try:
        for number in range(total):
            log.append(number)
            yield {
                "image": np.full((8, 2, 2, 2, 1), number, np.float32),
                "subject": np.full(8, number, np.int32),
            }
    finally:
        log.append("closed")


def test_all_batches_arrive_in_order_split_over_the_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    found = list(to_device(numbered(5, []), lambda name: sharding))
    assert [int(batch["subject"][3]) for batch in found] == [0, 1, 2, 3, 4]
    for batch in found:
        assert batch["image"].sharding == sharding and batch["image"].dtype == np.float32
        assert {shard.data.shape for shard in batch["image"].addressable_shards} == {(1, 2, 2, 2, 1)}


def test_runs_ahead_and_closes_the_source():
    log = []
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    stream = to_device(numbered(50, log), lambda name: here, ahead=2)
    next(stream)
    assert log == [0]
    assert next(stream)["subject"][0] == 1
    assert log == [0, 1, 2, 3]
    stream.close()
    assert log == [0, 1, 2, 3, "closed"]
