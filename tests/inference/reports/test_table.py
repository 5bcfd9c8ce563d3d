"""Reports of many scans as JSON and CSV."""

import csv
import json

from ukbob_jax.inference.reports import table


def test_a_row_per_scan_and_structure(tmp_path):
    liver = {
        "id": 5,
        "voxels": 3,
        "mean_entropy": 0.5,
        "flagged": True,
        "outside": ["sphericity", "body_fraction"],
    }
    absent = {"id": 1, "voxels": 0, "mean_entropy": None}
    report = {
        "shape": [2, 2, 2],
        "adaptation": None,
        "unlisted": 1,
        "structures": {"liver": liver, "spleen": absent},
    }
    table.write(tmp_path, {"a": report}, [{"subject": "bad", "reason": "no"}], ["bucket 8 x 8 x 8"])
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "scans": {"a": {"shape": [2, 2, 2], "adaptation": None}}, "failed": ["bad"], "programs": ["bucket 8 x 8 x 8"],
    }  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    assert [(r["scan"], r["structure"], r["flagged"], r["outside"]) for r in rows] == [
        ("a", "liver", "True", "sphericity body_fraction"), ("a", "spleen", "", ""),
    ]  # fmt: skip
    assert rows[1]["mean_entropy"] == "" and list(rows[0]) == list(table.COLUMNS)
