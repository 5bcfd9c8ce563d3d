"""The tool that draws how cost grows, on the smallest sizes; what must be linear is counted, not timed."""

import json

import numpy as np
import pytest

from tools import scaling_figures as tool


def test_growth_is_the_exponent_between_two_points():
    assert tool.growth((2, 3.0), (20, 30.0)) == pytest.approx(1)
    assert tool.growth((10, 1.0), (40, 16.0)) == pytest.approx(2)


def test_a_table_tells_growth_of_what_was_measured_and_leaves_out_what_was_not():
    rows = [
        tool.Row("step", 10, 1.0, 10**6),
        tool.Row("step", 100, None, 10**7),
        tool.Row("step", 1000, 100.0, None),
    ]
    lines = [line.split() for line in tool.table("voxels", rows)]
    assert lines[1:] == [
        ["step", "10", "1", "1"],
        ["step", "100", "10", "1.00"],
        ["step", "1000", "100", "1.00"],
    ]


def test_parts_write_rows_and_a_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "ORGANS_SHAPE", (24, 20, 40))
    tool.main(["organs", "windows", "--at", "48", "64", "--rounds", "1", "--out", str(tmp_path)])
    for part, series in (
        ("organs", ["measures", "samples"]),
        ("windows", ["logits", "labels, slab by slab"]),
    ):
        rows = json.loads((tmp_path / f"{part}.json").read_text())["rows"]
        assert [row["series"] for row in rows] == 2 * series
        assert all(row["seconds"] > 0 for row in rows)
        assert (tmp_path / f"{part}.png").read_bytes().startswith(b"\x89PNG")


def test_a_step_that_does_not_fit_is_compiled_and_not_run(monkeypatch):
    ran = []
    programs = {
        "forward": tool.bench_model.Program(lambda: ran.append("forward"), 1.0, 1.0, 10**9),
        "train step": tool.bench_model.Program(lambda: ran.append("step"), 1.0, 1.0, 10**11),
    }
    monkeypatch.setattr(tool.bench_model, "our_programs", lambda case: programs)
    options = tool.arguments(["voxels", "--rounds", "2"])
    forward, step = tool.voxels(48, options)
    assert (forward.x, forward.size, step.size) == (48**3, 10**9, 10**11)
    assert forward.seconds is not None and step.seconds is None
    assert ran == ["forward"] * 3  # one to warm up


def test_rows_of_subjects_are_opened_checked_divided_and_judged(tmp_path):
    tool.main(["subjects", "--at", "20", "--rounds", "1", "--out", str(tmp_path)])
    rows = {row["series"]: row for row in json.loads((tmp_path / "subjects.json").read_text())["rows"]}
    assert rows.pop("open, check, share (a fresh process)")["size"] >= 0
    assert len(rows) == 6 and all(row["seconds"] > 0 for row in rows.values())


def test_the_number_of_windows_is_that_of_the_grid():
    from ukbob_jax.inference.windows import grid

    options = tool.arguments(["windows", "--rounds", "1"])
    for length in (48, 112):
        row = next(tool.windows(length, options))
        starts = grid.windows((48, 48, length), tool.ROI, 0.5).starts
        assert row.x == np.prod(np.shape(starts)[:1])
