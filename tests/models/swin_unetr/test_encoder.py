import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.cases import formulas
from ukbob_jax.models.blocks import Dropout
from ukbob_jax.models.swin_unetr.encoder import MERGINGS, PatchMerging, WindowAttention


@pytest.mark.reference
@pytest.mark.parametrize(
    ("kind", "name"), [("merging", "merging"), ("mergingv2", "mergingv2"), ("merging_legacy", "legacy")]
)
def test_patch_mergings_equal_monais(reference, kind, name):
    make = formulas(reference).formula_tensor
    folder = reference / "swin_unetr"
    offsets = json.loads((folder / "swin_parts.json").read_text())["merging_offsets"][name]
    assert [list(o) for o in MERGINGS[kind]] == offsets
    x = make("parts.merge.x", (1, 5, 8, 6, 6), 7)
    params = {
        "norm": {
            "scale": make("parts.merge.norm.weight", (48,), 7),
            "bias": make("parts.merge.norm.bias", (48,), 7),
        },
        "reduction": {"kernel": make("parts.merge.reduction.weight", (12, 48), 7).T},
    }
    y = PatchMerging(MERGINGS[kind]).apply({"params": params}, x)
    # 8 numbers of order 1 are normalised and summed in float32
    np.testing.assert_allclose(y, np.load(folder / "swin_parts.npz")[name], atol=2e-6)


def test_attention_with_equal_tokens_returns_their_value():
    """Softmax over anything sums to 1, so equal values come out unchanged: the projection of v."""
    attention = WindowAttention(heads=2, window=(2, 2, 2))
    x = jnp.broadcast_to(jnp.arange(4.0), (1, 3, 8, 4))
    variables = attention.init(jax.random.key(0), x, None, False)
    p = variables["params"]
    value = x @ p["qkv"]["kernel"][:, 8:]
    np.testing.assert_allclose(
        attention.apply(variables, x, None, False), value @ p["proj"]["kernel"], atol=1e-6
    )


def test_masked_tokens_do_not_see_each_other():
    attention = WindowAttention(heads=2, window=(2, 2, 2))
    x = np.random.default_rng(0).normal(size=(1, 1, 8, 4)).astype(np.float32)
    regions = np.array([[0, 0, 0, 0, 1, 1, 1, 1]], np.int32)
    variables = attention.init(jax.random.key(0), x, regions, False)
    changed = x.copy()
    changed[:, :, 4:] += 1
    before, after = (attention.apply(variables, a, regions, False) for a in (x, changed))
    np.testing.assert_array_equal(before[:, :, :4], after[:, :, :4])
    assert np.abs(before[:, :, 4:] - after[:, :, 4:]).max() > 0.1


@pytest.mark.parametrize("whole_samples", [False, True])
def test_dropout_keeps_the_mean_and_drops_its_share(whole_samples):
    x = jnp.ones((2000, 3, 2))
    y = np.asarray(Dropout(0.25, whole_samples).apply({}, x, True, rngs={"dropout": jax.random.key(0)}))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(y.mean() - 1) < 0.05  # 5 standard deviations of the mean of 2000 samples
    assert (np.ptp(y, axis=(1, 2)) == 0).all() == whole_samples
    np.testing.assert_array_equal(Dropout(0.25, whole_samples).apply({}, x, False), x)
