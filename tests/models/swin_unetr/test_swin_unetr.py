"""What the package says of Swin-UNETR to those who know no network."""

import json

import jax.numpy as jnp
import pytest

from ukbob_jax.models.swin_unetr import ARCHITECTURE
from ukbob_jax.models.swin_unetr.network import SwinUNETR


def test_config_round_trip_is_json():
    model = SwinUNETR(4, 73, 24, window_size=[4, 7, 5], dtype=jnp.bfloat16, downsample="mergingv2")
    again = ARCHITECTURE.build(json.loads(json.dumps(ARCHITECTURE.fields(model))))
    assert again == model and again.window == (4, 7, 5)
    with pytest.raises(ValueError, match="feature_sise"):
        ARCHITECTURE.build({**ARCHITECTURE.fields(model), "feature_sise": 3})
