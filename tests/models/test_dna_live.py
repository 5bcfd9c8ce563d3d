"""The U-Nets beside the classes they are made after, on configurations that the reference does not hold."""

import functools

import jax
import numpy as np
import pytest

import ukbob_jax as bob
from tests.models import unets
from ukbob_jax import weights

unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")
residual = pytest.importorskip("dynamic_network_architectures.building_blocks.residual")
torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

INSTANCE = {"norm_op": "InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True}}
LEAKY = {"nonlin": "LeakyReLU", "nonlin_kwargs": {"inplace": True}}
CASES = {
    "two stages": ("PlainConvUNet", (8, 6, 4), {
        "n_stages": 2, "features_per_stage": [4, 6], "conv_op": "Conv3d", "kernel_sizes": 3, "strides": [1, 2],
        "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1, "conv_bias": True, **INSTANCE, **LEAKY,
    }),
    "eight stages, slices": ("PlainConvUNet", (128, 128), {
        "n_stages": 8, "features_per_stage": 4, "conv_op": "Conv2d", "kernel_sizes": 3, "strides": [1] + [2] * 6 + [1],
        "n_conv_per_stage": 2, "n_conv_per_stage_decoder": 1, "conv_bias": False, "norm_op": "InstanceNorm2d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True}, **LEAKY,
    }),
    "batch norm, ReLU, kernels of one voxel": ("PlainConvUNet", (4, 6, 6), {
        "n_stages": 3, "features_per_stage": [4, 5, 6], "conv_op": "Conv3d",
        "kernel_sizes": [[1, 1, 1], [1, 3, 1], [3, 5, 1]],
        "strides": [[1, 1, 1], [1, 3, 1], [2, 1, 3]], "n_conv_per_stage": [2, 1, 2], "n_conv_per_stage_decoder": [1, 2],
        "conv_bias": True, "norm_op": "BatchNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "nonlin": "ReLU",
    }),
    "no norm": ("PlainConvUNet", (4, 4, 4), {
        "n_stages": 2, "features_per_stage": [4, 5], "conv_op": "Conv3d", "kernel_sizes": 3, "strides": [1, 2],
        "n_conv_per_stage": 2, "n_conv_per_stage_decoder": 1, "conv_bias": True, "norm_op": None, "nonlin": "LeakyReLU",
        "nonlin_kwargs": {"negative_slope": 0.2},
    }),
    "bottlenecks, a stem of its own": ("ResidualEncoderUNet", (8, 8, 4), {
        "n_stages": 4, "features_per_stage": [8, 8, 12, 12], "conv_op": "Conv3d", "kernel_sizes": [3, 3, [1, 3, 3], 3],
        "strides": [1, 2, [2, 2, 1], 1], "n_blocks_per_stage": [2, 1, 2, 1], "n_conv_per_stage_decoder": [1, 2, 1],
        "conv_bias": True, **INSTANCE, **LEAKY, "block": "BottleneckD",
        "bottleneck_channels": [3, 4, 5, 6], "stem_channels": 6,
    }),
    "activation first, dropout, another epsilon": ("PlainConvUNet", (4, 6, 4), {
        "n_stages": 2, "features_per_stage": [4, 5], "conv_op": "Conv3d", "kernel_sizes": 3, "strides": [1, [1, 2, 2]],
        "n_conv_per_stage": [1, 2], "n_conv_per_stage_decoder": 2, "conv_bias": True, "norm_op": "InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-3, "affine": True}, "nonlin": "GELU", "nonlin_first": True,
        "dropout_op": "Dropout3d", "dropout_op_kwargs": {"p": 0.4, "inplace": True},
    }),
    "bottlenecks with dropout, SiLU": ("ResidualEncoderUNet", (8, 6), {
        "n_stages": 2, "features_per_stage": [4, 6], "conv_op": "Conv2d", "kernel_sizes": 3, "strides": [1, 2],
        "n_blocks_per_stage": [1, 2], "n_conv_per_stage_decoder": 1, "conv_bias": True, "norm_op": "InstanceNorm2d",
        "norm_op_kwargs": {"affine": True}, "nonlin": "SiLU", "dropout_op": "Dropout", "dropout_op_kwargs": {"p": 0.1},
        "block": "BottleneckD", "bottleneck_channels": 3,
    }),
    "slices, batch norm, ReLU, no bias": ("ResidualEncoderUNet", (16, 12), {
        "n_stages": 3, "features_per_stage": [4, 8, 8], "conv_op": "Conv2d", "kernel_sizes": [[3, 3], [3, 1], [3, 3]],
        "strides": [[1, 1], [2, 1], [2, 3]], "n_blocks_per_stage": [1, 2, 2], "n_conv_per_stage_decoder": 1,
        "conv_bias": False, "norm_op": "BatchNorm2d", "norm_op_kwargs": None, "nonlin": "ReLU",
    }),
}  # fmt: skip


def theirs(kind, arguments):
    given = dict(arguments)
    for name in ("conv_op", "norm_op", "nonlin", "dropout_op"):
        given[name] = getattr(torch.nn, given[name]) if given.get(name) else None
    if "block" in given:
        given["block"] = getattr(residual, given["block"])
    return getattr(unet, kind)(input_channels=2, num_classes=3, deep_supervision=True, **given)


@pytest.mark.parametrize("case", CASES)
def test_logits_and_gradients_are_the_originals(case):
    kind, size, arguments = CASES[case]
    torch.manual_seed(0)
    network = theirs(kind, arguments).eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if "num_batches" not in name:
                tensor.copy_(
                    torch.rand_like(tensor) + 0.5 if "var" in name else 0.3 * torch.randn_like(tensor)
                )
    named = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    model = bob.networks.build(unets.KINDS[kind], 2, 3, **arguments)
    params, state = weights.from_torch(named, model), weights.state_from_torch(named, model)
    assert set(weights.to_torch(params, model, state)) == set(named)
    x = np.random.default_rng(0).normal(size=(2, *size, 2)).astype(np.float32)
    volume = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    logits = network(volume)
    sum(one.square().mean() for one in logits).backward()
    run = functools.partial(model.apply, deep=True)

    def loss(params, state):
        found = run({"params": params, **state}, x)
        return sum((one**2).mean() for one in found), found

    (_, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, state)
    for ours, original in zip(found, logits, strict=True):
        scale = max(1, float(original.detach().abs().max()))
        np.testing.assert_allclose(np.moveaxis(ours, -1, 1), original.detach().numpy(), atol=2e-5 * scale)
    ours = weights.to_torch(gradient, model)
    largest = max(float(p.grad.norm()) for p in network.parameters())
    for name, parameter in network.named_parameters():
        np.testing.assert_allclose(ours[name], parameter.grad.numpy(), atol=1e-4 * largest, err_msg=name)


@pytest.mark.parametrize(
    "case", ["batch norm, ReLU, kernels of one voxel", "slices, batch norm, ReLU, no bias"]
)
def test_training_moves_running_statistics_as_the_original_does(case):
    kind, size, arguments = CASES[case]
    network = theirs(kind, arguments).train()
    named = {name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()}
    model = bob.networks.build(unets.KINDS[kind], 2, 3, **arguments)
    given = {"params": weights.from_torch(named, model), **weights.state_from_torch(named, model)}
    x = np.random.default_rng(0).normal(size=(2, *size, 2)).astype(np.float32)
    network(torch.from_numpy(np.moveaxis(x, -1, 1).copy()))
    _, state = jax.jit(lambda v: model.apply(v, x, train=True, mutable=["batch_stats"]))(given)
    ours = weights.to_torch(given["params"], model, state)
    for name, tensor in network.state_dict().items():
        if "running" in name or "num_batches" in name:
            np.testing.assert_allclose(ours[name], tensor.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)
