"""Many short trainings of one network in one process: bodies held in memory, every program compiled once.

The network is a small U-Net made of the package's blocks. It works at half the resolution and is told where in the field
of view a voxel lies, and so reaches a useful Dice several times sooner than Swin-UNETR. The step, the loss and the optimizer
are the package's; left out is what takes the time in a short training: the store, checkpoints, evaluation on the way.
Axes: n subjects, x y z voxels, c contrasts, k classes.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ukbob_jax import anatomy, files, phantom, progress
from ukbob_jax.evaluation import metrics
from ukbob_jax.models.blocks import PatchEmbed, ResidualBlock, UpBlock, Upsample
from ukbob_jax.training import losses, optimizer
from ukbob_jax.training import state as states
from ukbob_jax.training.objectives.supervised import supervised
from ukbob_jax.training.step import train_step
from ukbob_jax.volumes import intensity

ORGANS = (  # large enough for voxels of 16 x 9 x 17 mm to carry
    "liver", "stomach", "heart", "lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right",
    "lung_middle_lobe_right", "lung_lower_lobe_right",
)  # fmt: skip
CLASSES = {0: "background", **dict(enumerate(ORGANS, 1))}  # of the network
CHANNELS = len(phantom.CONTRASTS) + 3
TO_CLASSES = anatomy.to_names(CLASSES)  # stored id -> class of the network


class Cohort(NamedTuple):
    """Bodies and their true labels.

    Attributes:
        images: n x y z c float16, normalised; the upper half of the field of view, which holds every organ of `ORGANS`;
            the last three channels are the voxel's place, -1 to 1.
        labels: n x y z uint8, our ids; the whole field of view, as the filter measures it.
        spacing_mm: of a voxel.
    """

    images: np.ndarray
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all trainings of an experiment share."""

    shape: tuple[int, int, int] = (32, 32, 64)  # voxels of the whole field of view
    width: int = 16
    steps: int = 600
    learning_rate: float = 5e-3


class UNet(nn.Module):
    """Volumes b x y z c, sizes multiples of 4, to logits b x y z k; `width` channels at half the resolution."""

    classes: int
    width: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        norm = {"kind": "instance_affine"}
        half = ResidualBlock(self.width, norm)(PatchEmbed(self.width)(x))
        y = ResidualBlock(2 * self.width, norm)(PatchEmbed(2 * self.width)(half))
        y = UpBlock(self.width, norm)(y, half)
        return Upsample(self.classes)(y)


def upper(volumes: np.ndarray) -> np.ndarray:
    """The upper half along z of volumes `... x y z` or, with 5 axes, `n x y z c`."""
    axis = 3 if volumes.ndim == 5 else volumes.ndim - 1
    return np.split(volumes, 2, axis)[1]


def cohort(folder: pathlib.Path, shape: tuple[int, int, int], first: int, count: int) -> Cohort:
    """The phantom's subjects from number `first` on, kept in a file of `folder`."""
    path = folder / f"bodies_{'x'.join(map(str, shape))}_{first}_{count}.npz"
    if not path.exists():
        made = [
            phantom.subject(number, shape) for number in progress.track(range(first, first + count), "bodies")
        ]
        place = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"), -1)  # x y z 3
        images = [
            np.concatenate([intensity.normalize(image, intensity.statistics(image), "zscore"), place], -1)
            for image, _ in made
        ]
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(
            partial, images=upper(np.stack(images)).astype(np.float16), labels=np.stack([m[1] for m in made])
        )
        partial.replace(path)
    with np.load(path) as kept:
        return Cohort(kept["images"], kept["labels"], phantom.spacing_mm(shape))


class Learner:
    """Trains and scores one network, again and again."""

    def __init__(self, setting: Setting, true: np.ndarray) -> None:
        """`true`: n x y z, classes of the network; the cross entropy's weights are from their frequencies."""
        self.steps = setting.steps
        self.model = UNet(len(CLASSES), setting.width)
        tx = optimizer.build(
            learning_rate=setting.learning_rate, steps=setting.steps, warmup_steps=max(1, setting.steps // 10)
        )
        share = np.bincount(true.ravel(), minlength=len(CLASSES)) / true.size
        weights = (share + 1e-6) ** -0.5
        loss = functools.partial(losses.dice_ce, ce_weight=tuple((weights / (share @ weights)).tolist()))
        variables = states.variables_of(self.model, (1, *true.shape[1:], CHANNELS))
        self.init = jax.jit(functools.partial(states.init, variables=variables, optimizer=tx))
        step = functools.partial(train_step, objective=supervised(self.model, loss), optimizer=tx)
        self.step = jax.jit(step, donate_argnums=0)
        self.predict = jax.jit(
            lambda params, image: jnp.argmax(self.model.apply({"params": params}, image), -1)
        )

    def train(self, batches: Iterator[dict[str, np.ndarray]], seed: int) -> tuple[Any, list[float]]:
        """Parameters after the last step, and the loss of every tenth."""
        key = jax.random.key(seed)
        state, trace = self.init(key), []
        for number, batch in zip(range(self.steps), batches):
            state, found = self.step(state, batch, key)
            if number % 10 == 9:
                trace.append(float(found["loss"]))
        return state.params, trace

    def dice(self, params: Any, images: np.ndarray, true: np.ndarray) -> np.ndarray:
        """n k, NaN where a body has not the organ and none was found."""
        found = (np.asarray(self.predict(params, np.float32(image[None])))[0] for image in images)
        return np.stack([metrics.dice(f.astype(np.uint8), t, len(CLASSES)) for f, t in zip(found, true)])


def batches(
    images: np.ndarray,
    labels: np.ndarray,
    seed: int,
    unknown: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """One subject at a time, all of them once before any comes again.

    Args:
        images: n x y z c.
        labels: n x y z, classes of the network or 255.
        unknown: n k, classes of which a subject's labels say nothing.
        weights: n k, how much each label counts; None: all alike.
    """
    rng = np.random.default_rng(seed)
    known = np.ones((len(images), len(CLASSES)), bool) if unknown is None else ~unknown
    while True:
        for i in rng.permutation(len(images)):
            batch = {
                "image": np.float32(images[i][None]),
                "label": labels[i][None],
                "annotated": known[i][None],
            }
            yield batch if weights is None else {**batch, "weights": np.float32(weights[i][None])}


def write_scores(path: pathlib.Path, dice: np.ndarray, **also: Any) -> None:
    """One finished training: mean Dice per organ over the bodies, and their mean."""
    organs = dict(zip(ORGANS, np.nanmean(dice, axis=0)[1:].tolist()))
    files.write_json(path, {**also, "dice": float(np.mean(list(organs.values()))), "organs": organs})
