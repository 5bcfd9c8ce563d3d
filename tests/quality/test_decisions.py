import json

import numpy as np
import pytest

from ukbob_jax.errors import FileError
from ukbob_jax.quality import decisions
from ukbob_jax.quality.decisions import Decision

MADE = [Decision("a", 5, "keep", "0001"), Decision("b", 1, "fix"), Decision("gone", 2, "drop")]


def written(path, rows=MADE, **head):
    if path.suffix == ".csv":
        lines = ["subject,organ,name,decision,version"]
        lines += [f"{d.subject},{d.organ},some name,{d.decision},{d.version}" for d in rows]
        path.write_text("\n".join([*lines, "c,3,not decided,,"]) + "\n")
    else:
        value = {"format": "ukbob-decisions", "label": "auto", "decisions": [d._asdict() for d in rows]}
        path.write_text(json.dumps(value | head))
    return path


@pytest.mark.parametrize("name", ["d.json", "d.csv"])
def test_both_formats_say_the_same(tmp_path, name):
    assert decisions.read(written(tmp_path / name), "auto") == MADE


def test_a_table_of_an_older_page_is_read(tmp_path):
    table = "subject,organ,name,decision,version,sex,site,strangeness,outside\ns0,5,x,drop,v1,F,,3.20,sphericity\n"
    (tmp_path / "old.csv").write_text(table)
    assert decisions.read(tmp_path / "old.csv", "auto") == [decisions.Decision("s0", 5, "drop", "v1")]


def test_decisions_overrule_the_limits_and_void_ones_are_told():
    flagged = np.zeros((2, 73), bool)
    flagged[0, 5] = flagged[1, 7] = True
    versions = {"a": "0001", "b": "0003"}
    present = np.ones((2, 73), bool)
    after, hold, void = decisions.apply(MADE, ["a", "b"], versions, present, flagged)
    assert not after[0, 5] and after[1, 1] and after[1, 7] and flagged[0, 5]
    assert hold == {("a", 5): "keep", ("b", 1): "fix"} and void == [MADE[2]]


def test_a_decision_ends_with_the_label_map_it_was_about():
    flagged = np.ones((1, 73), bool)
    after, hold, void = decisions.apply(MADE[:1], ["a"], {"a": "0002"}, flagged, flagged)
    assert after.all() and not hold and void == MADE[:1]


def test_of_a_missing_organ_only_a_fix_can_be_asked():
    made = [Decision("a", 5, "drop"), Decision("a", 6, "fix")]
    nothing = np.zeros((1, 73), bool)
    _, hold, void = decisions.apply(made, ["a"], {"a": "0001"}, nothing, nothing)
    assert void == made[:1] and hold == {("a", 6): "fix"}


@pytest.mark.parametrize("name", ["d.json", "d.csv"])
def test_two_decisions_about_one_label_must_agree(tmp_path, name):
    twice = [MADE[0], MADE[1], MADE[0]]
    assert decisions.read(written(tmp_path / name, twice), "auto") == MADE[:2]
    other = Decision("a", 5, "drop", "0001")
    with pytest.raises(FileError, match="row 3: drop for organ 5 of a, but keep before"):
        decisions.read(written(tmp_path / name, [MADE[0], MADE[1], other]), "auto")
    later = other._replace(version="0002")
    assert len(decisions.read(written(tmp_path / name, [MADE[0], later]), "auto")) == 2


def test_refuses_what_is_no_decision(tmp_path):
    path = tmp_path / "d.json"
    for rows, words in (
        ([Decision("a", 5, "perhaps")], "row 1: decision 'perhaps' is not one of keep, drop, fix"),
        ([MADE[0], Decision("a", 99, "keep")], "row 2: organ 99"),
        ([Decision("a", 0, "keep")], "organ 0"),
    ):
        with pytest.raises(FileError, match=words):
            decisions.read(written(path, rows), "auto")
    with pytest.raises(FileError, match="label set 'auto', not 'other'"):
        decisions.read(written(path), "other")
    with pytest.raises(FileError, match="not a file of decisions"):
        decisions.read(written(path, format="x"), "auto")
    (tmp_path / "d.csv").write_text("subject,verdict\n")
    with pytest.raises(FileError, match="no column decision, organ"):
        decisions.read(tmp_path / "d.csv", "auto")
    with pytest.raises(FileError, match="no such file"):
        decisions.read(tmp_path / "none.json", "auto")
