"""The block of nnU-Net's U-Nets with other layers than its plans' usual ones, beside the same sums in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ukbob_jax.models import activations, architecture
from ukbob_jax.models.plain_unet.network import PlainUNet
from ukbob_jax.models.resenc_unet.network import ResEncUNet
from ukbob_jax.models.unet import ConvNorm

X = np.random.default_rng(0).normal(size=(2, 4, 3, 2, 2))
KERNEL = np.random.default_rng(1).normal(size=(1, 1, 1, 2, 3))
EXPECTED = {
    "gelu": lambda x: x / 2 * (1 + special.erf(x / 2**0.5)),
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "silu": lambda x: x * special.expit(x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
}
STAGES = {"n_stages": 2, "features_per_stage": (2, 3), "strides": (1, 2), "n_conv_per_stage_decoder": 1}


def normal(x, epsilon):
    axes = (1, 2, 3)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def applied(block, x=X, **options):
    """The block with `KERNEL`, in float64."""
    with jax.enable_x64(True):
        params = {"params": {"conv": {"kernel": jnp.asarray(KERNEL)}}}
        return np.asarray(block.apply(params, jnp.asarray(x), **options))


def block(**fields):
    return ConvNorm(3, (1, 1, 1), bias=False, norm="instance", dtype=jnp.float64, **fields)


@pytest.mark.parametrize("name", EXPECTED)
def test_activations_are_pytorchs(name):
    y = normal(X @ KERNEL[0, 0, 0], 1e-5)
    np.testing.assert_allclose(applied(block(activation=name)), EXPECTED[name](y), rtol=1e-12, atol=1e-12)


def test_each_activation_of_pytorch_has_one_name():
    assert set(EXPECTED) == {*activations.ACTIVATIONS} - {activations.LEAKY}
    assert activations.of_torch("GELU", {"approximate": "cubic"}) is None


def test_the_activation_may_stand_before_the_norm():
    y = X @ KERNEL[0, 0, 0]
    first = applied(block(activation_first=True, epsilon=1e-2))
    np.testing.assert_allclose(first, normal(np.where(y > 0, y, 0.01 * y), 1e-2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["channels", "voxels"])
def test_only_training_drops_channels_or_voxels(kind):
    dropped = ConvNorm(3, (1, 1, 1), bias=False, norm="none", slope=1.0, dropout=kind, dropout_rate=0.5,
                       dtype=jnp.float64)  # fmt: skip
    whole = X @ KERNEL[0, 0, 0]
    np.testing.assert_allclose(applied(dropped), whole, rtol=1e-12)
    found = applied(dropped, train=True, rngs={"dropout": jax.random.key(0)})
    share = found / whole
    np.testing.assert_allclose(share, np.round(share), atol=1e-9)  # 0 or 2
    assert set(np.round(share).ravel()) == {0, 2}
    assert (np.ptp(share, axis=(1, 2, 3)) < 1e-9).all() == (kind == "channels")


@pytest.mark.parametrize(
    "model, place, calm",
    [
        (PlainUNet(1, 2, **STAGES, n_conv_per_stage=1, dropout="channels"), 2, None),
        (PlainUNet(1, 2, **STAGES, n_conv_per_stage=1, nonlin_first=True), 2, None),
        (PlainUNet(1, 2, **STAGES, n_conv_per_stage=1, nonlin_first=True, slope=1.0), 1, None),
        (PlainUNet(1, 2, **STAGES, n_conv_per_stage=1, nonlin_first=True, dropout="voxels"), 3, None),
        (ResEncUNet(1, 2, **STAGES, n_blocks_per_stage=1, dropout="voxels"), 2, "conv2"),
        (
            ResEncUNet(1, 2, **STAGES, n_blocks_per_stage=1, dropout="voxels", block="BottleneckD",
                       bottleneck_channels=2),
            2,
            "conv3",
        ),
    ],
)  # fmt: skip
def test_further_names_count_the_layers_before_the_norm(model, place, calm):
    """The list of layers is convolution, dropout, norm, activation; `nonlin_first` exchanges the last two."""
    copies = architecture.of(model).torch.copies(model)
    assert (
        copies[f"decoder.stages.0.convs.0.all_modules.{place}.weight"]
        == "decoder.stages.0.convs.0.norm.weight"
    )
    if calm is None:
        assert f"encoder.stages.0.0.convs.0.all_modules.{place}.weight" in copies
    else:  # of a residual block only the convolution with the strides has a dropout
        block = "encoder.stages.1.blocks.0."
        assert (
            f"{block}{calm}.all_modules.1.weight" in copies
            and f"{block}skip.1.all_modules.1.weight" in copies
        )
        assert f"{block}conv{int(calm[-1]) - 1}.all_modules.{place}.weight" in copies


def test_running_statistics_are_used_in_the_arithmetics_own_precision():
    batch = ConvNorm(3, (1, 1, 1), bias=False, norm="batch", slope=1.0, dtype=jnp.float64)
    y = X @ KERNEL[0, 0, 0]
    var = np.float32([0.3, 1.7, 2.9])
    with jax.enable_x64(True):
        norm = {"scale": jnp.ones(3), "bias": jnp.zeros(3)}
        statistics = {
            "mean": jnp.zeros(3, jnp.float32),
            "var": jnp.asarray(var),
            "count": jnp.zeros((), jnp.int32),
        }
        variables = {
            "params": {"conv": {"kernel": jnp.asarray(KERNEL)}, "norm": norm},
            "batch_stats": {"norm": statistics},
        }
        found = batch.apply(variables, jnp.asarray(X))
    np.testing.assert_allclose(found, y / np.sqrt(var.astype(np.float64) + 1e-5), rtol=1e-12)
