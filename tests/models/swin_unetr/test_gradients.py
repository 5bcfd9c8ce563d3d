"""A training step against MONAI's in float64: the loss, every gradient, then three steps of AdamW."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ukbob_jax import weights


def dice_ce(logits, labels):
    """MONAI's DiceCELoss(to_onehot_y=True, softmax=True), in the type of the logits."""
    true = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    log_p = jax.nn.log_softmax(logits)
    p, space = jnp.exp(log_p), (1, 2, 3)
    dice = (2 * (p * true).sum(space) + 1e-5) / (p.sum(space) + true.sum(space) + 1e-5)
    return (1 - dice).mean() - (true * log_p).sum(-1).mean()


def monais_steps(case, dtype):
    """Losses of four steps and the first gradient, in MONAI's layout."""
    model = dataclasses.replace(case.model, dtype=dtype)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), case.params)
    labels = case.formulas.formula_labels((case.shape[0], 1, *case.shape[2:]), model.out_channels, case.seed)[
        :, 0
    ]
    x = jnp.asarray(case.image, dtype)
    optimizer = optax.adamw(1e-3, weight_decay=1e-2)

    @jax.jit
    def step(params, state):
        loss, gradient = jax.value_and_grad(
            lambda p: dice_ce(model.apply({"params": p}, x, train=True), labels)
        )(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss, gradient

    state, losses, first = optimizer.init(params), [], None
    for _ in range(4):
        params, state, loss, gradient = step(params, state)
        losses.append(float(loss))
        first = weights.to_monai(gradient, model) if first is None else first
    return losses, first


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize("tag", ["A", "C"])
def test_losses_and_gradients_equal_monais(case, reference, tag):
    """In float64 both are exact to rounding, so the agreement is far below the 1e-3 that float32 noise would need."""
    case = case(tag)
    theirs = json.loads((reference / "swin_unetr" / f"swin_{tag}_grads.json").read_text())["float64"]
    with jax.enable_x64(True):
        losses, gradient = monais_steps(case, jnp.float64)
    np.testing.assert_allclose(losses, theirs["losses"], rtol=1e-7)
    worst = 0.0
    expected = {name: facts for name, facts in theirs["grads"].items() if facts is not None}
    assert expected
    for name, facts in expected.items():
        assert gradient[name].dtype == np.float64
        l2 = np.sqrt((gradient[name] ** 2).sum())
        off = max(abs(l2 - facts["l2"]), abs(case.formulas.projection(gradient[name]) - facts["proj"]))
        worst = max(worst, off / max(facts["l2"], 1e-12))
    print(f"{tag}: losses {losses}, worst relative difference of a gradient {worst:.1e}")
    assert worst < 1e-6
