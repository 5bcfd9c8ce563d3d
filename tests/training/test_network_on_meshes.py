"""The real network, small: halos of convolutions, windows and patches cross devices here, as the toy's layers do not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import toy
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.training import losses, sharding

NET = SwinUNETR(
    2, toy.CLASSES, feature_size=4, num_heads=(1, 2, 2, 4), window_size=2, depths=(1, 1, 1, 1),
    deep_supervision=1,
)  # fmt: skip
SIZE = (32, 32, 32)  # along x a device of two holds 16 voxels, and one of the deepest maps
STRIDES = ((1, 1, 1), (2, 2, 2))
QUICK = {"xla_backend_optimization_level": 0}  # compiling takes longer than running


def loss_of(params, image, label):
    return losses.deep(losses.dice_ce, STRIDES)(NET.apply({"params": params}, image, train=True), label)


def test_the_loss_is_the_same_where_batch_parameters_and_crops_are_split():
    one = toy.batch(0, size=4, shape=SIZE)
    arrays = {"image": one["image"], "label": one["label"]}
    shapes = jax.eval_shape(NET.init, jax.random.key(0), jnp.zeros((1, *SIZE, 2)))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)
    compiled = jax.jit(loss_of, compiler_options=QUICK)
    found = []
    for data, fsdp, space in ((1, 1, 1), (2, 2, 2)):
        mesh = sharding.make_mesh(data=data, fsdp=fsdp, space=space, batch_size=4)
        split = sharding.shard_batch(arrays, mesh)
        assert split["image"].addressable_shards[0].data.shape == (4 // data // fsdp, 32 // space, 32, 32, 2)
        found.append(compiled(jax.device_put(params, sharding.state_sharding(params, mesh)), **split))
    # Sums over devices are made in another order: float32 rounding through some 40 layers.
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def train(mesh, **options):
    """Two steps on eight cases; the second loss also sees the first update."""
    batches = [toy.batch(number, shape=SIZE) for number in range(2)]
    loss = losses.deep(losses.dice_ce, STRIDES)
    return toy.run(mesh, model=NET, batches=batches, loss_fn=loss, learning_rate=1e-3, **options)[1]


@functools.cache
def alone():
    return train(sharding.make_mesh(data=1, batch_size=8))


@pytest.mark.slow
@pytest.mark.parametrize(
    "data, fsdp, space, passes",
    [(2, 2, 2, 2), (8, 1, 1, 1), (4, 2, 1, 1), (2, 4, 1, 1), (1, 1, 2, 1), (1, 1, 4, 4)],
)
def test_two_steps_are_the_same_on_every_mesh_and_in_passes(data, fsdp, space, passes):
    mesh = sharding.make_mesh(data=data, fsdp=fsdp, space=space, batch_size=8 // passes)
    for found, wanted in zip(train(mesh, accumulate=passes), alone(), strict=True):
        np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)
        np.testing.assert_allclose(found["grad_norm"], wanted["grad_norm"], rtol=1e-4)
