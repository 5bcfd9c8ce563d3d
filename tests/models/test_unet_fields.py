"""Fields of the U-Nets: per stage and axis, and as nnU-Net's plans.json names layers."""

import jax.numpy as jnp
import pytest

import ukbob_jax as bob
from ukbob_jax.errors import ConfigError
from ukbob_jax.models import architecture

PLANS = {  # `arch_kwargs` of a plans.json
    "n_stages": 3,
    "features_per_stage": [4, 6, 8],
    "conv_op": "torch.nn.modules.conv.Conv2d",
    "kernel_sizes": [[3, 3], [3, 1], [3, 3]],
    "strides": [[1, 1], [2, 2], [2, 1]],
    "n_conv_per_stage": [1, 2, 1],
    "n_conv_per_stage_decoder": [2, 1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}


def build(**changes):
    return bob.networks.build("plain_unet", 1, 2, **{**PLANS, **changes})


def test_plans_and_our_fields_make_the_same_network():
    model = build()
    assert model.kernel_sizes == ((3, 3), (3, 1), (3, 3)) and model.norm == "instance_affine"
    ours = {
        key: value
        for key, value in PLANS.items()
        if not key.endswith(("_op", "_op_kwargs")) and "nonlin" not in key
    }
    assert bob.networks.build("plain_unet", 1, 2, **ours) == model
    assert architecture.of(model).build(architecture.of(model).fields(model)) == model


def test_one_number_stands_for_all_stages_and_axes():
    flat = build(kernel_sizes=3, strides=[1, 2, 2], n_conv_per_stage=2, features_per_stage=8)
    assert flat.kernel_sizes == ((3, 3),) * 3 and flat.strides == ((1, 1), (2, 2), (2, 2))
    assert flat.n_conv_per_stage == (2, 2, 2) and flat.features_per_stage == (8, 8, 8)
    deep = bob.networks.build("plain_unet", 1, 2, strides=[1, 2, 2, 2, 2, (1, 2, 2)], dtype="bfloat16")
    assert deep.strides[1] == (2, 2, 2) and deep.kernel_sizes[0] == (3, 3, 3) and deep.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "changes, norm, slope",
    [
        ({"norm_op": "torch.nn.BatchNorm2d", "norm_op_kwargs": {"eps": 1e-5, "affine": True}}, "batch", 0.01),
        ({"norm_op_kwargs": None}, "instance", 0.01),  # PyTorch's own default
        ({"norm_op": None, "norm_op_kwargs": None}, "none", 0.01),
        ({"nonlin": "torch.nn.ReLU"}, "instance_affine", 0.0),
        ({"nonlin": None}, "instance_affine", 1.0),
        ({"nonlin_kwargs": {"negative_slope": 0.2}}, "instance_affine", 0.2),
    ],
)
def test_layers_that_plans_may_name(changes, norm, slope):
    model = build(**changes)
    assert (model.norm, model.slope) == (norm, slope)


@pytest.mark.parametrize(
    "changes, fields",
    [
        (
            {"norm_op_kwargs": {"eps": 1e-3, "affine": True}},
            {"norm_epsilon": 1e-3, "norm": "instance_affine"},
        ),
        ({"nonlin": "torch.nn.GELU", "nonlin_kwargs": None}, {"activation": "gelu"}),
        ({"nonlin": "torch.nn.GELU", "nonlin_kwargs": {"approximate": "tanh"}}, {"activation": "gelu_tanh"}),
        ({"nonlin": "torch.nn.SiLU"}, {"activation": "silu"}),
        ({"nonlin_first": True}, {"nonlin_first": True}),
        ({"dropout_op": "torch.nn.Dropout2d"}, {"dropout": "channels", "dropout_rate": 0.5}),
        (
            {"dropout_op": "torch.nn.Dropout", "dropout_op_kwargs": {"p": 0.1, "inplace": True}},
            {"dropout": "voxels", "dropout_rate": 0.1},
        ),
    ],
)
def test_further_layers_are_fields(changes, fields):
    model = build(**changes)
    assert {field: getattr(model, field) for field in fields} == fields
    assert architecture.of(model).build(architecture.of(model).fields(model)) == model


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"conv_op": "torch.nn.Conv1d"}, "PlainUNet: conv_op 'torch.nn.Conv1d' is not one of our layers"),
        ({"conv_op": "torch.nn.Conv3d"}, "PlainUNet: kernel_sizes .* does not fit conv_op with 3 axes"),
        ({"norm_op": "torch.nn.GroupNorm"}, "PlainUNet: norm_op 'torch.nn.GroupNorm' is not"),
        ({"norm_op_kwargs": {"momentum": 0.5}}, "PlainUNet: norm_op_kwargs.momentum 0.5 is not"),
        ({"norm_op": "torch.nn.InstanceNorm3d"}, "norm_op 'torch.nn.InstanceNorm3d' is not .* conv_op is"),
        ({"norm_op_kwargs": {"track_running_stats": True}}, "norm_op_kwargs.track_running_stats True is not"),
        ({"nonlin": "torch.nn.PReLU"}, "PlainUNet: nonlin 'torch.nn.PReLU"),
        ({"nonlin": "torch.nn.ELU", "nonlin_kwargs": {"alpha": 2.0}}, "nonlin 'torch.nn.ELU' .*alpha"),
        ({"dropout_op": "torch.nn.AlphaDropout"}, "PlainUNet: dropout_op 'torch.nn.AlphaDropout'"),
        ({"dropout_rate": 0.5}, "PlainUNet: dropout_rate 0.5 must be .* 0 where dropout is ''"),
        ({"activation": "cubic"}, "PlainUNet: activation 'cubic' must be one of leaky_relu, gelu"),
        ({"n_stages": 1}, "PlainUNet: n_stages 1 must be a whole number of stages from 2 on"),
        ({"n_stages": 4}, "PlainUNet: kernel_sizes has 3 entries, expected 4"),
        ({"features_per_stage": [4, 6]}, "PlainUNet: features_per_stage has 2 entries, expected 3"),
        ({"n_conv_per_stage_decoder": [1, 1, 1]}, "n_conv_per_stage_decoder has 3 entries, expected 2"),
        ({"n_conv_per_stage": [1, 0, 1]}, "n_conv_per_stage .* must be whole numbers from 1 on"),
        ({"kernel_sizes": [[3, 3], [2, 3], [3, 3]]}, "kernel_sizes .* must be odd"),
        ({"kernel_sizes": [[3, 3], [3, 3, 3], [3, 3]]}, "kernel_sizes .* does not fit conv_op with 2 axes"),
        ({"block": "BottleneckD"}, "PlainUNet: unknown field 'block'"),
    ],
)  # fmt: skip
def test_what_our_networks_do_not_have_is_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(**changes)
