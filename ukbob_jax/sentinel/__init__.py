"""Quality Sentinel: networks that look at an image and the mask of an organ, and predict the mask's Dice."""

from ukbob_jax.sentinel import embeddings
from ukbob_jax.sentinel.losses import auc_margin, neighbours, pair, ranking_loss, weighted_mse
from ukbob_jax.sentinel.preprocessing import prepare, window
from ukbob_jax.sentinel.resnet import ResNet50

__all__ = [
    "ResNet50",
    "auc_margin",
    "embeddings",
    "neighbours",
    "pair",
    "prepare",
    "ranking_loss",
    "weighted_mse",
    "window",
]
