import numpy as np
import pytest

from ukbob_jax import files
from ukbob_jax.errors import FileError
from ukbob_jax.quality import grades, verdicts
from ukbob_jax.quality.grades import Grade

FOUND = [
    ("s0", 5, Grade(0.93, 0.85, 1.0, 10)),
    ("s0", 7, Grade(0.31, 0.21, 0.41, 6, flagged=True)),
    ("s1", 5, Grade(0.0, reason="no predicted value", flagged=True, decision="drop")),
    ("s1", 7, Grade(0.22, decision="keep")),
]


def test_grades_are_read_back_as_they_were_written(tmp_path):
    path = grades.write(tmp_path, "auto", FOUND)
    assert path == verdicts.folder(tmp_path, "auto") / "sentinel.jsonl"
    by_subject = grades.read(tmp_path, "auto")
    assert by_subject == {s: {o: g for t, o, g in FOUND if t == s} for s in ("s0", "s1")}
    assert grades.read("nowhere", "auto", path) == by_subject
    assert ["decision" in row for row in files.read_jsonl(path)] == [False, False, True, True]


def test_organs_are_flagged_as_their_rows_say(tmp_path):
    grades.write(tmp_path, "auto", FOUND)
    assert grades.flagged_organs(grades.read(tmp_path, "auto")) == {"s0": {7}, "s1": {5}}


def test_a_person_outweighs_the_grade():
    assert [grade.trust for *_, grade in FOUND] == [0.93, 0.31, 0.0, 1.0]


def test_an_interval_that_is_not_there_is_null(tmp_path):
    grades.write(tmp_path, "auto", [("s", 1, Grade(0.5, float("nan"), float(np.inf)))])
    assert grades.read(tmp_path, "auto")["s"][1] == Grade(0.5)


@pytest.mark.parametrize("row, told", [
    ({"subject": "s", "organ": 1, "flagged": False}, "row 1: not a grade"),
    ({"subject": "s", "organ": 1, "dice": 1.2, "flagged": False}, "dice 1.2 is not from 0 to 1"),
    ({"subject": "s", "organ": 1, "dice": float("nan"), "flagged": False}, "dice nan"),
    ({"subject": "s", "organ": 1, "dice": 0.2, "flagged": True, "decision": "maybe"}, "decision 'maybe'"),
    ([1], "row 1: not a grade"),
])  # fmt: skip
def test_a_row_that_is_no_grade_is_named(tmp_path, row, told):
    files.write_jsonl(tmp_path / "grades.jsonl", [row])
    with pytest.raises(FileError, match=told):
        grades.read(tmp_path, "auto", tmp_path / "grades.jsonl")


def test_two_grades_of_one_label_and_no_grades_at_all_are_refused(tmp_path):
    with pytest.raises(FileError, match="--config.job=sentinel"):
        grades.read(tmp_path, "auto")
    grades.write(tmp_path, "auto", FOUND[:1] * 2)
    with pytest.raises(FileError, match="row 2: organ 5 of s0 was graded before"):
        grades.read(tmp_path, "auto")
