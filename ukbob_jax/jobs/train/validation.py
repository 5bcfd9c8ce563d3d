"""What training looks at now and then: Dice on whole held-out volumes, and a picture of the first."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import linen as nn
from jax.experimental import multihost_utils

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError
from ukbob_jax.evaluation import figures, metrics
from ukbob_jax.inference.options import from_config
from ukbob_jax.inference.windows.averaging import averaged
from ukbob_jax.inference.windows.slabs import segment
from ukbob_jax.inference.windows.sliding import ModuleApply
from ukbob_jax.regions import Regions
from ukbob_jax.store.reader import Store
from ukbob_jax.training import loop, sharding
from ukbob_jax.training.state import TrainState
from ukbob_jax.volumes import intensity


def validator(
    config: ml_collections.ConfigDict, store: Store, subjects: Sequence[str], model: nn.Module, mesh: Any,
    names: dict[int, str], contrasts: tuple[str, ...], regions: Regions | None = None,
) -> Callable[[TrainState], loop.Evaluation]:  # fmt: skip
    """state -> mean and per-organ (or per-region) Dice over whole volumes of `subjects`, and a picture of the first.

    Organs that were not looked for in a subject are not scored there. Several processes share the subjects, and all
    get all scores.

    Raises:
        ConfigError: no such organ.
    """
    ids = {name: i for i, name in names.items() if i and name != anatomy.NAMES[anatomy.UNUSED]}
    if regions:
        ids = {name: i for i, name in enumerate(regions.names)}
    unknown = [name for name in config.organs if name not in ids]
    if unknown:
        raise ConfigError(f"config.organs: {unknown[0]!r} is not among the network's classes.")
    organs = {name: ids[name] for name in config.organs or ids}
    exclude = tuple(i for i, name in names.items() if name == anatomy.NAMES[anatomy.UNUSED])
    lookup = anatomy.to_names(names) if config.data.organs else np.arange(256, dtype=np.uint8)
    k = len(regions.names) if regions else len(names)
    options, dtype = from_config(config), config.inference.dtype
    apply = ModuleApply(model.clone(dtype=jnp.dtype(dtype)) if dtype else model)

    def evaluate(state: TrainState) -> loop.Evaluation:
        variables = sharding.local_copy({"params": state.inference_params, **state.model_state}, mesh)
        scores, looks = np.full((len(subjects), k), np.nan), {}
        for number in range(jax.process_index(), len(subjects), jax.process_count()):
            subject = subjects[number]
            image = read_image(store, subject, contrasts, config.data.normalize)
            true = lookup[store.read(subject, f"label/{config.data.val_label}")]
            found = segment(
                *averaged(apply, [variables], options.views, names, exclude=exclude, regions=bool(regions)),
                image,
                options.window(config.data.crop),
                exclude=exclude,
                region_labels=regions.region_labels if regions else (),
            )
            found = np.asarray(found.labels)
            dice = region_dice(found, true, regions) if regions else metrics.dice(found, true, k)
            known = store.rows[subject].annotated_classes(lookup, 256)
            scores[number] = np.where(regions.annotated(known) if regions else known[:k], dice, np.nan)
            looks = looks or {"look/truth_and_prediction": look(image[..., 0], true, found)}
        return dice_numbers(of_all(scores), organs), looks

    return evaluate


def read_image(store: Store, subject: str, contrasts: tuple[str, ...], normalize: str) -> np.ndarray:
    """A whole image as the network takes it: `x y z c`, float32."""
    row = store.rows[subject]
    channels = row.channel_indices(contrasts)
    stats = intensity.Statistics(**{name: [v[c] for c in channels] for name, v in row.intensity.items()})
    return intensity.normalize(store.read(subject, "image")[..., channels], stats, normalize)


def region_dice(found: np.ndarray, true: np.ndarray, regions: Regions) -> np.ndarray:
    """Dice of each region of two label maps, `k`."""
    pairs = zip(np.moveaxis(regions.masks(found), -1, 0), np.moveaxis(regions.masks(true), -1, 0))
    return np.array([metrics.dice(pred, truth, 2)[1] for pred, truth in pairs])


def of_all(scores: np.ndarray) -> np.ndarray:
    """The rows that each process has filled in, together; `n k`."""
    if jax.process_count() == 1:
        return scores
    gathered = multihost_utils.process_allgather(scores)  # process n k
    owner = np.arange(len(scores)) % len(gathered)
    return gathered[owner, np.arange(len(scores))]


def dice_numbers(scores: np.ndarray, organs: dict[str, int]) -> dict[str, float]:
    """Means over subjects that have the organ (NaN: none has), and the mean of those means; scores: `n k`."""
    seen = np.isfinite(scores)
    means = np.where(seen, scores, 0).sum(axis=0) / np.where(seen.any(axis=0), seen.sum(axis=0), np.nan)
    of = {name: float(means[organ]) for name, organ in organs.items()}
    known = [value for value in of.values() if np.isfinite(value)]
    mean = float(np.mean(known)) if known else float("nan")
    return {"val/dice": mean, **{f"val/dice/{name}": value for name, value in of.items()}}


def look(image: np.ndarray, true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The middle coronal slice under the true labels and, beside it, under those found: `h w 3` uint8."""
    colors = np.resize(anatomy.COLORS, (255, 3))  # label sets longer than ours see colours again
    middle = image.shape[1] // 2
    grey = figures.cut(figures.tone(image), "coronal", middle)
    pair = [figures.overlay(grey, figures.cut(label, "coronal", middle), colors) for label in (true, found)]
    return np.round(255 * np.concatenate(pair, axis=1)).astype(np.uint8)
