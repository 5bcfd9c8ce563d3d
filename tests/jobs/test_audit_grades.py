"""The audit page of labels that a network graded too: both judges side by side."""

import csv
import io
import json

import numpy as np
import pytest

from tests import browser
from tests.jobs.test_audit import click, data, made, page  # noqa: F401
from tests.jobs.test_solf import BAD, HEART, LIVER, SPLEEN
from ukbob_jax import files
from ukbob_jax.errors import FileError
from ukbob_jax.jobs import audit
from ukbob_jax.quality import grades, verdicts
from ukbob_jax.quality.grades import Grade

LOW = {("s03", LIVER): 0.2, ("s05", SPLEEN): 0.3, ("s06", HEART): 0.6}  # the first is in `BAD` too


@pytest.fixture(scope="module")
def graded(made, tmp_path_factory):  # noqa: F811
    """Recipe and workdir of a page with grades; Sentinel flags below 0.5."""
    config, workdir = made[0].copy_and_resolve_references(), tmp_path_factory.mktemp("graded")
    rows = files.read_jsonl(verdicts.folder(config.store, "auto") / verdicts.VERDICTS)
    found = []
    for row in rows:
        place = row["subject"], row["organ"]
        dice = LOW.get(place, 0.9 if row["subject"] < "s08" else 0.8)
        found.append((*place, Grade(dice, dice - 0.1, min(1.0, dice + 0.1), 4, flagged=dice < 0.5)))
    config.audit.grades = str(workdir / "sentinel.jsonl")
    config.audit.worst = 3
    files.write_jsonl(config.audit.grades, grades.rows(found))
    audit.run(config, str(workdir))
    return config, workdir


def test_labels_that_either_flags_and_the_lowest_grades_are_listed_with_who_flagged_them(graded, made):  # noqa: F811
    cases = {(c["subject"], c["organ"]): c for c in data(graded[1])["cases"]}
    plain = {(c["subject"], c["organ"]) for c in data(made[1])["cases"]}
    assert cases.keys() == plain | LOW.keys() and not {("s05", SPLEEN), ("s06", HEART)} & plain
    assert cases["s03", LIVER]["flagged_by"] == "both" and cases["s05", SPLEEN]["flagged_by"] == "sentinel"
    assert cases["s06", HEART]["flagged_by"] == "none" and cases["s11", BAD["s11"]]["flagged_by"] == "solf"
    assert {cases[place]["grade"] for place in LOW} == set(LOW.values())
    assert data(made[1])["grades"] is None and all(c["grade"] is None for c in data(made[1])["cases"])


def test_means_by_organ_and_group_are_those_of_the_grades(graded):
    found = json.loads((graded[1] / "report" / "solf" / "grades.json").read_text())
    assert found == data(graded[1])["grades"]
    organs = {o["organ"]: o for o in found["organs"]}
    assert (
        organs[LIVER]["mean"] == pytest.approx((0.2 + 7 * 0.9 + 8 * 0.8) / 16)
        and organs[LIVER]["flagged"] == 1
    )
    site, sex = found["groups"]
    assert [g["name"] for g in site["groups"]] == ["A <b>", "B"] and sex["attribute"] == "sex"
    assert site["groups"][0]["count"] == 8 and site["scaled"] < site["overall"]


def test_pictures_go_to_the_farthest_and_to_the_lowest_grades_in_turn(graded):
    config = graded[0].copy_and_resolve_references()
    config.audit.update({"cases": 3, "rows": 4})
    audit.run(config, str(graded[1] / "fewer"))
    cases = data(graded[1] / "fewer")["cases"]
    assert len(cases) == 4
    pictured = {(c["subject"], c["organ"]) for c in cases if c["picture"]}
    assert len(pictured) == 3 and {("s03", LIVER), ("s11", BAD["s11"]), ("s05", SPLEEN)} == pictured


def test_a_file_of_grades_that_is_named_must_be_there(graded):
    config = graded[0].copy_and_resolve_references()
    config.audit.grades = str(graded[1] / "none.jsonl")
    with pytest.raises(FileError, match="no grades of label set 'auto'"):
        audit.run(config, str(graded[1] / "none"))


@pytest.fixture(scope="module")
def window(graded, tmp_path_factory):
    with browser.started(tmp_path_factory.mktemp("browser")) as found:
        found.open(graded[1] / "report" / "solf" / "index.html")
        yield found


def choose(window, name: str, value: str) -> list[str]:
    """The labels that are shown with a filter or an order."""
    script = (
        "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.onchange({target: s})"
    )
    window.run(script, name, value)
    return window.run("return [...document.querySelectorAll('article')].map(a => a.dataset.case)")


def test_labels_are_filtered_by_who_flagged_them_and_ordered_by_grade(window, graded):
    cases = data(graded[1])["cases"]
    key = {id(c): f"{c['subject']}/{c['organ']}/0001" for c in cases}
    for value in ("both", "solf", "sentinel", "none"):
        assert (
            choose(window, "agreement", value)
            == [key[id(c)] for c in cases if c["flagged_by"] == value]
            != []
        )
    one = [key[id(c)] for c in cases if c["flagged_by"] in ("solf", "sentinel")]
    assert choose(window, "agreement", "one") == one
    choose(window, "agreement", "")
    assert choose(window, "order", "grade")[:3] == [f"{s}/{o}/0001" for s, o in LOW]
    choose(window, "order", "")


def test_the_lowest_grades_are_thumbnails_that_lead_to_their_label(window, graded):
    thumbs = "return [...document.querySelectorAll('.thumbs button')].map(b => b.dataset.thumb)"
    assert window.run(thumbs) == [f"{s}/{o}/0001" for s, o in LOW]
    assert window.run("return document.querySelectorAll('.tables table').length") == 3
    choose(window, "agreement", "solf")
    click(window, f"[data-thumb='s05/{SPLEEN}/0001']")
    assert window.run("return document.activeElement.dataset.case") == f"s05/{SPLEEN}/0001"
    assert "1 flagged by Sentinel" in window.run("return document.querySelector('#organ h2').textContent")
    window.run("audit.choose(0)")


def test_the_table_of_a_graded_page_says_grade_and_who_flagged(window, graded):
    rows = list(csv.DictReader(io.StringIO(window.run("return audit.tableText()"))))
    first = next(r for r in rows if (r["subject"], int(r["organ"])) == ("s05", SPLEEN))
    np.testing.assert_allclose(float(first["grade"]), 0.3)
    assert first["flagged_by"] == "sentinel" and "http" not in page(graded[1])


def test_a_page_without_grades_has_no_filter_of_them(made, tmp_path):  # noqa: F811
    with browser.started(tmp_path) as window:
        window.open(made[1] / "report" / "solf" / "index.html")
        hidden = "return [...document.querySelectorAll('#agreement-of, #order-of')].map(e => e.hidden)"
        assert window.run(hidden) == [True, True]
        assert window.run("return document.querySelectorAll('.grades').length") == 0


def test_a_label_that_sentinel_flagged_represents_no_organ(graded, tmp_path):
    config = graded[0].copy_and_resolve_references()
    before = data(graded[1])["representatives"][str(LIVER)]["subject"]
    rows = files.read_jsonl(config.audit.grades)
    config.audit.grades = str(tmp_path / "sentinel.jsonl")
    where = before, LIVER
    files.write_jsonl(
        config.audit.grades,
        [{**r, "flagged": r["flagged"] or (r["subject"], r["organ"]) == where} for r in rows],
    )
    audit.run(config, str(tmp_path))
    assert data(tmp_path)["representatives"][str(LIVER)]["subject"] != before
