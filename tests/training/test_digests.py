"""Fingerprints of arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax.training import sharding
from ukbob_jax.training.digests import digests


def test_digests_do_not_depend_on_the_mesh_but_on_every_bit():
    array = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    tree = {"kernel": array, "half": array.astype(jnp.bfloat16), "step": np.int32(3), "on": array > 0}
    plain = digests(tree)
    mesh = sharding.make_mesh(data=2, fsdp=4, batch_size=8)
    assert digests(jax.device_put(tree, sharding.state_sharding(tree, mesh))) == plain
    changed = {name: value.copy() for name, value in tree.items()}
    changed["kernel"].view(np.uint32)[3, 5] ^= 1
    changed["half"].view(np.uint16)[3, 5] ^= 1
    changed["on"][0, 0] ^= True
    found = digests(changed)
    assert [name for name in plain if found[name] != plain[name]] == ["half", "kernel", "on"]
    assert digests({"double": np.zeros(2)}) != digests({"double": np.ones(2)})  # the lower words are the same
    swapped = digests({"kernel": array[::-1].copy()})
    assert swapped["kernel"] != plain["kernel"]
