"""Fields of each network: `config.model` is the section of one of these functions, whose name is `model.name`.

`--config.model.name=OTHER` puts the section of OTHER in its place, with the recipe's channels, classes and precision.
A network without a function here, or of a module of one's own, gets its own defaults.
"""

import ml_collections


def swin_unetr() -> ml_collections.ConfigDict:
    model = _common("swin_unetr")
    model.feature_size = 48
    model.depths = (2, 2, 2, 2)
    model.num_heads = (3, 6, 12, 24)
    model.window_size = (7, 7, 7)  # tokens, x y z
    model.norm = "instance_affine"  # starts as the public instance norm; scale and bias give ETTA a handle
    model.downsample = "merging"
    model.use_v2 = False
    model.dropout_path_rate = 0.0
    model.deep_supervision = 0  # decoder steps with a loss of their own, 0 to 4
    model.remat = False
    model.attention = "plain"  # "fused": kernels for one NVIDIA GPU, never run on one yet
    return model


def _common(name: str) -> ml_collections.ConfigDict:
    """What every network has."""
    model = ml_collections.ConfigDict()
    model.name = name
    model.in_channels = 4
    model.out_channels = 73  # background and ids 1..72
    model.dtype = "float32"
    return model
