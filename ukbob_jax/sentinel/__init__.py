"""Quality Sentinel: networks that look at an image and the mask of an organ, and predict the mask's Dice."""

from ukbob_jax.sentinel import embeddings
from ukbob_jax.sentinel.degradation import degrade, organ_of
from ukbob_jax.sentinel.embeddings import Embeddings
from ukbob_jax.sentinel.grading import SentinelGrades, grade
from ukbob_jax.sentinel.intervals import conformal_width
from ukbob_jax.sentinel.losses import auc_margin, neighbours, pair, ranking_loss, weighted_mse
from ukbob_jax.sentinel.preprocessing import prepare, window
from ukbob_jax.sentinel.resnet import ResNet50
from ukbob_jax.sentinel.sampling import Pair, pair_at, pairs
from ukbob_jax.sentinel.sight import Sight, usual
from ukbob_jax.sentinel.trained import TrainedGrader, load
from ukbob_jax.sentinel.volumes import VolumeGrader

__all__ = [
    "Embeddings",
    "Pair",
    "ResNet50",
    "SentinelGrades",
    "Sight",
    "TrainedGrader",
    "VolumeGrader",
    "auc_margin",
    "conformal_width",
    "degrade",
    "embeddings",
    "grade",
    "load",
    "neighbours",
    "organ_of",
    "pair",
    "pair_at",
    "pairs",
    "prepare",
    "ranking_loss",
    "usual",
    "weighted_mse",
    "window",
]
