"""Self-supervised objectives under one name, `bob.ssl`: pure functions of arrays; `jobs/pretrain` trains with them."""

from ukbob_jax.training.objectives.contrast import SwinLoss, nt_xent, swin_unetr, turn
from ukbob_jax.training.objectives.fusion import volume_fusion
from ukbob_jax.training.objectives.genesis import GenesisOptions, bezier
from ukbob_jax.training.objectives.genesis import pair as genesis_pair
from ukbob_jax.training.objectives.masked import block_mask, masked_l1, masked_mse
from ukbob_jax.training.objectives.voco import VocoAuthorsLoss, VocoLoss, overlaps, voco, voco_authors

__all__ = [
    "GenesisOptions",
    "SwinLoss",
    "VocoAuthorsLoss",
    "VocoLoss",
    "bezier",
    "block_mask",
    "genesis_pair",
    "masked_l1",
    "masked_mse",
    "nt_xent",
    "overlaps",
    "swin_unetr",
    "turn",
    "voco",
    "voco_authors",
    "volume_fusion",
]
