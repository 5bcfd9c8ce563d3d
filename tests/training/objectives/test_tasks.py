"""Tasks around a network: what learns, and what anonymised voxels change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny_network
from tests.tiny_network import Tiny
from ukbob_jax import networks
from ukbob_jax.errors import ConfigError
from ukbob_jax.training import optimizer
from ukbob_jax.training import state as states
from ukbob_jax.training.objectives import forward, tasks
from ukbob_jax.training.state import PRETEXT

CROP = (16, 16, 16)
FIELDS = {
    "mae": {"block": 4},
    "simmim": {"block": 4},
    "s3d": {"block": 1},  # the network's last layer sees one voxel, and hidden ones must see the encoder
    "genesis": {"windows": 20},
    "fusion": {"smallest": 3, "largest": 6},
    "voco": {"grid": (2, 2, 1), "targets": 2, "width": 6},
    "swinunetr": {"width": 6},
    "simclr": {"width": 6},
    "rasd": {"width": 6, "voxels": 64, "most": 5, "ellipsoids": 1},
}
IMAGE = np.random.default_rng(0).normal(size=(4, *CROP, 2)).astype(np.float32)
MASK = IMAGE.sum(-1) > 0.5


def task_of(method, **fields):
    return tasks.build(method, {**FIELDS[method], **fields}, lambda k: Tiny(2, k), 2, CROP)


def moved(params):
    """Away from the start, where some layers are the identity and pass no gradient on."""
    return jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(7), p.shape), params)


def start(task, change=lambda params: params):
    variables = dict(task.variables(jax.random.key(0)))
    params = change(variables.pop("params"))
    return states.start(params, variables, optimizer.build(learning_rate=0.1, steps=9))


def loss_of(task, state, **batch):
    batch = {name: jnp.asarray(array) for name, array in batch.items()}
    if task.cut is not None:
        batch = task.cut(jax.random.key(1), batch)
    return jax.jit(task.objective)(state.params, state, batch, jax.random.key(2))


@pytest.mark.parametrize("method", tasks.METHODS)
def test_a_task_learns_with_what_it_wants_and_nothing_else(method):
    """Every parameter has a gradient; tasks of the encoder have no other part of the network."""
    task = task_of(method)
    state = start(task, moved)
    own = {PRETEXT} if method in ("simmim", "voco", "swinunetr", "simclr") else {"head"}
    own |= {PRETEXT} if method == "s3d" else set()
    assert set(state.params) == {"fine", "fine_norm", "coarse", "coarse_norm"} | own
    batch = {"image": jnp.asarray(IMAGE)}
    batch = batch if task.cut is None else task.cut(jax.random.key(1), batch)
    gradient = jax.jit(jax.grad(task.objective, has_aux=True))
    grads, _ = gradient(state.params, state, batch, jax.random.key(2))
    still = [
        jax.tree_util.keystr(path)
        for path, g in jax.tree_util.tree_leaves_with_path(grads)
        if not np.abs(g).max() > 0
    ]
    # A norm takes away the bias before it; SimMIM's linear head has the last map alone.
    assert all("bias" in name for name in still), still


@pytest.mark.parametrize("method", ["mae", "simmim", "s3d", "genesis", "fusion"])
def test_with_all_voxels_anonymised_there_is_nothing_to_learn(method):
    task = task_of(method)
    loss, _ = loss_of(task, start(task), image=IMAGE, anonymised=np.ones_like(MASK))
    assert loss == 0
    loss, _ = loss_of(task, start(task), image=IMAGE, anonymised=np.zeros_like(MASK))
    assert loss == loss_of(task, start(task), image=IMAGE)[0] > 0


def test_masks_are_flipped_and_turned_with_the_image():
    """A network that answers 0 has the mean of what is left as its loss, however the image was turned."""
    zero = lambda params: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
    kept = IMAGE[~MASK]
    task = task_of("genesis", flip=1.0)
    loss, _ = loss_of(task, start(task, zero), image=IMAGE, anonymised=MASK)
    np.testing.assert_allclose(loss, np.mean(kept**2), rtol=1e-5)
    task = task_of("swinunetr")
    _, (_, parts) = loss_of(task, start(task, zero), image=IMAGE, anonymised=MASK)
    np.testing.assert_allclose(parts["reconstruction"], np.mean(np.abs(kept)), rtol=1e-5)


@pytest.mark.parametrize("method, fields", [("fusion", {"form": "nnssl"}), ("genesis", {"form": "nnssl"}),
                                            ("swinunetr", {"form": "nnssl"}), ("simmim", {"form": "nnssl"}),
                                            ("s3d", {"form": "nnssl"}), ("voco", {"form": "first"})])  # fmt: skip
def test_the_other_forms_learn_too(method, fields):
    more = {"fewest": 2, "most": 4} if method == "fusion" else {}
    task, other = task_of(method), task_of(method, **fields, **more)
    assert (task.views, other.views) == ((2, 1) if method == "fusion" else (1, 1))
    loss, _ = loss_of(other, start(other), image=IMAGE)
    assert np.isfinite(loss) and loss != loss_of(task, start(task), image=IMAGE)[0]


def test_the_authors_teacher_is_the_average_of_the_head_and_learns_nothing():
    task = task_of("voco", form="authors")
    assert task.teacher and not task_of("voco").teacher
    state = start(task)
    batch = task.cut(jax.random.key(1), {"image": jnp.asarray(IMAGE)})
    run = jax.jit(task.objective)
    same = run(state.params, state.replace(ema=state.params), batch, jax.random.key(2))[0]
    other = task.variables(jax.random.key(5))["params"]
    head_only = {**other, PRETEXT: state.params[PRETEXT]}
    assert run(state.params, state.replace(ema=head_only), batch, jax.random.key(2))[0] == same
    assert run(state.params, state.replace(ema=other), batch, jax.random.key(2))[0] != same
    taught = jax.jit(
        jax.grad(
            lambda ema: task.objective(state.params, state.replace(ema=ema), batch, jax.random.key(2))[0]
        )
    )
    assert all(not np.asarray(g).any() for g in jax.tree.leaves(taught(state.params)))


def test_the_accuracy_of_fusion_is_that_of_voxels_in_the_loss():
    """What was anonymised cannot be found, and does not count as missed."""
    task = task_of("fusion")
    state = start(task, moved)
    halves = np.zeros(IMAGE.shape[:4], bool)
    found = {}
    for name, half in (("first", np.s_[:, :8]), ("second", np.s_[:, 8:])):
        mask = halves.copy()
        mask[half] = True
        found[name] = float(loss_of(task, state, image=IMAGE, anonymised=mask)[1][1]["accuracy"])
    every = float(loss_of(task, state, image=IMAGE)[1][1]["accuracy"])
    assert found["first"] != found["second"]
    assert np.mean(list(found.values())) == pytest.approx(every, abs=1e-6)  # halves of one size


@pytest.mark.parametrize("method", ["simmim", "swinunetr"])
def test_a_last_map_of_one_cell_is_refused_where_its_norm_makes_it_a_constant(method):
    """The features of two different crops are equal there; of a crop with two cells along an axis they are not."""
    fields = {"n_stages": 3, "features_per_stage": (2, 2, 2), "kernel_sizes": (3, 3, 3), "strides": (1, 4, 4)}
    fields |= {"n_conv_per_stage": (1, 1, 1), "n_conv_per_stage_decoder": (1, 1)}

    def network(k):
        return networks.build("plain_unet", 2, k, **fields)

    with pytest.raises(ConfigError, match=r"config.data.crop: \(16, 16, 16\) voxels leave one cell"):
        tasks.build(method, FIELDS[method], network, 2, CROP)
    tasks.build(method, FIELDS[method], network, 2, (32, 32, 16))
    model = network(2)
    variables = model.init(jax.random.key(0), IMAGE[:1])
    maps = model.apply(variables, IMAGE[:2], method=forward.features_of(model))
    assert maps[-1].shape[1:4] == (1, 1, 1)
    np.testing.assert_array_equal(maps[-1][0], maps[-1][1])
    # a residual path without a norm passes the crop on: nothing to refuse
    fields |= {"n_blocks_per_stage": fields.pop("n_conv_per_stage")}
    tasks.build(method, FIELDS[method], lambda k: networks.build("resenc_unet", 2, k, **fields), 2, CROP)


def test_the_same_key_gives_the_same_and_another_another():
    task = task_of("mae")
    state, batch = start(task), {"image": jnp.asarray(IMAGE)}
    objective = jax.jit(task.objective)
    first, again, other = (objective(state.params, state, batch, jax.random.key(k))[0] for k in (3, 3, 4))
    assert first == again != other


def test_a_network_that_does_not_say_what_its_encoder_is_is_refused(monkeypatch):
    monkeypatch.setattr(tiny_network, "ARCHITECTURE", tiny_network.ARCHITECTURE._replace(features=""))
    with pytest.raises(ConfigError, match=r"config.model.name: .* does not say what its encoder is"):
        task_of("simclr")
