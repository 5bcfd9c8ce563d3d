"""The architecture of a checkpoint that does not say it."""

import numpy as np
import pytest

from tests.weights.monai_files import FIELDS, MODEL, state_dict
from ukbob_jax.errors import MismatchError
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


def test_an_encoder_alone_gives_no_classes_and_no_norm():
    encoder = {name: array for name, array in state_dict(MODEL).items() if name.startswith("swinViT.")}
    found = infer.fields(encoder)
    assert found["in_channels"] == 2 and found["depths"] == MODEL.depths and found["mlp_ratio"] == 4
    assert not {"out_channels", "norm", "norm_affine"} & set(found)


@pytest.mark.parametrize(
    "fields", [{"norm": "instance"}, {"norm": "batch", "norm_affine": False}, {"norm": "batch"}]
)
def test_the_norm_is_read_off_its_arrays(fields):
    model = SwinUNETR(2, 3, **{**FIELDS, "window_size": (3, 3, 3)}, **fields)
    assert SwinUNETR(**infer.fields(state_dict(model))) == model


def test_windows_that_are_no_cubes_are_refused():
    model = SwinUNETR(2, 3, **{**FIELDS, "window_size": (3, 3, 2)})
    with pytest.raises(
        MismatchError, match=r"75 relative positions do not make a cube of a window; give window_size"
    ):
        infer.fields(state_dict(model))
