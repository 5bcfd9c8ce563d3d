"""Fingerprints of arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax.training import sharding
from ukbob_jax.training.digests import CHUNK, digests


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


def mixed(number):
    """MurmurHash3's finalizer (Appleby, 2008) on one 32-bit number."""
    number ^= number >> 16
    number = number * 0x85EBCA6B % 2**32
    number ^= number >> 13
    number = number * 0xC2B2AE35 % 2**32
    return number ^ number >> 16


def by_definition(words):
    return f"{sum(mixed(mixed(place + 1) ^ word) for place, word in enumerate(words)) % 2**32:08x}"


def test_a_digest_is_the_sum_of_hashes_of_bits_and_places():
    long = np.random.default_rng(1).integers(0, 2**32, CHUNK + 3).astype(np.uint32)  # more than a chunk
    half, on = np.arange(6, dtype=np.float16).reshape(2, 3), np.array([True, False])
    double = np.array([1.5, -2.0])
    expected = {
        "double": by_definition(double.view(np.uint32).tolist()),
        "half": by_definition(half.view(np.uint16).ravel().tolist()),
        "long": by_definition(long.tolist()),
        "on": by_definition([1, 0]),
    }
    assert digests({"long": long, "half": half, "on": on, "double": double}) == expected


def test_arrays_are_named_by_their_path_and_zeros_of_another_length_differ():
    found = digests({"a": {"b": np.zeros(3), "c": [np.zeros(4), np.int32(1)]}})
    assert list(found) == ["a/b", "a/c/0", "a/c/1"]
    assert found["a/b"] != found["a/c/0"]
