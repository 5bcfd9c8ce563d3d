"""MONAI's names, and those of public checkpoints."""

import re

import numpy as np
import pytest

from tests.weights.monai_files import MODEL
from ukbob_jax.models.swin_unetr import windows
from ukbob_jax.models.swin_unetr.torch_names import TORCH, index_buffers
from ukbob_jax.weights import aliases, tensors


def test_every_block_has_its_table_of_positions():
    found = index_buffers(MODEL)
    attention = {name.rpartition(".")[0] for name in tensors.expected(MODEL) if name.endswith("bias_table")}
    assert {name.rpartition(".")[0] for name in found} == attention and len(found) == sum(MODEL.depths)
    for table in found.values():
        assert table.shape == (27, 27)  # tokens of a window of 3 x 3 x 3
        np.testing.assert_array_equal(table, windows.relative_index((3, 3, 3)))
        assert table.min() == 0 and table.max() == 5**3 - 1  # all offsets of two tokens
    one, other = list(found.values())[:2]
    assert not np.shares_memory(one, other)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("swin_vit.patch_embed.proj.weight", "swinViT.patch_embed.proj.weight"),
        ("module.SwinViT.layers1.0.blocks.0.mlp.fc1.bias", "swinViT.layers1.0.blocks.0.mlp.linear1.bias"),
        ("encoder.layers2.0.0.downsample.norm.weight", "swinViT.layers2.0.downsample.norm.weight"),
        ("encoder.layers2c.0.layer.conv1.conv.weight", "swinViT.layers2c.0.layer.conv1.conv.weight"),
        ("layers3.0.blocks.1.norm1.weight", "swinViT.layers3.0.blocks.1.norm1.weight"),
        ("encoder1.layer.conv1.conv.weight", "encoder1.layer.conv1.conv.weight"),
        ("out.conv.conv.bias", "out.conv.conv.bias"),
    ],
)
def test_names_of_public_checkpoints(name, expected):
    assert aliases.canonical(name, TORCH) == expected


def test_our_own_names_stay_and_are_no_part_of_a_pretext_task():
    for name in tensors.expected(MODEL):
        assert aliases.canonical(name, TORCH) == name and not re.match(TORCH.pretext, name)


@pytest.mark.parametrize(
    "name", ["rotation_head.weight", "contrastive_pre.0", "swinViT.norm.bias", "mask_token"]
)
def test_heads_of_pretraining_are_known(name):
    assert re.match(TORCH.pretext, name)
