import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ukbob_jax.errors import ConfigError
from ukbob_jax.models.swin_unetr import ARCHITECTURE
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.training import optimizer

PARAMS = {
    "encoder": {"norm1": {"scale": np.ones(3, np.float32), "bias": np.zeros(3, np.float32)}},
    "attention": {
        "kernel": np.full((3, 2), 2, np.float32),
        "relative_bias": np.ones((7, 2), np.float32),
    },
    "normal_head": {"kernel": np.ones((2, 2), np.float32)},
}


def rates(**options):
    schedule = optimizer.build(learning_rate=0.1, steps=100, **options).learning_rate
    return np.array([schedule(n) for n in range(100)])


def test_the_rate_rises_linearly_then_falls_as_a_cosine():
    rate = rates(warmup_steps=10)
    np.testing.assert_allclose(rate[:10], 0.01 * np.arange(1, 11), rtol=1e-6)
    np.testing.assert_allclose(
        rate[10:], 0.05 * (1 + np.cos(np.pi * np.arange(90) / 90)), rtol=1e-5, atol=1e-9
    )


def test_the_cosine_may_end_above_zero_and_the_rate_may_stay_constant():
    floor = 0.2 + 0.8 * (1 + np.cos(np.pi * 0.99)) / 2
    np.testing.assert_allclose(rates(final_fraction=0.2)[-1], 0.1 * floor, rtol=1e-5)
    np.testing.assert_allclose(rates(schedule="constant", warmup_steps=5)[4:], 0.1, rtol=1e-6)


def test_the_rate_of_nnunet_falls_by_a_power_once_an_epoch():
    rate = rates(schedule="polynomial", hold_steps=25, power=0.9)
    epochs = np.repeat(np.arange(4), 25)
    np.testing.assert_allclose(rate, 0.1 * (1 - epochs / 4) ** 0.9, rtol=1e-5)
    rate = rates(schedule="polynomial", final_fraction=0.2, power=2.0)
    np.testing.assert_allclose(rate, 0.02 + 0.08 * (1 - np.arange(100) / 100) ** 2, rtol=1e-5)


def test_the_sawtooth_rises_and_falls_for_the_decoder_then_warms_up_and_falls_for_all():
    """The benchmark's 25 epochs up, 25 down, 50 up and polynomial, an epoch of one step, of 200 in all."""
    options = dict(
        learning_rate=0.1,
        steps=200,
        schedule="sawtooth",
        decoder_steps=50,
        warmup_steps=50,
        encoder="^encoder/",
    )
    schedule = optimizer.build(**options).learning_rate
    rate = np.array([schedule(n) for n in range(200)])
    first = np.concatenate([np.arange(1, 26) / 25, (1 - np.arange(25) / 25) ** 0.9])
    rest = np.concatenate([np.arange(1, 51) / 50, (1 - np.arange(100) / 100) ** 0.9])
    np.testing.assert_allclose(rate, 0.1 * np.concatenate([first, rest]), rtol=1e-5)


def sawtooth(name, **options):
    """The parameters, and the optimizer's states, after every one of eight updates, four of them of the decoder alone."""
    given = dict(name=name, learning_rate=0.1, weight_decay=0.1, steps=8, warmup_steps=1)
    tx = optimizer.build(**given, schedule="sawtooth", decoder_steps=4, encoder="^encoder/", **options)
    update, params, state, passed = jax.jit(tx.update), PARAMS, tx.init(PARAMS), []
    for step in range(8):
        updates, state = update(gradients(params, step), state, params)
        params = jax.tree.map(jnp.add, params, updates)
        passed.append((params, state))
    return passed


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_encoder_stays_bit_for_bit_while_the_decoder_learns_alone(name):
    passed = sawtooth(name)
    for params, state in passed[:4]:
        jax.tree.map(np.testing.assert_array_equal, params["encoder"], PARAMS["encoder"])
        later = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (3,)]
        assert later and not any(np.any(leaf) for leaf in later)  # no momentum either
    heads = [PARAMS["normal_head"]["kernel"], *(params["normal_head"]["kernel"] for params, _ in passed)]
    assert all(np.any(one != other) for one, other in itertools.pairwise(heads))
    assert all(
        np.all(leaf != old)
        for leaf, old in zip(*map(jax.tree.leaves, (passed[4][0]["encoder"], PARAMS["encoder"])))
    )


def test_the_encoders_moments_start_afresh_after_the_first_stage():
    """Adam's first update of it is as long as the rate, in the sign of the gradient; here the rate is at its peak."""
    passed = sawtooth("adamw")
    before, after = (passed[n][0]["encoder"]["norm1"]["bias"] for n in (3, 4))
    gradient = gradients(PARAMS, 4)["encoder"]["norm1"]["bias"]
    np.testing.assert_allclose(after - before, -0.1 * np.sign(gradient), rtol=1e-5)


def test_gradients_of_what_stays_do_not_count_for_the_clipping():
    """With gradients of 1 in the 32 numbers of the rest, whose norm is the limit, nothing is shortened."""
    rest = sum(leaf.size for name in ("attention", "normal_head") for leaf in jax.tree.leaves(PARAMS[name]))
    tx = optimizer.build(
        name="sgd", learning_rate=1.0, weight_decay=0.0, momentum=0.0, clip_norm=float(np.sqrt(rest)), steps=8,
        schedule="sawtooth", decoder_steps=2, encoder="^encoder/",
    )  # fmt: skip
    ones, state = jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS)
    for norm in (rest, rest, rest + 6):
        updates, state = tx.update(ones, state, PARAMS)
        rate = 1.0
        np.testing.assert_allclose(updates["normal_head"]["kernel"], -rate * np.sqrt(rest / norm), rtol=1e-5)


def test_what_is_frozen_for_good_stays_after_the_first_stage_too():
    params, _ = sawtooth("sgd", frozen="^encoder/norm1/scale")[-1]
    np.testing.assert_array_equal(params["encoder"]["norm1"]["scale"], PARAMS["encoder"]["norm1"]["scale"])
    assert np.any(params["encoder"]["norm1"]["bias"] != PARAMS["encoder"]["norm1"]["bias"])


def steps_of_sgd(updates):
    """The parameters after each update with gradients that differ from step to step, all of them decayed."""
    tx = optimizer.build(
        name="sgd",
        learning_rate=0.01,
        steps=updates,
        schedule="polynomial",
        weight_decay=3e-5,
        clip_norm=12.0,
    )
    params, state, passed = PARAMS, tx.init(PARAMS), []
    for step in range(updates):
        updates_, state = tx.update(gradients(params, step), state, params)
        params = jax.tree.map(jnp.add, params, updates_)
        passed.append(params)
    return passed


def gradients(params, step):
    """Gradients over clip_norm at odd steps, under it at even ones."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(step)
    scale = 20.0 if step % 2 else 1.0
    return jax.tree.unflatten(tree, [scale * rng.normal(size=p.shape).astype(np.float32) for p in leaves])


def test_sgd_takes_the_steps_of_torch():
    torch = pytest.importorskip("torch")
    weights = [torch.nn.Parameter(torch.tensor(np.array(p))) for p in jax.tree.leaves(PARAMS)]
    theirs = torch.optim.SGD(weights, 0.01, weight_decay=3e-5, momentum=0.99, nesterov=True)
    for step, ours in enumerate(steps_of_sgd(8)):
        theirs.param_groups[0]["lr"] = 0.01 * (1 - step / 8) ** 0.9
        for weight, gradient in zip(weights, jax.tree.leaves(gradients(PARAMS, step))):
            weight.grad = torch.tensor(np.array(gradient))
        torch.nn.utils.clip_grad_norm_(weights, 12)
        theirs.step()
        for weight, value in zip(weights, jax.tree.leaves(ours)):
            np.testing.assert_allclose(weight.detach().numpy(), value, rtol=2e-6, atol=2e-7)


def test_sgd_takes_the_steps_worked_out_by_hand():
    """Of one number that decays by a lot: v = 0.5 v + g + w p; p -= rate (g + w p + 0.5 v)."""
    tx = optimizer.build(
        name="sgd", learning_rate=0.1, steps=9, schedule="constant", weight_decay=0.5, momentum=0.5
    )
    params = {"norm": {"bias": jnp.ones(1)}}
    state, p, v = tx.init(params), 1.0, 0.0
    for _ in range(3):
        updates, state = tx.update({"norm": {"bias": jnp.ones(1)}}, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        g = 1.0 + 0.5 * p
        v = 0.5 * v + g
        p -= 0.1 * (g + 0.5 * v)
        np.testing.assert_allclose(params["norm"]["bias"], p, rtol=1e-6)


def test_only_kernels_decay():
    expected = {
        "encoder": {"norm1": {"scale": False, "bias": False}},
        "attention": {"kernel": True, "relative_bias": False},
        "normal_head": {"kernel": True},
    }
    assert optimizer.decay_mask(PARAMS) == expected


def test_the_first_update_is_the_one_worked_out_by_hand():
    # Adam's first step is the sign of the gradient times the rate; decay adds rate * weight_decay * parameter.
    tx = optimizer.build(learning_rate=0.1, steps=10, weight_decay=0.5, schedule="constant")
    grads = jax.tree.map(lambda p: -3.0 * jnp.ones_like(p), PARAMS)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["attention"]["kernel"], 0.1 - 0.1 * 0.5 * 2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(updates["encoder"]["norm1"]["scale"], 0.1, rtol=1e-5)


def test_clipping_bounds_the_global_norm_and_keeps_directions():
    tx = optimizer.build(learning_rate=1.0, steps=10, clip_norm=0.5, weight_decay=0.0)
    grads = jax.tree.map(lambda p: 3.0 * jnp.ones_like(p), PARAMS)
    _, after = tx.update(grads, tx.init(PARAMS), PARAMS)
    first_moment = optax.tree.get(after, "mu")
    np.testing.assert_allclose(optax.tree.norm(first_moment), 0.1 * 0.5, rtol=1e-5)


def test_frozen_parameters_stay_and_cost_no_memory():
    tx = optimizer.build(learning_rate=0.1, steps=10, trainable=r"(^|/)[a-z_]*norm[0-9]*/(scale|bias)$")
    state = tx.init(PARAMS)
    updates, state = tx.update(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS)
    assert all(np.any(u) for u in updates["encoder"]["norm1"].values())
    assert not any(np.any(u) for u in jax.tree.leaves([updates["attention"], updates["normal_head"]]))
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * 6


@pytest.mark.parametrize(
    "options, named",
    [
        ({"schedule": "linear"}, "optimizer.schedule: 'linear' is unknown"),
        ({"name": "adam"}, "optimizer.name: 'adam' is unknown; choose one of adamw, sgd"),
        ({"hold_steps": 0}, "optimizer.hold_steps: 0 is less than 1"),
        ({"momentum": 1.0}, r"optimizer.momentum: 1.0 is not in \[0, 1\)"),
        ({"warmup_steps": 10}, r"optimizer.warmup_steps: 10 is not in 0..9"),
        ({"layer_decay": 0.0}, r"optimizer.layer_decay: 0.0 is not in \(0, 1\]"),
        ({"layer_decay": 1.5}, r"optimizer.layer_decay: 1.5 is not in \(0, 1\]"),
        ({"layer_decay": 0.5}, "optimizer.layer_decay: 0.5, but this network does not say which stages"),
        ({"learning_rate": -1.0}, "optimizer.learning_rate: -1.0 is not a number from 0 on"),
        ({"learning_rate": float("nan")}, "optimizer.learning_rate: nan is not a number from 0 on"),
        ({"weight_decay": -1.0}, "optimizer.weight_decay: -1.0 is not a number from 0 on"),
        ({"clip_norm": 0.0}, "optimizer.clip_norm: 0.0 is not above 0"),
        ({"schedule": "sawtooth"}, "optimizer.decoder_steps: 0 with schedule 'sawtooth'"),
        ({"decoder_steps": -1}, "optimizer.decoder_steps: -1 with"),
        ({"decoder_steps": 4}, "optimizer.decoder_steps: 4 with schedule 'cosine'"),
        (
            {"schedule": "sawtooth", "decoder_steps": 4},
            "optimizer.schedule: 'sawtooth' is for trainings on labels",
        ),
        (
            {"schedule": "sawtooth", "decoder_steps": 4, "warmup_steps": 6},
            r"optimizer.warmup_steps: 6 is not in 0..5 \(train.steps - 1 - optimizer.decoder_steps\)",
        ),
        (
            {"schedule": "sawtooth", "decoder_steps": 10, "warmup_steps": 1},
            "optimizer.decoder_steps: 10 are not fewer than train.steps, 10",
        ),
        ({"frozen": "("}, r"optimizer.frozen: '\(' is no regular expression"),
    ],
)
def test_what_cannot_be_is_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        optimizer.build(**{"learning_rate": 0.1, "steps": 10, **options})


def test_a_selection_that_matches_nothing_is_refused_with_an_example_of_a_name():
    with pytest.raises(ConfigError, match="'nrom' matches no parameter; one is named 'attention/kernel'"):
        optimizer.build(learning_rate=0.1, steps=10, trainable="nrom").init(PARAMS)


STAGES = {
    "swin": {
        "patch_embed": {"kernel": np.ones((2, 3), np.float32)},
        **{f"stage{n}_block0": {"mlp": {"kernel": np.ones((3, 3), np.float32)}} for n in range(1, 5)},
    },
    "encoder1": {"kernel": np.ones((3, 3), np.float32)},
    "head": {"kernel": np.ones((3, 2), np.float32)},
}


def first_update(**options):
    """Of parameters that are 1 with gradients of 1: Adam's is minus the rate, decay's minus rate * weight_decay."""
    tx = optimizer.build(learning_rate=1.0, steps=10, schedule="constant", weight_decay=0.5, **options)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, STAGES), tx.init(STAGES), STAGES)
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    return {optimizer.path_name(path): float(update.ravel()[0]) for path, update in leaves}


def test_the_rate_falls_stage_by_stage_towards_the_input():
    found = first_update(layer_decay=0.5, stages=ARCHITECTURE.stages)
    assert found["head/kernel"] == found["encoder1/kernel"] == pytest.approx(-1.5, rel=1e-5)
    for stage in range(1, 5):
        assert found[f"swin/stage{stage}_block0/mlp/kernel"] == pytest.approx(
            -1.5 / 2 ** (5 - stage), rel=1e-5
        )
    assert found["swin/patch_embed/kernel"] == pytest.approx(-1.5 / 32, rel=1e-5)


def test_frozen_stages_stay_and_the_others_learn():
    found = first_update(frozen="^swin/(patch_embed|stage[12])", layer_decay=0.5, stages=ARCHITECTURE.stages)
    still = {name for name, update in found.items() if update == 0}
    assert still == {f"swin/{n}/kernel" for n in ("patch_embed", "stage1_block0/mlp", "stage2_block0/mlp")}
    assert found["swin/stage3_block0/mlp/kernel"] == pytest.approx(-1.5 / 4, rel=1e-5)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"frozen": "stage9"}, "optimizer.frozen: 'stage9' matches no parameter"),
        ({"frozen": "kernel"}, "leaves no"),
    ],
)
def test_a_freeze_that_cannot_be_is_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        first_update(**options)


def test_every_parameter_of_the_network_has_a_depth_and_its_position_biases_do_not_decay():
    model = SwinUNETR(1, 3, feature_size=12, depths=(1, 1, 1, 1), norm="instance_affine")
    shapes = jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, 32, 32, 32, 1)))["params"], jax.random.key(0)
    )
    names = [optimizer.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    assert {optimizer.depth(name, ARCHITECTURE.stages) for name in names} == set(range(6))
    decays = dict(zip(names, jax.tree.leaves(optimizer.decay_mask(shapes))))
    assert {name.split("/")[-1] for name, decay in decays.items() if decay} == {"kernel"}
