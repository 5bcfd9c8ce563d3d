"""Self-supervised objectives under one name, `bob.ssl`: pure functions of arrays; `jobs/pretrain` trains with them."""

from ukbob_jax.training.objectives.contrast import SwinLoss, nt_xent, swin_unetr, turn
from ukbob_jax.training.objectives.fusion import volume_fusion
from ukbob_jax.training.objectives.genesis import GenesisOptions, bezier
from ukbob_jax.training.objectives.genesis import pair as genesis_pair
from ukbob_jax.training.objectives.masked import block_mask, masked_l1, masked_mse
from ukbob_jax.training.objectives.rasd import RasdLoss, prototype_loss
from ukbob_jax.training.objectives.sparse import sparse_norm, visible_at
from ukbob_jax.training.objectives.synthesis import RegionOptions, appearance, regions
from ukbob_jax.training.objectives.voco import VocoAuthorsLoss, VocoLoss, overlaps, voco, voco_authors

__all__ = [
    "GenesisOptions",
    "RasdLoss",
    "RegionOptions",
    "SwinLoss",
    "VocoAuthorsLoss",
    "VocoLoss",
    "appearance",
    "bezier",
    "block_mask",
    "genesis_pair",
    "masked_l1",
    "masked_mse",
    "nt_xent",
    "overlaps",
    "prototype_loss",
    "regions",
    "sparse_norm",
    "swin_unetr",
    "turn",
    "visible_at",
    "voco",
    "voco_authors",
    "volume_fusion",
]
