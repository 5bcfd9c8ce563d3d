import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tests.training import toy
from ukbob_jax.errors import ConfigError
from ukbob_jax.training import sharding

MESHES = [(1, 1, 1), (8, 1, 1), (4, 2, 1), (2, 4, 1), (4, 1, 2), (2, 2, 2)]  # data, fsdp, space


def shapes(**leaves):
    return {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in leaves.items()}


@pytest.mark.parametrize("data, fsdp, space", MESHES)
def test_training_is_the_same_on_every_mesh(data, fsdp, space):
    expected_state, expected = toy.run(sharding.make_mesh(data=1, batch_size=8), steps=5)
    mesh = sharding.make_mesh(data=data, fsdp=fsdp, space=space, batch_size=8)
    state, metrics = toy.run(mesh, steps=5)
    for found, wanted in zip(metrics, expected):
        # Sums over devices are made in another order: float32 rounding, grown over five steps.
        np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)
        np.testing.assert_allclose(found["grad_norm"], wanted["grad_norm"], rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        state.params,
        expected_state.params,
    )


def test_parameters_and_their_moments_are_split_and_the_batch_too():
    mesh = sharding.make_mesh(data=2, fsdp=4, batch_size=8)
    state, _ = toy.run(mesh, steps=1)
    kernels = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state) if "inner" in str(path)]
    kernels = [leaf for leaf in kernels if leaf.ndim == 2]
    assert len(kernels) == 3  # the parameter and Adam's two moments
    assert all(leaf.addressable_shards[0].data.shape == (2, 2) for leaf in kernels)
    batch = sharding.shard_batch(toy.batch(0), mesh)
    assert {array.addressable_shards[0].data.shape[0] for array in batch.values()} == {1}


def test_space_splits_crops_along_x_and_nothing_else():
    mesh = sharding.make_mesh(data=2, fsdp=2, space=2, batch_size=8)
    batch = {**toy.batch(0), "annotated": np.ones((8, toy.CLASSES), bool)}
    batch["anonymised"] = np.zeros((8, *toy.SHAPE), bool)
    parts = {
        name: array.addressable_shards[0].data.shape
        for name, array in sharding.shard_batch(batch, mesh).items()
    }
    x, y, z = toy.SHAPE
    assert (
        parts["image"] == (2, x // 2, y, z, 2) and parts["label"] == (2, x // 2, y, z) == parts["anonymised"]
    )
    assert parts["subject"] == (2,) and parts["annotated"] == (2, toy.CLASSES)
    state, _ = toy.run(mesh, steps=1)
    assert state.params["inner"]["kernel"].addressable_shards[0].data.shape == (2, 4)  # as without space


def test_an_axis_that_does_not_divide_stays_whole():
    mesh = sharding.make_mesh(data=2, fsdp=4, batch_size=8)
    leaves = {
        "head": shapes(kernel=(1, 1, 1, 12, 73), bias=(72,)),
        "qkv": shapes(kernel=(24, 72)),
        "step": jax.ShapeDtypeStruct((), np.int32),
    }
    placed = jax.tree.map(lambda s: s.spec, sharding.state_sharding(leaves, mesh))
    assert placed["head"]["kernel"] == PartitionSpec(None, None, None, None, None)
    assert placed["qkv"]["kernel"] == PartitionSpec(None, "fsdp")
    assert placed["head"]["bias"] == PartitionSpec(None) and placed["step"] == PartitionSpec()


def test_by_default_a_mesh_takes_the_devices_that_share_the_batch_evenly():
    assert dict(sharding.make_mesh(batch_size=16).shape) == {"data": 8, "fsdp": 1, "space": 1}
    assert dict(sharding.make_mesh(batch_size=6).shape) == {"data": 6, "fsdp": 1, "space": 1}
    assert dict(sharding.make_mesh(batch_size=2).shape) == {"data": 2, "fsdp": 1, "space": 1}
    assert dict(sharding.make_mesh(fsdp=4, batch_size=8).shape) == {"data": 2, "fsdp": 4, "space": 1}
    assert dict(sharding.make_mesh(space=4, batch_size=2).shape) == {"data": 2, "fsdp": 1, "space": 4}


@pytest.mark.parametrize(
    "sizes, named",
    [
        ({"data": 3, "batch_size": 8}, "data.batch_size: 8 cases do not divide over 3 devices"),
        ({"data": 4, "fsdp": 4, "batch_size": 16}, "mesh: data 4 x fsdp 4 x space 1 does not fit 8"),
        ({"fsdp": 16, "batch_size": 16}, "mesh: data 0 x fsdp 16 x space 1 does not fit 8 devices"),
        ({"data": 0, "batch_size": 8}, "mesh: data 0 x fsdp 1 x space 1 does not fit"),
        ({"data": 8, "space": 2, "batch_size": 8}, "mesh: data 8 x fsdp 1 x space 2 does not fit 8 devices"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(sizes, named):
    with pytest.raises(ConfigError, match=named):
        sharding.make_mesh(**sizes)


@pytest.mark.slow
@pytest.mark.parametrize("data, fsdp, space", MESHES[1:])
def test_swin_unetr_trains_the_same_on_every_mesh(data, fsdp, space):
    from ukbob_jax.models.swin_unetr.network import SwinUNETR

    model = SwinUNETR(
        in_channels=2, out_channels=4, feature_size=12, depths=(1, 1, 1, 1), norm="instance_affine"
    )
    crops = [toy.batch(step, shape=(32, 32, 32)) for step in range(2)]
    options = {"model": model, "steps": 2, "batches": crops, "learning_rate": 1e-3}
    expected = toy.run(sharding.make_mesh(data=1, batch_size=8), **options)[1]
    mesh = sharding.make_mesh(data=data, fsdp=fsdp, space=space, batch_size=8)
    found = toy.run(mesh, **options)[1]
    np.testing.assert_allclose([m["loss"] for m in found], [m["loss"] for m in expected], rtol=1e-4)
