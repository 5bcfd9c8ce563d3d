"""Learning to grade masks: predicted against true Dice, the order of pairs, a detector's margin, and the true mask."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ukbob_jax.sentinel import losses
from ukbob_jax.sentinel.volumes import OUTLINE, soft_dice
from ukbob_jax.training.optimizer import Optimizer
from ukbob_jax.training.state import PRETEXT, TrainState, split_pretext
from ukbob_jax.training.step import Batch, Metrics, ModelState, Objective, Params


def grading(
    model: nn.Module,
    vectors: np.ndarray,
    *,
    places: bool,
    ranking: float = 1.0,
    detector: float = 0.1,
    threshold: float = 0.5,
    noise: np.ndarray | None = None,
) -> Objective:
    """The objective of a grader: weighted squared error + `ranking` x ranking loss + `detector` x AUC margin loss.

    Its batches have "seen" `b ... 2` float32, "class" `b`, "dice" `b` and, where the host found the partners, "partner"
    `b`: rows of the whole batch. Parameters of the margin loss lie beside the network's, under `state.PRETEXT`. A grader
    that draws outlines learns them from "truth" `b x y z`, by cross entropy and soft Dice.

    Args:
        model: a grader; with `detection` it is trained as a detector of what is below `threshold` too.
        vectors: embeddings by class, k e; with `learned_classes` class numbers, k.
        places: whether the model is told the "place" of its cubes, `b 4`.
        ranking: factor; 0: without.
        detector: factor.
        threshold: Dice.
        noise: e, deviation of what is added to embeddings in training; None: nothing.
    """
    table = jnp.asarray(vectors)
    drawing = ("intermediates",) if getattr(model, "outline", 0) else ()

    def objective(
        params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[ModelState, Metrics]]:
        network, own = split_pretext(params)
        told = (batch["place"],) if places else ()
        embedding = table[batch["class"]]
        if noise is not None:
            numbers = jax.random.normal(jax.random.fold_in(key, 1), embedding.shape, embedding.dtype)
            embedding += jnp.asarray(noise, embedding.dtype)[None] * numbers
        found: Any = model.apply(
            {"params": network, **state.model_state},
            batch["seen"],
            embedding,
            *told,
            train=True,
            rngs={"dropout": key},
            mutable=[*state.model_state, *drawing],
        )
        out, model_state = found
        drawn = model_state.pop("intermediates")[OUTLINE][0] if drawing else None
        grade, score = out if own else (out, None)
        true = batch["dice"]
        metrics = {"mse": losses.weighted_mse(grade, true), "error": jnp.abs(grade - true).mean()}
        loss = metrics["mse"]
        if ranking:
            pairs = batch["partner"] if "partner" in batch else losses.neighbours(batch["class"])
            metrics["ranking"] = losses.ranking_loss(grade, true, pairs=pairs)
            loss += ranking * metrics["ranking"]
        if score is not None:
            metrics["auc_margin"] = losses.auc_margin(
                score, true < threshold, own["a"], own["b"], own["alpha"]
            )
            loss += detector * metrics["auc_margin"]
        if drawn is not None:
            metrics["outline"] = outline_loss(drawn, batch["truth"])
            loss += metrics["outline"]
        return loss, (model_state, metrics)

    return objective


def outline_loss(drawn: jax.Array, truth: jax.Array) -> jax.Array:
    """Mean over cubes of cross entropy and 1 - soft Dice of logits b x y z with the true masks b x y z, 0 to 1."""
    entropy = optax.sigmoid_binary_cross_entropy(drawn, truth).mean()
    return entropy + 1 - soft_dice(jax.nn.sigmoid(drawn), truth).mean()


def with_margin(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of a grader with `detection`, with fresh parameters of the margin loss."""
    return {**variables, "params": {**variables["params"], PRETEXT: losses.auc_parameters()}}


def saddle(optimizer: Optimizer) -> Optimizer:
    """`optimizer` with `alpha` of the margin loss going uphill, and kept at 0 at least."""

    def update(gradients: Any, state: Any, params: Any = None, **more: Any) -> tuple[Any, Any]:
        turned: Any = {**gradients, PRETEXT: losses.uphill(gradients[PRETEXT])}
        updates: Any
        updates, state = optimizer.update(turned, state, params, **more)
        after = losses.project(jax.tree.map(jnp.add, params[PRETEXT], updates[PRETEXT]))
        own = jax.tree.map(jnp.subtract, after, params[PRETEXT])
        return {**updates, PRETEXT: own}, state

    return optimizer._replace(update=update)
