"""The Frechet distance between two normal distributions, from their moments or from the tables behind them.

    d2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

(Frechet 1957; Dowson and Landau 1982). S1 S2 is not symmetric and its root loses half the digits where a covariance is
singular, which it is whenever there are fewer images than features. The trace of the root is also the sum of the singular
values of S1^(1/2) S2^(1/2), and, for tables X1 and X2 without their means, that of X1 X2' over the root of
(n1 - 1)(n2 - 1): a matrix of images by images, whatever the number of features.
"""

import warnings

import numpy as np
import scipy.linalg

from ukbob_jax.errors import MismatchError, ValuesError

_ROUNDING = 64 * np.finfo(np.float64).eps  # d2 is a difference of sums: below this share of them it is 0
_OFFSET = 1e-6  # what the released code adds to both covariances where their root is not finite


def of_moments(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Squared distance from means (f,) and covariances (f, f), float64; never below 0, NaN where a moment is not finite.

    Raises:
        MismatchError: the shapes differ.
    """
    mean1, cov1, mean2, cov2 = _as_moments(mean1, cov1, mean2, cov2)
    if not all(np.isfinite(moment).all() for moment in (mean1, cov1, mean2, cov2)):
        return float("nan")
    shared = np.linalg.svd(_root(cov1) @ _root(cov2), compute_uv=False).sum()
    return _assembled(mean1, mean2, float(np.trace(cov1)), float(np.trace(cov2)), float(shared))


def of_tables(first: np.ndarray, second: np.ndarray) -> float:
    """Squared distance from tables (n, f), sample covariances (n - 1); never below 0.

    Raises:
        MismatchError: the tables differ in their number of columns.
        ValuesError: a table has one row, or a value that is not finite.
    """
    first, second = as_table(first, "first table"), as_table(second, "second table")
    check_tables(first, second)
    for name, table in (("first", first), ("second", second)):
        if not np.isfinite(table).all():
            raise ValuesError(
                f"the {name} table has {int((~np.isfinite(table)).sum())} values that are not finite. "
                "Leave their rows or columns out."
            )
    mean1, mean2 = first.mean(0), second.mean(0)
    first = (first - mean1) / np.sqrt(len(first) - 1)
    second = (second - mean2) / np.sqrt(len(second) - 1)
    small = min(len(first), len(second)) < first.shape[1]
    if small:
        shared = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    else:
        shared = np.linalg.svd(_root(first.T @ first) @ _root(second.T @ second), compute_uv=False).sum()
    return _assembled(mean1, mean2, float((first**2).sum()), float((second**2).sum()), float(shared))


def released(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Compute the squared distance as frd-score does, by the root of S1 S2: may be below 0, NaN or infinite.

    Where the root is not finite, 1e-6 is added to both diagonals inside the root, and the traces stay without it.
    """
    mean1, cov1, mean2, cov2 = _as_moments(mean1, cov1, mean2, cov2)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
        root = scipy.linalg.sqrtm(cov1 @ cov2)
        if not np.isfinite(root).all():
            offset = _OFFSET * np.eye(len(cov1))
            root = scipy.linalg.sqrtm((cov1 + offset) @ (cov2 + offset))
        difference = mean1 - mean2
        return float(difference @ difference + np.trace(cov1) + np.trace(cov2) - 2 * np.trace(root).real)


def as_table(values: np.ndarray, what: str) -> np.ndarray:
    """Return float64.

    Raises:
        ValuesError: there is text among the values, or rows have different lengths.
    """
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValuesError(
            f"the {what} has something else than numbers ({error}). Keep the columns of features alone."
        ) from None


def check_tables(first: np.ndarray, second: np.ndarray) -> None:
    """Refuse what are not two tables of the same columns and two rows or more."""
    for name, table in (("first", first), ("second", second)):
        if table.ndim != 2 or not table.shape[1]:
            raise ValuesError(
                f"the {name} table has shape {table.shape}: need a row per image, a column per feature."
            )
    if first.shape[1] != second.shape[1]:
        raise MismatchError(
            f"tables of {first.shape[1]} and {second.shape[1]} columns: both must hold the same features. "
            "Compute both with the same settings."
        )
    for name, table in (("first", first), ("second", second)):
        if len(table) < 2:
            raise ValuesError(
                f"the {name} table has {len(table)} rows: a covariance needs two or more. Add images, "
                "or score a single one with `radiomics.ood`."
            )


def _assembled(mean1: np.ndarray, mean2: np.ndarray, trace1: float, trace2: float, shared: float) -> float:
    between = float(((mean1 - mean2) ** 2).sum())
    squared = between + trace1 + trace2 - 2 * shared
    return squared if squared > _ROUNDING * (between + trace1 + trace2) else 0.0


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def _as_moments(*moments: np.ndarray) -> list[np.ndarray]:
    mean1, cov1, mean2, cov2 = moments
    found = [
        np.atleast_1d(np.asarray(mean1, np.float64)), np.atleast_2d(np.asarray(cov1, np.float64)),
        np.atleast_1d(np.asarray(mean2, np.float64)), np.atleast_2d(np.asarray(cov2, np.float64)),
    ]  # fmt: skip
    f = len(found[0])
    if [m.shape for m in found] != [(f,), (f, f)] * 2:
        shapes = ", ".join(str(m.shape) for m in found)
        raise MismatchError(
            f"moments of shapes {shapes}: need means (f,) and covariances (f, f) of the same f."
        )
    return found
