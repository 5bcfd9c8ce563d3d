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


def plain_unet() -> ml_collections.ConfigDict:
    """nnU-Net's default network, as its planner makes it for a crop of 96 or 128 voxels."""
    model = _plans("plain_unet")
    model.n_conv_per_stage = (2,) * 6
    model.n_conv_per_stage_decoder = (2,) * 5  # coarsest first
    return model


def resenc_unet() -> ml_collections.ConfigDict:
    """The network of nnU-Net's ResEnc M, L and XL plans, which differ in patch and batch size."""
    model = _plans("resenc_unet")
    model.n_blocks_per_stage = (1, 3, 4, 6, 6, 6)
    model.n_conv_per_stage_decoder = (1,) * 5  # coarsest first
    model.block = "BasicBlockD"  # or "BottleneckD", which needs bottleneck_channels
    model.bottleneck_channels = ()  # per stage
    return model


def _plans(name: str) -> ml_collections.ConfigDict:
    """What the networks of nnU-Net's plans share."""
    model = _common(name)
    model.n_stages = 6
    model.features_per_stage = (32, 64, 128, 256, 320, 320)
    model.kernel_sizes = ((3, 3, 3),) * 6  # voxels, x y z, odd
    model.strides = ((1, 1, 1), *((2, 2, 2),) * 5)
    model.conv_bias = True
    model.norm = "instance_affine"
    model.slope = 0.01  # of the leaky ReLU
    model.deep_supervision = True  # a loss at every step of the decoder, as nnU-Net trains
    model.remat = False
    return model


def stunet() -> ml_collections.ConfigDict:
    """STU-Net; S, B, L and H have 14, 58, 440 and 1456 million parameters."""
    model = _common("stunet")
    model.size = "B"
    model.dims = ()  # channels per stage; empty: those of the size
    model.depth = ()  # blocks per stage; empty: those of the size
    model.pool_op_kernel_sizes = ((2, 2, 2),) * 5  # strides of the stages after the first, x y z
    model.conv_kernel_sizes = ((3, 3, 3),) * 6
    model.deep_supervision = True  # a loss at every step of the decoder, as the authors trained
    model.remat = False
    return model


def mednext() -> ml_collections.ConfigDict:
    """MedNeXt S; B, M and L differ in `exp_r` and `block_counts` (docs/networks.md)."""
    model = _common("mednext")
    model.n_channels = 32
    model.exp_r = (2,) * 9  # encoder, bottleneck, decoder
    model.kernel_size = 3  # voxels, odd
    model.block_counts = (2,) * 9
    model.do_res = True
    model.do_res_up_down = True
    model.norm_type = "group"
    model.grn = False  # response normalisation, the block of version 2
    model.deep_supervision = 0  # coarser logits with a loss of their own, 0 to 4; the authors trained with 4
    model.remat = False
    return model


def primus() -> ml_collections.ConfigDict:
    """Primus S; B, M and L differ in `embed_dim`, `eva_depth` and `eva_numheads` (docs/networks.md)."""
    model = _common("primus")
    model.input_shape = (96, 96, 96)  # must be data.crop: positions are for one size
    model.version = 1  # 2 and 3: residual blocks before the tokens
    model.embed_dim = 396
    model.patch_embed_size = (8, 8, 8)  # voxels, x y z
    model.eva_depth = 12
    model.eva_numheads = 6
    model.num_register_tokens = 0
    model.use_rot_pos_emb = True
    model.use_abs_pos_embed = True
    model.init_values = 0.1
    model.scale_attn_inner = True
    model.drop_path_rate = 0.0  # 0.2 in version 3
    model.depth_per_level = (1, 1, 1)  # residual blocks of each halving; version 3
    model.ch_per_level = (32, 64, 256, 1024)  # channels of the stem and of each halving; version 3
    model.add_skips = True  # the finer maps' patches are added to the tokens; version 3
    model.remat = False
    return model


def _common(name: str) -> ml_collections.ConfigDict:
    """What every network has."""
    model = ml_collections.ConfigDict()
    model.name = name  # of the network; or the module path of your own
    model.in_channels = 4
    model.out_channels = 73  # background and ids 1..72
    model.dtype = "float32"
    return model
