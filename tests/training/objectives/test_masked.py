"""Masks, losses and objectives of MAE and SimMIM."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.objectives.conftest import check, last
from ukbob_jax.errors import ConfigError
from ukbob_jax.training.objectives import masked
from ukbob_jax.training.objectives.masked import MaskedOptions, block_mask, masked_l1, masked_mse


@pytest.fixture(scope="module")
def given(ssl):
    """Values, and prediction, target, hidden, anonymised `b x y z c`."""
    found = ssl("masked")
    visible = last(found.arrays["mae_visible_small"])
    hidden = 1 - visible.repeat(4, 1).repeat(4, 2).repeat(4, 3)
    pred, target, anon = (last(found.arrays[f"mae_{name}"]) for name in ("pred", "target", "anon"))
    return found.values, pred, target, hidden, anon.astype(np.float32)


@pytest.mark.reference
@pytest.mark.parametrize("form", masked.FORMS)
def test_losses_equal_the_reference(given, form):
    values, pred, target, hidden, anon = given
    ones = np.ones_like(hidden)

    def compare(name, loss, hidden, anon=None):
        check(
            lambda p: loss(p, target, hidden, anon, form=form),
            values[name],
            pred,
            names=("p",),
            channels_first=("p",),
        )

    compare("mae_mse", masked_mse, hidden)
    compare("spark_mse", masked_mse, hidden)
    compare("mae_l1", masked_l1, hidden)
    compare("mae_mse_anon", masked_mse, hidden, anon)
    compare("genesis_mse_anon", masked_mse, ones, anon)


@pytest.mark.reference
@pytest.mark.parametrize("name, fill", [("minus1", -1.0), ("255", 255.0)])
def test_masks_stored_with_other_numbers_weigh_wrongly_in_their_form_only(given, name, fill):
    values, pred, target, hidden, anon = given
    stored = anon.copy()
    stored[:, :2] = fill
    found = masked_mse(pred, target, hidden, stored, form="nnssl")
    np.testing.assert_allclose(found, values[f"defect_mae_mse_anon_{name}"]["value"], rtol=1e-5)
    truth = anon.copy()
    truth[:, :2] = 1  # beyond the crop there is nothing to learn
    assert masked_mse(pred, target, hidden, stored) == masked_mse(pred, target, hidden, truth)


@pytest.mark.reference
def test_as_many_blocks_are_hidden_as_in_the_reference(given):
    for name, want in given[0]["mask_creation"].items():
        if "/" not in name:
            continue
        size, block, ratio = name.split("/")
        size = tuple(int(n) for n in size.strip("()").split(","))
        if max(size) > 48:
            continue  # the rule is the same; the mask would be large
        hidden = block_mask(jax.random.key(1), (3, *size), int(block), float(ratio))
        assert hidden.shape == (3, *size) and hidden.dtype == bool
        corners = hidden[:, :: int(block), :: int(block), :: int(block)]
        assert list(np.sum(corners, axis=(1, 2, 3))) == [want["hidden"]] * 3, name


def test_a_mask_hides_whole_blocks_and_differs_between_samples_and_keys():
    mask = np.asarray(block_mask(jax.random.key(0), (4, 8, 12, 18), (4, 4, 4), 0.5))
    cells = mask[:, :, :, :16].reshape(4, 2, 4, 3, 4, 4, 4)
    assert (cells == cells[:, :, :1, :, :1, :, :1]).all()
    assert not mask[..., 16:].any()  # beyond the last whole block
    assert (cells[:, :, 0, :, 0, :, 0].sum((1, 2, 3)) == 12).all()
    assert len({row.tobytes() for row in mask}) == 4
    assert (mask == block_mask(jax.random.key(0), (4, 8, 12, 18), 4, 0.5)).all()
    assert (mask != block_mask(jax.random.key(1), (4, 8, 12, 18), 4, 0.5)).any()


def test_every_block_is_hidden_equally_often():
    mask = block_mask(jax.random.key(0), (2000, 2, 2, 2), 1, 0.75)
    share = np.asarray(mask).mean(0)
    np.testing.assert_allclose(share, 0.75, atol=0.05)  # five standard deviations of 2000 draws


def test_no_weight_left_gives_no_loss_and_no_gradient():
    x = jnp.ones((1, 2, 2, 2, 3))
    none, every = jnp.zeros((1, 2, 2, 2)), jnp.ones((1, 2, 2, 2))
    for hidden, anon in ((none, None), (every, every)):
        loss, grad = jax.value_and_grad(lambda p, h=hidden, a=anon: masked_mse(p, 0 * x, h, a))(x)
        assert loss == 0 and not np.asarray(grad).any()
    assert np.isnan(masked_mse(x, 0 * x, none, form="nnssl"))


def test_what_is_hidden_or_anonymised_decides_alone():
    rng = np.random.default_rng(0)
    pred, target = rng.normal(size=(2, 2, 4, 4, 4, 2))
    hidden, anon = rng.integers(0, 2, (2, 2, 4, 4, 4))
    changed = np.where(((hidden == 1) & (anon == 0))[..., None], pred, 100.0)
    assert masked_mse(pred, target, hidden, anon) == masked_mse(changed, target, hidden, anon)
    chosen = (pred - target)[(hidden == 1) & (anon == 0)]
    np.testing.assert_allclose(masked_mse(pred, target, hidden, anon), np.mean(chosen**2), rtol=1e-6)
    np.testing.assert_allclose(masked_l1(pred, target, hidden, anon), np.mean(np.abs(chosen)), rtol=1e-6)


def test_a_token_fills_blocks_and_the_head_unfolds_cells():
    parts = masked.SimMimParts((2, 2, 2), 1, (2, 2, 2))
    image = jnp.arange(64.0).reshape(1, 4, 4, 4, 1)
    last_map = jnp.arange(24.0).reshape(1, 2, 2, 2, 3)
    params = parts.init(jax.random.key(0), image, last_map)
    hidden = block_mask(jax.random.key(2), (1, 4, 4, 4), 2, 0.5)
    seen = parts.apply(params, image, hidden, method="hide")
    tile = np.tile(params["params"]["token"], (2, 2, 2, 1))[None]
    np.testing.assert_array_equal(seen, np.where(np.asarray(hidden)[..., None], tile, image))
    voxels = parts.apply(params, last_map, method="voxels")
    dense = params["params"]["head"]
    cell = (last_map[0, 1, 0, 1] @ dense["kernel"] + dense["bias"]).reshape(2, 2, 2)
    np.testing.assert_allclose(voxels[0, 2:, :2, 2:, 0], cell, rtol=1e-6)


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"block": 0}, "config.pretrain.block: 0 is less"),
        ({"ratio": 1.0}, "config.pretrain.ratio: 1.0 is not between"),
        ({"form": "mine"}, "config.pretrain.form: 'mine' is unknown"),
    ],
)
def test_options_that_cannot_be_used_are_refused(fields, named):
    with pytest.raises(ConfigError, match=named):
        MaskedOptions(**fields)


def test_blocks_larger_than_a_crop_are_refused():
    with pytest.raises(
        ConfigError, match=r"config.pretrain.block: blocks of \(16, 16, 16\) voxels do not fit"
    ):
        block_mask(jax.random.key(0), (1, 8, 32, 32), 16, 0.75)
