"""Frechet radiomic distance: how far two sets of images are apart, in radiomic features (Konz et al. 2024).

    bob.radiomics.frd(reference, other)                       # tables n f -> log d2, v1's rules
    found = compare(reference, other, version="v0")           # .value, .d2, which images and features were used

v1: z-scores by the reference set, log d2. v0: both sets together to [0, 7.4567], d2 itself. v1 is not symmetric: swapped
sets are scaled by the other one. The paper's text defines log d, half of what its code reports: `.paper`.

The released code (`form="released"`) drops every image with one NaN, keeps infinities until it drops their columns, and
tests for a spread of exactly 0 in float32, so that a column that is constant at 0.1 survives with a standard deviation of
7e-9 and can add 1e14 to d2. Here, by default: float64; a column is constant where its spread is below 1e-6 of its values;
NaN and infinity are both missing; a feature that is missing in over half of a set is dropped before images are.
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Sequence

import numpy as np

from ukbob_jax.errors import ConfigError, MismatchError, ValuesError
from ukbob_jax.radiomics import frechet, normalise

VERSIONS = ("v0", "v1")
SCALES = ("reference", "joint", "independent")
FORMS = ("corrected", "released")
_MISSING = 0.5  # share of a set's images; features missing in more are dropped
_GREATEST = 1e150  # magnitude of a value; squares of greater ones are infinite


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` finds.

    Attributes:
        value: log d2 in v1, d2 in v0; -inf in v1 where the sets are equal.
        d2: squared distance; never below 0, except in the released form.
        paper: log d, the paper's formula.
        features: (f,) bool, the columns used.
        reference_rows, other_rows: (n,) bool, the images used.
        reference, other: tables of what was used, normalised.
    """

    value: float
    d2: float
    paper: float
    features: np.ndarray
    reference_rows: np.ndarray
    other_rows: np.ndarray
    reference: np.ndarray
    other: np.ndarray


def frd(
    reference: np.ndarray, other: np.ndarray, *, version: str = "v1", scale: str = "", form: str = "corrected"
) -> float:
    """Frechet radiomic distance of tables (n, f) and (m, f) with the same columns; see `compare`."""
    return compare(reference, other, version=version, scale=scale, form=form).value


def compare(
    reference: np.ndarray, other: np.ndarray, *, version: str = "v1", scale: str = "", form: str = "corrected"
) -> Comparison:
    """Normalise two tables of features, and take their distance.

    Args:
        reference, other: (n, f) and (m, f), the same features in the same order.
        version: "v1" or "v0".
        scale: which images scale the features: "reference" (v1's), "joint" (v0's) or "independent"; "": the version's own.
        form: "corrected", or "released" for frd-score's own results.

    Raises:
        ConfigError: an option that is none.
        MismatchError: different numbers of columns.
        ValuesError: fewer than two images, or no feature that varies, are left in a set.
    """
    scale = scale or ("reference" if version == "v1" else "joint")
    for name, value, allowed in (
        ("version", version, VERSIONS),
        ("scale", scale, SCALES),
        ("form", form, FORMS),
    ):
        if value not in allowed:
            raise ConfigError(f"{name}={value!r}: choose one of {', '.join(allowed)}.")
    first, second = (
        frechet.as_table(t, f"{n} table") for t, n in ((reference, "reference"), (other, "other"))
    )
    frechet.check_tables(first, second)
    released = form == "released"
    if released:
        columns = np.ones(first.shape[1], bool)
        rows = [
            np.all(~np.isnan(t), axis=1) if version == "v1" else np.ones(len(t), bool)
            for t in (first, second)
        ]
    else:
        columns, rows = complete(first, second)
    first, second = first[rows[0]][:, columns], second[rows[1]][:, columns]
    _check_left(first, second, columns)
    if released and version == "v1":
        first, second = (
            np.ascontiguousarray(t, np.float32) for t in (first, second)
        )  # rounds as frd-score does
    if not released:
        varies = _varying(first, second, version, scale)
        columns[columns] = varies
        first, second = first[:, varies], second[:, varies]
        _check_left(first, second, columns)
    first, second = _scaled(first, second, version, scale)
    if released and version == "v1":
        finite = np.isfinite(first).all(0) & np.isfinite(second).all(0)
        columns[columns] = finite
        first, second = first[:, finite], second[:, finite]
        _check_left(first, second, columns)
    d2 = _released_distance(first, second) if released else frechet.of_tables(first, second)
    log = math.log(d2) if d2 > 0 else (-math.inf if d2 <= 0 else math.nan)
    return Comparison(log if version == "v1" else d2, d2, log / 2, columns, rows[0], rows[1], first, second)


def complete(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Choose columns (f,) and rows of both tables without a missing value: NaN, infinity, or too great to be squared.

    Columns that are missing in over half of either set go first; then rows with any missing value.
    """
    known = [np.abs(first) < _GREATEST, np.abs(second) < _GREATEST]
    columns = np.all([k.mean(0) >= 1 - _MISSING for k in known], axis=0)
    rows = [np.all(k[:, columns], axis=1) for k in known]
    dropped = [int((~r).sum()) for r in rows]
    if any(dropped) or not columns.all():
        warnings.warn(
            f"missing values: {int((~columns).sum())} of {len(columns)} features, {dropped[0]} of {len(first)} reference "
            f"images and {dropped[1]} of {len(second)} others are left out",
            stacklevel=4,
        )
    return columns, rows


def align(
    reference: np.ndarray, names: Sequence[str], other: np.ndarray, other_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Bring the columns of `other` into the order of `reference`.

    Raises:
        MismatchError: a feature is only in one of the tables.
    """
    lone = sorted(set(names) ^ set(other_names))
    if lone:
        raise MismatchError(
            f"{len(lone)} features are in only one of the tables, the first is {lone[0]}. "
            "Compute both with the same settings."
        )
    place = {name: i for i, name in enumerate(other_names)}
    return reference, other[:, [place[name] for name in names]]


def shifts(reference: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each feature moves: difference of means in reference standard deviations, and log2 ratio of spreads.

    Args:
        reference, other: (n, f) and (m, f), without missing values.
    Returns:
        Two arrays (f,); NaN where the reference is constant, a log2 of -inf where the other set is.
    """
    spread = np.where(normalise.constant(reference), np.nan, reference.std(0))
    ratio = np.where(normalise.constant(other), 0, other.std(0)) / spread
    with np.errstate(divide="ignore"):
        return (other.mean(0) - reference.mean(0)) / spread, np.log2(ratio)


def _scaled(first: np.ndarray, second: np.ndarray, version: str, scale: str) -> tuple[np.ndarray, np.ndarray]:
    bases = {
        "reference": (first, first),
        "joint": (np.concatenate([first, second]),) * 2,
        "independent": (first, second),
    }[scale]
    if version == "v0":
        return normalise.min_max(first, bases[0]), normalise.min_max(second, bases[1])
    scale_by = functools.partial(normalise.z_score, fill=False, constant_to_zero=False)
    return scale_by(first, bases[0]), scale_by(second, bases[1])


def _varying(first: np.ndarray, second: np.ndarray, version: str, scale: str) -> np.ndarray:
    """Which columns can be scaled. v0 keeps constants: they become the middle of the range in both sets."""
    if version == "v0":
        return np.ones(first.shape[1], bool)
    if scale == "reference":
        return ~normalise.constant(first)
    if scale == "joint":
        return ~normalise.constant(np.concatenate([first, second]))
    return ~(normalise.constant(first) | normalise.constant(second))


def _released_distance(first: np.ndarray, second: np.ndarray) -> float:
    moments = [m for t in (first, second) for m in (t.mean(0), np.cov(t, rowvar=False))]
    return frechet.released(*moments)


def _check_left(first: np.ndarray, second: np.ndarray, columns: np.ndarray) -> None:
    for name, table in (("reference", first), ("other", second)):
        if len(table) < 2:
            raise ValuesError(
                f"the {name} set has {len(table)} images without missing values: need two or more. "
                "Look at which features are NaN or infinite."
            )
    if not columns.any():
        raise ValuesError("no feature varies and is finite in both sets. Look at the tables of features.")
