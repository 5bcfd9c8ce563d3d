"""The architecture of a checkpoint that does not say it."""

import numpy as np
import pytest

from tests.weights.monai_files import FIELDS, state_dict
from ukbob_jax.models.swin_unetr import infer
from ukbob_jax.models.swin_unetr.network import SwinUNETR


@pytest.mark.parametrize(
    "fields", [{}, {"use_v2": True, "qkv_bias": False, "patch_norm": True, "norm": "batch"}]
)
def test_the_architecture_is_read_off_the_tensors(fields):
    model = SwinUNETR(2, 3, **{**FIELDS, "window_size": (3, 3, 3)}, **fields)
    assert SwinUNETR(**infer.fields(state_dict(model))) == model


def test_other_weights_are_refused():
    with pytest.raises(ValueError, match="patch_embed"):
        infer.fields({"conv1.weight": np.zeros((3, 3), np.float32)})
