import numpy as np
import pytest

from ukbob_jax import files
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.quality import filters, grades, verdicts
from ukbob_jax.quality.grades import Grade

# organ -> flagged by SOLF, by Sentinel, decided beside SOLF's verdict, beside Sentinel's
LABELS = {
    1: (False, False, "", ""), 2: (True, False, "", ""), 3: (False, True, "", ""), 4: (True, True, "", ""),
    5: (False, True, "keep", ""), 6: (True, False, "", "drop"), 7: (True, False, "keep", "fix"),
}  # fmt: skip
FLAGGED = {"solf": {2, 4, 6, 7}, "sentinel": {3, 4, 5}, "either": {2, 3, 4, 6, 7}, "both": {4, 6, 7}}


@pytest.fixture
def store(tmp_path):
    rows = [
        {"subject": "s", "organ": o, "flagged": solf, **({"decision": said} if said else {})}
        for o, (solf, _, said, _) in LABELS.items()
    ]
    files.write_jsonl(verdicts.folder(tmp_path, "auto") / verdicts.VERDICTS, rows)
    graded = [("s", o, Grade(o / 10, flagged=by, decision=said)) for o, (_, by, _, said) in LABELS.items()]
    grades.write(tmp_path, "auto", [*graded, ("t", 1, Grade(0.9)), ("t", 2, Grade(0.0))])
    return tmp_path


@pytest.mark.parametrize("rule", FLAGGED)
def test_verdicts_are_combined_and_a_person_overrules_both(store, rule):
    assert filters.choose(rule, store, "auto") == ({"s": FLAGGED[rule]}, {})


def test_grades_become_weights_and_those_of_zero_are_flagged(store):
    found = filters.choose("weighted", store, "auto")
    assert found.weights["t"] == {1: 0.9, 2: 0.0}
    np.testing.assert_allclose([found.weights["s"][o] for o in LABELS], [0.1, 0.2, 0.3, 0.4, 0.5, 0, 0])
    assert found.flagged == {"s": {6, 7}, "t": {2}}


def test_files_elsewhere_are_read_where_they_are_named(store, tmp_path):
    other = tmp_path / "other.jsonl"
    files.write_jsonl(other, grades.rows([("s", 9, Grade(0.1, flagged=True))]))
    assert filters.choose("sentinel", store, "auto", grades_path=other).flagged == {"s": {9}}
    assert filters.choose("either", store, "auto", grades_path=other).flagged == {"s": {2, 4, 6, 9}}


def test_what_is_missing_is_told(store, tmp_path):
    with pytest.raises(ConfigError, match=r"data.flagged_by: 'all' is not one of solf, sentinel"):
        filters.choose("all", store, "auto")
    with pytest.raises(FileError, match=r"1 subjects of label set 'auto' have no grades, such as u\."):
        filters.choose("sentinel", store, "auto", present={"s": {1}, "u": {1}, "without": set()})
    filters.choose("solf", store, "auto", present={"u": {1}})
    with pytest.raises(FileError, match="no grades of label set 'manual'"):
        filters.choose("weighted", store, "manual")
    with pytest.raises(FileError, match="no verdicts on label set 'auto'"):
        filters.choose("both", store, "auto", verdicts_path=tmp_path / "none.jsonl")
