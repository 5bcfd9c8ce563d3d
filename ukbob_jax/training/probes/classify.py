"""Simple classifiers of features: what a network's maps tell of voxels without any training of the network."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CHUNK = 256  # rows that are compared with all training rows at a time
TIE = 1e-3  # of a vote: all nearness together weighs less, so that it decides ties alone


def standardised(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Return all arrays, `n d`, with the mean 0 and the standard deviation 1 that each column has in `train`.

    Columns that are constant there become 0, float32.
    """
    mean, std = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    # a column is constant up to rounding of float32, of which a mean of n numbers has some
    scale = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-6), std, np.inf)
    return [((rows - mean) / scale).astype(np.float32) for rows in (train, *others)]


@functools.partial(jax.jit, static_argnames=("neighbours", "num_classes"))
def knn(train: Any, classes: Any, test: Any, *, neighbours: int, num_classes: int) -> jax.Array:
    """Classify by the k nearest training rows (Euclidean distance, majority; ties: the nearer).

    Args:
        train: `n d` float32.
        classes: int32 `n`, in 0..num_classes-1.
        test: `m d` float32.
        neighbours: k, at most n.
        num_classes: there are.
    Returns:
        int32 `m`.
    """
    squares = jnp.sum(train**2, axis=1)

    def one(row: jax.Array) -> jax.Array:
        distance = squares - 2 * (train @ row)  # less the row's own square, the same for all
        nearness, which = jax.lax.top_k(-distance, neighbours)
        far, near = nearness[-1], nearness[0]
        share = (nearness - far) / jnp.where(near > far, near - far, 1)
        votes = (1 + TIE * share / neighbours) * jnp.ones(neighbours)
        return jnp.argmax(jnp.zeros(num_classes).at[classes[which]].add(votes)).astype(jnp.int32)

    return jax.lax.map(one, test, batch_size=min(CHUNK, len(test)))


def ridge(
    train: np.ndarray, classes: np.ndarray, test: np.ndarray, *, strength: float, num_classes: int
) -> np.ndarray:
    """Classify by a ridge regression to one column per class, every class with the same weight; the largest wins.

    B = (X' W X + strength I)^-1 X' W Y, X and Y less their weighted means, W the weights with sum 1. In float64: many
    columns of X are nearly alike.

    Args:
        train: `n d`.
        classes: `n`, in 0..num_classes-1, each of which occurs.
        test: `m d`.
        strength: above 0; columns of X have about the variance 1.
        num_classes: there are.
    Returns:
        int `m`.
    """
    weight = 1 / np.bincount(classes, minlength=num_classes)[classes] / num_classes  # n
    rows, wanted = train.astype(np.float64), np.eye(num_classes)[classes]
    mean, mean_wanted = weight @ rows, weight @ wanted
    rows, wanted = rows - mean, wanted - mean_wanted
    weighted = rows * weight[:, None]
    gram = weighted.T @ rows + strength * np.eye(rows.shape[1])
    coefficients = np.linalg.solve(gram, weighted.T @ wanted)
    return np.argmax((test - mean) @ coefficients + mean_wanted, axis=1)


def balanced_accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the mean over the classes in `true` of the share of each that was found; chance: 1 / their number."""
    return float(np.mean([np.mean(predicted[true == k] == k) for k in np.unique(true)]))
