"""Means and tables of the sections about Dice."""

import numpy as np
import pytest

from ukbob_jax.evaluation import statistics
from ukbob_jax.evaluation.pages import scores


def rows() -> list[dict]:
    dice = {"off": [[0.8, 0.6], [0.4, None]], "etta": [[0.9, 0.7], [0.5, None]]}
    return [
        {
            "subject": f"s{i}",
            "method": method,
            "organ": f"o{j}",
            "dice": value,
            "hd95": None if value is None else 2.0,
        }
        for method, scans in dice.items()
        for i, scan in enumerate(scans)
        for j, value in enumerate(scan)
    ]


def test_means_are_of_defined_values_only():
    assert scores.defined_means(rows(), "off", "subject") == {"s0": pytest.approx(0.7), "s1": 0.4}
    assert scores.defined_means(rows(), "off", "organ") == {"o0": pytest.approx(0.6), "o1": 0.6}
    undefined = [{"subject": "s0", "method": "off", "organ": "o0", "dice": None}]
    assert scores.defined_means(undefined, "off", "organ") == {}
    assert statistics.mean_defined([None, None]) is None and statistics.mean_defined([1.0, None, 2.0]) == 1.5


def test_a_row_of_distances_says_nothing_of_what_was_not_measured():
    title, mean, interval, hd95, nsd = scores.surface_row("SOLF", rows(), "off")
    low, high = statistics.bootstrap_interval(np.array([0.7, 0.4]))
    assert (title, mean, hd95, nsd) == ("SOLF", pytest.approx(0.55), 2.0, None)
    assert interval == f"{low:.3f} to {high:.3f}"


def test_the_clean_section_has_a_row_per_organ_and_a_column_per_variant():
    section = scores.clean_section({"A": rows(), "B": rows()}, {"A": "off", "B": "etta"})
    organs = section.tables[0]
    assert list(organs.header) == ["organ", "A", "B"] and [row[0] for row in organs.rows] == [
        "o0",
        "o1",
        "mean",
    ]
    np.testing.assert_allclose(
        np.array([row[1:] for row in organs.rows], float), [[0.6, 0.7], [0.6, 0.7], [0.6, 0.7]]
    )
    assert section.pictures[0].png.startswith(b"\x89PNG")
