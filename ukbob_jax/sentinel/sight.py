"""How a grader looks at a scan: which crops, of what size, with which window."""

from typing import Any, NamedTuple

from ukbob_jax.errors import MismatchError
from ukbob_jax.sentinel import preprocessing
from ukbob_jax.sentinel.resnet import ResNet50
from ukbob_jax.sentinel.volumes import VolumeGrader

SIZES = {"slices": preprocessing.SIZE, "cubes": 48}  # pixels or voxels of a crop's side
SLICES = 10  # of a mask at most, as released


class Sight(NamedTuple):
    """What of a scan a grader sees."""

    kind: str  # "slices" or "cubes"
    size: int  # pixels of a resized slice, or voxels of a cube's side
    margin: float  # around the mask: pixels for slices, mm for cubes
    modality: str  # "MR" or "CT"
    rule: str  # of the window of MR, see `preprocessing.window`


def usual(model: Any, modality: str = "MR") -> Sight:
    """Return the sight that recipes have by default, as released for slices.

    Raises:
        MismatchError: the network is no grader.
    """
    kind = kind_of(model)
    return Sight(kind, SIZES[kind], preprocessing.MARGIN, modality, "percentile")


def kind_of(model: Any) -> str:
    """Return "slices" or "cubes".

    Raises:
        MismatchError: the network is no grader.
    """
    if not isinstance(model, ResNet50 | VolumeGrader):
        raise MismatchError(
            f"{type(model).__name__}: no grader. Take ResNet50 or VolumeGrader of ukbob_jax.sentinel."
        )
    return "slices" if isinstance(model, ResNet50) else "cubes"
