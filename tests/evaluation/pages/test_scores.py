"""Means and tables of the sections about Dice."""

import numpy as np
import pytest

from ukbob_jax import files
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
    cells = dict(zip(scores.DISTANCES, scores.surface_row("SOLF", rows(), "off"), strict=True))
    low, high = statistics.bootstrap_interval(np.array([0.7, 0.4]))
    assert (cells["variant"], cells["mean Dice"]) == ("SOLF", pytest.approx(0.55))
    assert (cells["HD95 mm, where found"], cells["HD95 failed"], cells["surface Dice"]) == (
        2.0,
        "0 of 3",
        None,
    )
    assert cells["95 % interval"] == f"{low:.3f} to {high:.3f}"
    without = [{name: value for name, value in row.items() if name != "hd95"} for row in rows()]
    cells = dict(zip(scores.DISTANCES, scores.surface_row("SOLF", without, "off"), strict=True))
    assert {cells[name] for name in scores.DISTANCES if name.startswith("HD95")} == {None}


def test_a_variant_that_misses_organs_looks_worse():
    found = [{**row, "failed": [], "diagonal_mm": 60.0} for row in rows()]
    missed = [{**row, "dice": 0.0, "hd95": None, "failed": ["hd95"]} for row in found]
    rows_of = {"all": found, "half": [*found[:2], *missed[2:]]}
    section = scores.clean_section(rows_of, {"all": "off", "half": "off"})
    first, second = (dict(zip(scores.DISTANCES, row)) for row in section.tables[1].rows)
    assert first["HD95 mm, where found"] == second["HD95 mm, where found"] == 2.0
    assert (first["HD95 failed"], second["HD95 failed"]) == ("0 of 3", "2 of 4")
    assert first["HD95 mm, penalised"] == 2.0 and second["HD95 mm, penalised"] == 31.0
    assert "missed or invented" in section.tables[1].caption


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
    intervals, paired = section.tables[2:]
    low, high = statistics.bootstrap_interval(np.array([0.8, 0.4]), np.mean)
    assert intervals.rows[0] == ("o0", f"{low:.3f} to {high:.3f}", intervals.rows[0][2])
    assert intervals.rows[1][1] is None  # one scan has it
    [cells] = paired.rows
    assert cells[:3] == ("B − A", 2, "+0.100") and cells[4] == cells[5] == 0.5  # two scans, both better
    assert len(scores.clean_section({"A": rows()}, {"A": "off"}).tables) == 3


def test_scanners_are_compared_scan_by_scan_and_p_is_corrected_for_their_number(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "compared", lambda *args: b"")
    names = ["near", "far"]
    for name in names:
        files.write_jsonl(tmp_path / "evaluation" / f"{name}.jsonl", rows())
        accepted = [{"subject": f"s{i}", "method": "etta", "accepted": i == 0} for i in range(2)]
        files.write_jsonl(tmp_path / "evaluation" / f"{name}.scans.jsonl", accepted)
    section = scores.scanners_section(tmp_path, names, dict.fromkeys(names), "manual")
    [table] = section.tables
    first = dict(zip(table.header, table.rows[0], strict=True))
    assert (first["scanner"], first["mean change"], first["worst change"]) == ("near", "+0.100", "+0.100")
    assert first["Holm's p"] == 1.0 and first["accepted"] == "1 of 2"  # 0.5 each, twice
