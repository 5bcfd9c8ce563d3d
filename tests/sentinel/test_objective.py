"""The objective of a grader beside its losses computed one by one, and the saddle point of its detector."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ukbob_jax.sentinel import losses
from ukbob_jax.sentinel.objective import grading, outline_loss, saddle, with_margin
from ukbob_jax.sentinel.volumes import VolumeGrader
from ukbob_jax.training import optimizer
from ukbob_jax.training import state as states
from ukbob_jax.training.state import PRETEXT
from ukbob_jax.training.step import train_step

VECTORS = np.eye(4, dtype=np.float32)


class Toy(nn.Module):
    """Grades and scores as affine functions of what is seen, the vector and the place."""

    detection: bool = False

    @nn.compact
    def __call__(self, seen, embedding=None, place=None, *, train=False):
        embedding = jnp.zeros((len(seen), 4)) if embedding is None else embedding
        place = jnp.zeros((len(seen), 4)) if place is None else place
        x = jnp.concatenate([seen.reshape(len(seen), -1), embedding, place], -1)
        out = nn.Dense(2)(x)
        return (jax.nn.sigmoid(out[:, 0]), out[:, 1]) if self.detection else jax.nn.sigmoid(out[:, 0])


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    dice = rng.random(8).astype(np.float32)
    seen = (dice[:, None, None] + 0.1 * rng.standard_normal((8, 2, 2))).astype(np.float32)
    classes = rng.integers(0, 4, 8).astype(np.int32)
    return {
        "seen": seen, "class": classes, "dice": dice, "place": rng.random((8, 4)).astype(np.float32),
        "partner": losses.pair(VECTORS[classes]), "subject": np.zeros(8, np.int32),
    }  # fmt: skip


def begin(detection, tx):
    variables = states.variables_of(Toy(detection), (1, 2, 2))
    made = (lambda key: with_margin(variables(key))) if detection else variables
    return states.init(jax.random.key(0), variables=made, optimizer=tx)


@pytest.mark.parametrize("partners", ["host", "neighbours"])
def test_the_loss_is_the_sum_of_its_parts(batch, partners):
    tx = saddle(optimizer.build(learning_rate=0.1, steps=10))
    state = begin(True, tx)
    own = {"a": jnp.float32(0.3), "b": jnp.float32(-0.2), "alpha": jnp.float32(0.4)}
    params = {**state.params, PRETEXT: own}
    batch = batch if partners == "host" else {n: v for n, v in batch.items() if n != "partner"}
    objective = grading(Toy(True), VECTORS, places=True, ranking=2.0, detector=0.5, threshold=0.6)
    loss, (_, metrics) = objective(params, state, batch, jax.random.key(0))
    network = {"params": {name: tree for name, tree in params.items() if name != PRETEXT}}
    grade, score = Toy(True).apply(network, batch["seen"], VECTORS[batch["class"]], batch["place"])
    pairs = batch.get("partner", losses.neighbours(batch["class"]))
    parts = (
        losses.weighted_mse(grade, batch["dice"]),
        losses.ranking_loss(grade, batch["dice"], pairs=pairs),
        losses.auc_margin(score, batch["dice"] < 0.6, **own),
    )
    np.testing.assert_allclose(loss, parts[0] + 2 * parts[1] + 0.5 * parts[2], rtol=1e-6)
    np.testing.assert_allclose([metrics[n] for n in ("mse", "ranking", "auc_margin")], parts, rtol=1e-6)


def test_alpha_goes_uphill_and_stays_above_zero(batch):
    """The others go downhill, and grades get better on the way."""
    tx = saddle(optimizer.build(learning_rate=0.05, steps=200, schedule="constant"))
    state = begin(True, tx)
    objective = grading(Toy(True), VECTORS, places=False, ranking=1.0, detector=1.0)
    step = jax.jit(lambda s: train_step(s, batch, jax.random.key(0), objective=objective, optimizer=tx))
    gradient = jax.grad(lambda p: objective(p, state, batch, jax.random.key(0))[0])(state.params)[PRETEXT]
    after, first = step(state)
    moved = {
        name: float(after.params[PRETEXT][name] - state.params[PRETEXT][name]) for name in ("a", "b", "alpha")
    }
    assert float(gradient["alpha"]) > 0 and moved["alpha"] > 0
    assert all(moved[name] * float(gradient[name]) < 0 for name in ("a", "b"))
    lowest, state = 0.0, after
    for _ in range(150):
        state, last = step(state)
        lowest = min(lowest, float(state.params[PRETEXT]["alpha"]))
    assert lowest >= 0 and float(last["error"]) < 0.5 * float(first["error"])


def test_without_a_detector_nothing_lies_beside_the_network(batch):
    tx = optimizer.build(learning_rate=0.1, steps=10)
    state = begin(False, tx)
    objective = grading(Toy(), VECTORS, places=False, ranking=0.0)
    loss, (_, metrics) = objective(state.params, state, batch, jax.random.key(0))
    assert PRETEXT not in state.params and set(metrics) == {"mse", "error"}
    np.testing.assert_allclose(loss, metrics["mse"])


def test_drawings_are_learnt_from_the_true_masks(batch):
    model = VolumeGrader(
        4,
        network_fields={
            "n_stages": 2,
            "features_per_stage": (4, 4),
            "strides": (1, 2),
            "n_conv_per_stage": 1,
        },
        outline=4,
    )
    rng = np.random.default_rng(1)
    truth = np.float32(rng.random((8, 8, 8, 8)) < 0.3)
    seen = np.stack([2 * truth - 1, rng.standard_normal(truth.shape)], -1).astype(np.float32)
    batch = {**batch, "seen": seen, "truth": truth}
    tx = optimizer.build(learning_rate=0.03, steps=50, warmup_steps=0)
    state = states.init(jax.random.key(0), variables=states.variables_of(model, seen.shape), optimizer=tx)
    step = jax.jit(
        functools.partial(
            train_step, objective=grading(model, VECTORS, places=True, ranking=0.0), optimizer=tx
        )
    )
    state, first = step(state, batch, jax.random.key(0))
    np.testing.assert_allclose(first["loss"], first["mse"] + first["outline"], rtol=1e-6)
    for _ in range(49):
        state, last = step(state, batch, jax.random.key(0))
    assert last["outline"] < 0.3 * first["outline"]


def test_the_loss_of_a_drawing_is_cross_entropy_and_dice():
    rng = np.random.default_rng(0)
    drawn, truth = (
        rng.standard_normal((2, 3, 3, 3)).astype(np.float32),
        np.float32(rng.random((2, 3, 3, 3)) < 0.5),
    )
    p = 1 / (1 + np.exp(-np.float64(drawn)))
    entropy = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean()
    axes = (1, 2, 3)
    dice = 2 * (p * truth).sum(axes) / (p.sum(axes) + truth.sum(axes))
    np.testing.assert_allclose(outline_loss(drawn, truth), entropy + 1 - dice.mean(), rtol=1e-5)


def test_noise_of_embeddings_is_drawn_from_the_key(batch):
    seen = []

    class Spy(nn.Module):
        @nn.compact
        def __call__(self, seen_, embedding, *, train=False):
            seen.append(np.asarray(embedding))
            return nn.Dense(1)(embedding)[:, 0]

    vectors, noise = VECTORS, np.array([1, 10, 0, 0.5], np.float32)
    model = Spy()
    variables = model.init(jax.random.key(0), batch["seen"], vectors[batch["class"]])
    big = {name: np.concatenate([value] * 200) for name, value in batch.items() if name != "partner"}
    objective = grading(model, vectors, places=False, ranking=0.0, noise=noise)
    tx = optimizer.build(learning_rate=0.1, steps=10)
    state = states.init(jax.random.key(0), variables=lambda key: variables, optimizer=tx)
    for key in (1, 1, 2):
        objective(state.params, state, big, jax.random.key(key))
    one, again, other = (found - vectors[big["class"]] for found in seen[-3:])
    assert (one == again).all() and (one != other).any()
    np.testing.assert_allclose(one.std(0), noise, rtol=0.05)
