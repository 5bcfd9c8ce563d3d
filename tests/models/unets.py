"""What the three U-Nets of the nnU-Net family have in common, for their tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import ukbob_jax as bob
from tests.models import originals
from ukbob_jax.models import architecture

KINDS = {"PlainConvUNet": "plain_unet", "ResidualEncoderUNet": "resenc_unet", "STUNet": "stunet"}


def build(config):
    name = KINDS[config["kind"]]
    return bob.networks.build(name, config["in_channels"], config["num_classes"], **config["model"])


@functools.cache
def original(reference, tag):
    return originals.Original(reference, tag, build)


@functools.cache
def variables(model, seed=0):
    return model.init(jax.random.key(seed), jnp.zeros(architecture.of(model).input_shape(model)))


def check_infer(found):
    """The tensors give the network back, but for what its architecture says none shows."""
    said, model = architecture.of(found.model), found.model
    hidden = {name: getattr(model, name) for name in said.torch.hidden}
    assert said.build({**said.torch.infer(found.state_dict), **hidden}) == model


def check_copies(found):
    """Further names are the original's; an array that differs from its first is refused by name."""
    model, facts = found.model, found.facts
    assert architecture.of(model).torch.copies(model) == facts["state_dict_aliases"]


def check_padding(model):
    """Other sizes are padded at the end and cropped; coarser logits keep the padding."""
    whole = architecture.of(model).multiple(model)
    size = tuple(n + 1 if n > 1 else n for n in whole)
    x = np.random.default_rng(0).normal(size=(1, *size, model.in_channels)).astype(np.float32)
    padded = np.pad(x, ((0, 0), *((0, -n % m) for n, m in zip(size, whole)), (0, 0)))
    run = jax.jit(functools.partial(model.apply, deep=True))
    logits, others = run(variables(model), x), run(variables(model), padded)
    assert logits[0].shape == (1, *size, model.out_channels) and logits[0].dtype == jnp.float32
    seen = tuple(slice(n) for n in size)
    np.testing.assert_allclose(logits[0], others[0][(slice(None), *seen)], atol=1e-6)
    for one, other in zip(logits[1:], others[1:], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def check_forms(model):
    """What training gives, how narrow arithmetic and remat differ from it, in one program each."""
    said = architecture.of(model)
    size = tuple(2 * n for n in said.multiple(model))
    x = np.random.default_rng(0).normal(size=(2, *size, model.in_channels)).astype(np.float32)
    given = variables(model)
    supervised = model.clone(deep_supervision=True)

    def loss(params, model):
        logits = model.apply({**given, "params": params}, x, deep=True)
        return sum(jnp.square(one).mean() for one in logits), logits

    def gradient(model):
        return jax.jit(jax.value_and_grad(functools.partial(loss, model=model), has_aux=True))(
            given["params"]
        )

    (_, deep), kept = gradient(supervised)
    strides = said.strides(supervised)
    assert [one.shape[1:-1] for one in deep] == [tuple(n // s for n, s in zip(size, by)) for by in strides]
    assert said.strides(model) == strides[:1]
    shapes = jax.eval_shape(functools.partial(supervised.apply, train=True), given, x)
    assert [one.shape for one in shapes] == [one.shape for one in deep]
    assert jax.eval_shape(functools.partial(model.apply, train=True), given, x).shape == deep[0].shape
    (_, again), recomputed = gradient(model.clone(remat=True))
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(kept))
    for one, other in zip(jax.tree.leaves((deep, kept)), jax.tree.leaves((again, recomputed)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * max(scale, 1))
    [narrow] = jax.eval_shape(lambda: [model.clone(dtype=jnp.bfloat16).apply(given, x)])
    assert narrow.dtype == jnp.float32


def check_he(tensor, fan):
    """Drawn as `InitWeights_He(1e-2)` does: normal, of variance 2 / (1 + 1e-4) / fan."""
    assert abs(tensor.std() * np.sqrt(fan / 2 * (1 + 1e-4)) - 1) < 0.1, tensor.std()
    assert np.abs(tensor).max() > 2 * tensor.std()  # not uniform
