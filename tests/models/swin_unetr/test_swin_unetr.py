"""What the package says of Swin-UNETR to those who know no network."""

import json
import re

import jax.numpy as jnp
import pytest

from ukbob_jax.models.swin_unetr import ARCHITECTURE
from ukbob_jax.models.swin_unetr.network import MULTIPLE, SwinUNETR
from ukbob_jax.training import optimizer
from ukbob_jax.weights import tensors


def test_config_round_trip_is_json():
    model = SwinUNETR(4, 73, 24, window_size=[4, 7, 5], dtype=jnp.bfloat16, downsample="mergingv2")
    again = ARCHITECTURE.build(json.loads(json.dumps(ARCHITECTURE.fields(model))))
    assert again == model and again.window == (4, 7, 5)
    with pytest.raises(ValueError, match="feature_sise"):
        ARCHITECTURE.build({**ARCHITECTURE.fields(model), "feature_sise": 3})


MODEL = SwinUNETR(1, 2, 12, deep_supervision=2)


def test_logits_double_in_stride_from_head_to_head():
    assert ARCHITECTURE.strides(MODEL) == ((1, 1, 1), (2, 2, 2), (4, 4, 4))
    assert ARCHITECTURE.strides(SwinUNETR(1, 2, 12)) == ((1, 1, 1),)
    assert (
        ARCHITECTURE.multiple(MODEL) == (MULTIPLE,) * 3
        and ARCHITECTURE.input_shape(MODEL)[1:4] == (MULTIPLE,) * 3
    )


def test_every_parameter_but_the_stem_is_in_one_part():
    parts = ("encoder", "decoder", "head")
    paths = ["/".join(tensor.path) for tensor in tensors.model_tensors(MODEL)]
    for path in paths:
        assert sum(re.search(ARCHITECTURE.parts[part], path) is not None for part in parts) == 1, path
    stem = [path for path in paths if re.search(ARCHITECTURE.parts["stem"], path)]
    assert stem == ["encoder1/conv1/kernel", "encoder1/conv3/kernel", "swin/patch_embed/kernel"]


@pytest.mark.parametrize(
    "path, depth",
    [
        ("swin/patch_embed/kernel", 0),
        ("swin/stage1_block0/norm1/scale", 1),
        ("swin/stage4_merging/reduction/kernel", 4),
        ("encoder1/conv1/kernel", 5),
        ("head/bias", 5),
    ],
)
def test_stages_count_from_the_input(path, depth):
    assert optimizer.depth(path, ARCHITECTURE.stages) == depth


def test_what_is_free_are_fields_and_does_not_change_a_parameter():
    fields = ARCHITECTURE.fields(MODEL)
    assert set(ARCHITECTURE.free) <= set(fields)
    other = ARCHITECTURE.build({**fields, "pad": False, "drop_rate": 0.5, "attn_drop_rate": 0.1})
    assert tensors.model_tensors(other) == tensors.model_tensors(MODEL)
    assert ARCHITECTURE.without_dropout(other).drop_rate == 0.0
