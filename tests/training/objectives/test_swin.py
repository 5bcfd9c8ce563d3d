"""Views and heads of Swin-UNETR's pre-training; its loss is in `test_contrast.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.errors import ConfigError
from ukbob_jax.training.objectives import swin
from ukbob_jax.training.objectives.swin import SwinHeads, SwinOptions

SIZE = (40, 40, 40)


@pytest.mark.reference
def test_a_pass_takes_as_much_as_the_references(ssl):
    """Mean and extremes over seeds."""
    want = ssl("contrast").values["cutout"]["single_pass_hidden_fraction_200_seeds"]
    keys = jax.random.split(jax.random.key(0), 300)
    share = np.asarray(jax.jit(jax.vmap(lambda key: swin.cut_boxes(key, SIZE, 0.3).mean()))(keys))
    np.testing.assert_allclose(share.mean(), want["mean"], atol=0.013)  # three standard errors
    assert share.max() < 0.3 and share.max() > 0.9 * want["max"] and share.min() < 0.01


def test_boxes_are_boxes():
    """With hardly any budget there is one: as many voxels as its sides multiply to."""
    for seed in range(5):
        taken = np.asarray(swin.cut_boxes(jax.random.key(seed), SIZE, 1e-6))
        sides = [taken.any(tuple(a for a in range(3) if a != axis)).sum() for axis in range(3)]
        assert taken.sum() == np.prod(sides) > 0 and max(sides) <= 10


@pytest.mark.parametrize("form", swin.FORMS)
def test_what_is_left_is_the_image_and_the_rest_noise_or_another_sample(form):
    image = jnp.stack([jnp.full((*SIZE, 1), 10.0 * n) for n in (1, 2, 3)])
    image += jnp.linspace(-1, 1, 40).reshape(1, 40, 1, 1, 1)  # each sample has a range of its own
    seen = np.asarray(swin.cut_out(jax.random.key(3), image, SwinOptions(form=form, cut=0.6)))
    own = seen == np.asarray(image)
    assert (own.mean((1, 2, 3, 4)) > 0.4).all() and (own.mean((1, 2, 3, 4)) < 1).all()
    if form == "paper":  # noise between the least and the largest value of the sample
        assert (np.abs(seen - np.array([10.0, 20, 30]).reshape(3, 1, 1, 1, 1)) <= 1 + 1e-5).all()
    else:
        noise = (seen >= 0) & (seen <= 1)
        other = ~own & ~noise
        assert noise.any() and other.any()
        theirs = np.stack([np.roll(image, n, axis=0) for n in (1, 2)])
        assert np.isin(seen[other], theirs).all()


def test_heads_answer_from_the_mean_or_from_two_cells():
    last = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 3, 1, 16)), jnp.float32)
    swapped = last[:, ::-1]
    found = {}
    for pooled in (True, False):
        heads = SwinHeads(2, (4, 2, 1), 8, pooled)
        params = heads.init(jax.random.key(0), last)
        turns, vectors, image = heads.apply(params, last)
        assert turns.shape == (2, 4) and vectors.shape == (2, 8) and image.shape == (2, 8, 6, 1, 2)
        found[pooled] = np.abs(np.asarray(heads.apply(params, swapped)[0] - turns)).max()
    assert found[True] < 1e-5 < found[False]


def test_options_that_cannot_be_used_are_refused():
    for fields, named in (
        ({"cut": 1.1}, "cut: 1.1"),
        ({"form": "x"}, "form: 'x'"),
        ({"width": 0}, "width: 0"),
    ):
        with pytest.raises(ConfigError, match=f"config.pretrain.{named}"):
            SwinOptions(**fields)
