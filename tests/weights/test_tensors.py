"""Which tensor of a PyTorch file each parameter is."""

import numpy as np
import pytest

from tests.tiny_network import Tiny
from tests.weights.monai_files import MODEL
from ukbob_jax.models.swin_unetr import ARCHITECTURE
from ukbob_jax.weights import tensors
from ukbob_jax.weights.tensors import ModelTensor

TINY = Tiny(2, 3, width=5, deep_supervision=1)


def test_a_torch_shape_is_undone_by_the_axes():
    tensor = ModelTensor(("conv", "kernel"), "conv.weight", (3, 4, 5, 6, 7), (2, 3, 4, 1, 0))  # x y z i o
    assert tensor.torch_shape == (7, 6, 3, 4, 5)  # o i x y z
    assert np.zeros(tensor.torch_shape).transpose(tensor.axes).shape == tensor.shape


@pytest.mark.parametrize("model", [TINY, MODEL])
def test_every_tensor_has_a_name_of_its_own_and_axes_that_fit(model):
    found = tensors.model_tensors(model)
    assert len({tensor.name for tensor in found}) == len({tensor.path for tensor in found}) == len(found)
    for tensor in found:
        assert sorted(tensor.axes) == list(range(len(tensor.shape)))
        assert np.empty(tensor.torch_shape).transpose(tensor.axes).shape == tensor.shape
    assert tensors.expected(model) == {tensor.name: tensor for tensor in found}  # no running statistics here


def test_names_and_axes_are_the_networks_own():
    found = tensors.expected(TINY)
    assert set(found) == {
        f"{module}.{leaf}"
        for module in (
            "backbone.fine",
            "backbone.fine.norm",
            "backbone.coarse",
            "backbone.coarse.norm",
            "seg",
        )
        for leaf in ("weight", "bias")
    }  # and no auxiliary head
    assert found["backbone.coarse.weight"].torch_shape == (10, 5, 3, 3, 3)
    assert found["backbone.coarse.weight"].path == ("coarse", "kernel")


@pytest.mark.parametrize(
    "path, expected",
    [
        (("swin", "patch_embed", "kernel"), "swinViT.patch_embed.proj.weight"),
        (("swin", "stage2_block1", "attention", "relative_bias"),
         "swinViT.layers2.0.blocks.1.attn.relative_position_bias_table"),
        (("swin", "stage3_merging", "norm", "scale"), "swinViT.layers3.0.downsample.norm.weight"),
        (("encoder1", "norm1", "mean"), "encoder1.layer.norm1.running_mean"),
        (("decoder2", "upsample", "kernel"), "decoder2.transp_conv.conv.weight"),
        (("head", "bias"), "out.conv.conv.bias"),
    ],
)  # fmt: skip
def test_names_of_monai(path, expected):
    assert tensors.name(path, ARCHITECTURE.torch) == expected


def test_auxiliary_heads_have_no_place_in_torch_files():
    names = tensors.torch_names(TINY)
    assert tensors.auxiliary(("aux_0", "kernel"), names) and not tensors.auxiliary(("head", "kernel"), names)
    assert "aux_0" in tensors.variables(TINY)["params"]
