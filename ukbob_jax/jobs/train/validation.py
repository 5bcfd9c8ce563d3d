"""What training looks at now and then: Dice on whole held-out volumes, and a picture of the first."""

from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ukbob_jax import anatomy
from ukbob_jax.data.options import Config
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.data.whole import read_image
from ukbob_jax.errors import ConfigError
from ukbob_jax.evaluation import metrics, montages
from ukbob_jax.inference.options import from_config
from ukbob_jax.inference.windows.averaging import averaged
from ukbob_jax.inference.windows.slabs import segment
from ukbob_jax.inference.windows.sliding import ModuleApply
from ukbob_jax.regions import Regions
from ukbob_jax.training import loop, sharding
from ukbob_jax.training.state import TrainState
from ukbob_jax.volumes.slices import rescale_intensity, slice_for_display


def validator(config: Config, data: TrainingData, model: nn.Module, mesh: Mesh) -> loop.Evaluate:
    """Return state -> mean and per-organ (or per-region) Dice over whole held-out volumes, and a picture of the first.

    Organs that a subject was not annotated for are not scored there. Several processes share the subjects, and all
    get all scores.

    Args:
        config: the recipe.
        data: whose `held_out` subjects are scored.
        model: the network.
        mesh: that the state lies on.
    Raises:
        ConfigError: no such organ, or checkpoints are to be ranked by a number that validation does not give.
    """
    organs = scored_classes(config, data)
    check_ranking(config.train.best[0], organs)
    predict = predictor(config, data, model)
    subjects, lookup, regions, k = data.held_out, data.val_lookup, data.regions, data.num_classes

    def evaluate(state: TrainState) -> loop.Evaluation:
        variables = sharding.local_copy({"params": state.inference_params, **state.model_state}, mesh)
        scores, previews = np.full((len(subjects), k), np.nan), {}
        for number in range(jax.process_index(), len(subjects), jax.process_count()):
            subject = subjects[number]
            image = read_image(data.store, subject, data.contrasts, config.data.normalize)
            true = lookup[data.store.read(subject, f"label/{config.data.val_label}")]
            pred = predict(variables, image)
            dice = region_dice(pred, true, regions) if regions else metrics.dice(pred, true, k)
            known = data.store.rows[subject].annotated_classes(lookup, 256)
            scores[number] = np.where(regions.annotated(known) if regions else known[:k], dice, np.nan)
            previews = previews or {"look/truth_and_prediction": preview_row(image[..., 0], true, pred)}
        return dice_numbers(of_all(scores), organs), previews

    return evaluate


def scored_classes(config: Config, data: TrainingData) -> dict[str, int]:
    """Return name -> channel of the classes or regions that `config.organs` names, by default all.

    Raises:
        ConfigError: no such organ.
    """
    ids = {name: i for i, name in data.names.items() if i and name != anatomy.NAMES[anatomy.UNUSED]}
    if data.regions:
        ids = {name: i for i, name in enumerate(data.regions.names)}
    unknown = [name for name in config.organs if name not in ids]
    if unknown:
        raise ConfigError(f"config.organs: {unknown[0]!r} is not among the network's classes.")
    return {name: ids[name] for name in config.organs or ids}


def check_ranking(name: str, organs: Collection[str]) -> None:
    """Refuse to rank checkpoints by a number that validation does not give, before the first step.

    Raises:
        ConfigError: naming the numbers there are.
    """
    numbers = ["val/dice", *(f"val/dice/{organ}" for organ in organs)]
    if name not in numbers:
        raise ConfigError(
            f"config.train.best: validation gives no {name!r}; choose one of {', '.join(numbers)}."
        )


def predictor(
    config: Config, data: TrainingData, model: nn.Module
) -> Callable[[Any, np.ndarray], np.ndarray]:
    """Return (variables, image `x y z c`) -> label map `x y z`, with windows of the size of training's crops.

    Windows, views and arithmetic are those of `config.inference`, as for whoever predicts with the network later.
    """
    options, dtype = from_config(config), config.inference.dtype
    window = options.window(config.data.crop)  # one that cannot be used is refused before the first step
    apply = ModuleApply(model.clone(dtype=jnp.dtype(dtype)) if dtype else model)
    exclude = tuple(i for i, name in data.names.items() if name == anatomy.NAMES[anatomy.UNUSED])
    regions = data.regions

    def predict(variables: Any, image: np.ndarray) -> np.ndarray:
        result = segment(
            *averaged(apply, [variables], options.views, data.names, exclude=exclude, regions=bool(regions)),
            image,
            window,
            exclude=exclude,
            region_labels=regions.region_labels if regions else (),
        )
        return np.asarray(result.labels)

    return predict


def region_dice(pred: np.ndarray, true: np.ndarray, regions: Regions) -> np.ndarray:
    """Return the Dice of each region of two label maps, `k`."""
    pairs = ((regions.mask(pred, r), regions.mask(true, r)) for r in range(len(regions.names)))
    return np.array([metrics.dice(p, t, 2)[1] for p, t in pairs])


def of_all(scores: np.ndarray) -> np.ndarray:
    """Return the rows that each process has filled in, together; `n k`."""
    if jax.process_count() == 1:
        return scores
    gathered = multihost_utils.process_allgather(scores)  # process n k
    owner = np.arange(len(scores)) % len(gathered)
    return gathered[owner, np.arange(len(scores))]


def dice_numbers(scores: np.ndarray, organs: dict[str, int]) -> dict[str, float]:
    """Return means over subjects that have the organ (NaN: none has), and the mean of those means; scores: `n k`."""
    seen = np.isfinite(scores)
    means = np.where(seen, scores, 0).sum(axis=0) / np.where(seen.any(axis=0), seen.sum(axis=0), np.nan)
    of = {name: float(means[organ]) for name, organ in organs.items()}
    known = [value for value in of.values() if np.isfinite(value)]
    mean = float(np.mean(known)) if known else float("nan")
    return {"val/dice": mean, **{f"val/dice/{name}": value for name, value in of.items()}}


def preview_row(image: np.ndarray, true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """Return the middle coronal slice under the true labels and, beside it, under the predicted: `h w 3` uint8."""
    colors = np.resize(anatomy.COLORS, (255, 3))  # label sets longer than ours see colours again
    middle = image.shape[1] // 2
    grey = slice_for_display(rescale_intensity(image), "coronal", middle)
    pair = [
        montages.overlay(grey, slice_for_display(label, "coronal", middle), colors) for label in (true, pred)
    ]
    return np.round(255 * np.concatenate(pair, axis=1)).astype(np.uint8)
