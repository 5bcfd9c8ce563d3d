"""The loss of a training on labels, as `config.loss` and `config.balance` say."""

import functools
from collections.abc import Callable, Sequence

import jax

from ukbob_jax.data.options import Config
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.errors import ConfigError
from ukbob_jax.training import losses


def label_loss(
    config: Config, data: TrainingData, strides: Sequence[Sequence[int]]
) -> Callable[..., jax.Array]:
    """Return the loss that `config.loss` names, at every size the network gives logits of.

    Args:
        config: the recipe.
        data: what is learnt.
        strides: of each of the logits (`Architecture.strides`), finest first.
    Raises:
        ConfigError: an unknown loss or option, or one that does not fit the labels.
    """
    loss = class_loss(config, data)
    return losses.deep(loss, strides, config.loss.lowest) if len(strides) > 1 else loss


def class_loss(config: Config, data: TrainingData) -> Callable[..., jax.Array]:
    """Return the loss that `config.loss` names, for one size; `config.balance` gives rare classes more weight."""
    options = dict(config.loss)
    name = options.pop("name")
    options.pop("lowest")  # of deep supervision, see `label_loss`
    options.pop("groups")  # of the data, which has read them
    options["num_groups"] = len(data.group_names)
    if name not in losses.LABEL_LOSSES:
        raise ConfigError(
            f"config.loss.name: {name!r} is unknown; choose one of {', '.join(losses.LABEL_LOSSES)}."
        )
    loss = functools.partial(losses.LABEL_LOSSES[name], options=losses.DiceOptions(**options))
    if data.regions:
        if name != "dice_bce":
            raise ConfigError(
                f"config.loss.name: {name!r} wants classes that exclude each other; regions: dice_bce."
            )
        loss = functools.partial(losses.dice_bce_regions, regions=data.regions.values, **loss.keywords)
    if not config.balance:
        return loss
    if name != "dice_ce":
        raise ConfigError(f"config.balance: weighs cross entropy, which {name} does not have; set it to 0.")
    counts = data.class_frequencies()
    factors = (counts / counts.sum() + 1e-6) ** -config.balance
    return functools.partial(loss, ce_weight=tuple((factors * counts.sum() / (factors @ counts)).tolist()))
