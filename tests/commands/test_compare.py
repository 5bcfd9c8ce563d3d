"""`ukbob compare`: numbers, the page in a browser, and what it refuses."""

import json
import pathlib
import re

import numpy as np
import pytest

from tests import browser
from tests.evaluation import compared_runs
from ukbob_jax import cli
from ukbob_jax.evaluation import comparison, significance
from ukbob_jax.evaluation.pages import compare as page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three runs: "good" is nearly right, "poor" is not, "partial" has half the scans."""
    folder = tmp_path_factory.mktemp("compare")
    store = compared_runs.store(folder)
    compared_runs.evaluate(folder / "good", store, moved=0, seconds=2.5)
    compared_runs.evaluate(folder / "poor", store, moved=2, seconds=0.75)
    compared_runs.evaluate(folder / "partial", store, moved=1, subjects=4, kept=0)
    return folder


def compare(folder, *words):
    """Exit code and the folder of the page."""
    out = folder / "page"
    return cli.main(["compare", *map(str, words), "--out", str(out)]), out


def test_the_page_shows_the_runs_in_a_browser(folder, tmp_path, capsys):
    code, out = compare(folder, folder / "good", folder / "poor")
    assert code == 0 and capsys.readouterr().out.strip() == str(out / "index.html")
    html = (out / "index.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', html)  # nothing is fetched
    with browser.started(tmp_path) as window:
        window.open(out / "index.html")
        headings = window.run("return [...document.querySelectorAll('h2')].map(h => h.textContent)")
        assert headings == [
            "Overview", "Which differences hold", "Organs", "Speed and memory", "Groups of people",
            "Scans where the runs differ most",
        ]  # fmt: skip
        sizes = window.run("return [...document.images].map(i => [i.complete, i.naturalWidth])")
        assert len(sizes) == 2 + 3 and all(done and width > 200 for done, width in sizes)
        cells = window.run("return [...document.querySelectorAll('td')].map(c => c.textContent)")
        assert "poor − good" in cells and "2.500" in cells and "0.750" in cells
        wide = window.run("return document.documentElement.scrollWidth <= window.innerWidth")
        assert wide  # wide tables scroll by themselves


def test_numbers_are_those_of_the_rows(folder):
    _, out = compare(folder, folder / "good", folder / "poor")
    found = json.loads((out / "compare.json").read_text())
    good, poor = (
        {(r["subject"], r["organ"]): r["dice"] for r in map(json.loads, path.read_text().splitlines())}
        for path in (folder / name / "evaluation" / "test.jsonl" for name in ("good", "poor"))
    )
    means = [
        np.array(
            [np.mean([of[s, o] for o in found["organs"] if of[s, o] is not None]) for s in found["subjects"]]
        )
        for of in (good, poor)
    ]
    [pair] = found["pairs"]
    assert pair["mean"] == pytest.approx((means[1] - means[0]).mean()) and pair["count"] == 8
    assert pair["p"] == pair["p_corrected"] == 2 / 2**8  # all eight are worse
    organs = found["organs_against_first"]["poor"]
    assert organs["stomach"]["count"] == 7 and organs["liver"]["count"] == 8
    expected = significance.holm([organs[o]["p"] for o in found["organs"]])
    assert [organs[o]["p_holm"] for o in found["organs"]] == expected


def test_runs_are_compared_on_the_scans_they_share_and_the_rest_is_told(folder, capsys):
    code, out = compare(folder, folder / "good", folder / "partial", folder / "poor", "--correction", "bh")
    assert code == 0
    told = "4 of 8 subjects are in all runs; left out: p04, p05, p06"
    assert told in capsys.readouterr().err
    found = json.loads((out / "compare.json").read_text())
    assert found["subjects"] == ["p00", "p01", "p02", "p03"] and len(found["pairs"]) == 3
    assert {pair["p"] for pair in found["pairs"]} == {2 / 2**4}  # four scans cannot be significant
    html = (out / "index.html").read_text()
    assert told in html and "0 of 4 scans have label maps of all runs" in html
    assert "evaluate.pictures=N" in html and "Benjamini" in html


def test_scans_that_differ_most_come_first_and_are_cut_where_they_differ(folder):
    found = comparison.compare(comparison.load([folder / "good", folder / "poor"], "test", ["off"]))
    ranked = comparison.most_different(found)
    spread = {s: abs(found.runs[0].means[s] - found.runs[1].means[s]) for s in found.subjects}
    assert [s for s, _ in ranked] == sorted(spread, key=lambda s: (-spread[s], s))
    one, two = np.zeros((2, 6, 7, 8), np.uint8)
    two[4, 1:5, 6] = two[4, 2, 1:7] = 3
    assert page.where_they_differ([one, one, two]) == (4, 2, 6)
    assert page.where_they_differ([one, one]) == (3, 3, 4)


def test_labels_of_one_name_have_one_colour_whatever_their_number():
    colors: dict[str, int] = {}
    one = page._by_name(np.uint8([0, 1, 2]), {0: "background", 1: "liver", 2: "pet toy"}, colors)
    two = page._by_name(np.uint8([0, 7, 5]), {7: "liver", 5: "pet toy"}, colors)
    np.testing.assert_array_equal(one, two)
    assert one[1] != one[2] and one[0] == 0


def test_other_true_labels_are_told(folder, tmp_path):
    other = tmp_path / "other" / "evaluation"
    other.mkdir(parents=True)
    rows = [json.loads(line) for line in (folder / "good/evaluation/test.jsonl").read_text().splitlines()]
    for row in rows:
        row["true_volume_ml"] *= 1 + 0.5 * (row["organ"] == "liver")
    (other / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = comparison.load([folder / "good", tmp_path / "other"], "test", ["off"])
    [remark] = comparison.compare(runs).remarks
    assert remark.startswith("other was scored against other true labels than good: 8 volumes differ")
    assert runs[1].costs == {}  # of an older version: no NAME.run.json
    assert compare(folder, folder / "good", tmp_path / "other")[0] == 0


@pytest.mark.parametrize(
    "words, code, message",
    [
        (("good",), 2, "one run has nothing to be compared with; name two"),
        (("good", "good"), 2, "the same run twice; name different ones"),
        (("good", "nowhere"), 3, "nowhere: no such folder"),
        (("good", "store"), 3, "store: no evaluation 'test' (evaluation/test.jsonl). Score the run with the job evaluate."),
        (("good", "poor", "--name", "clean"), 3, "good: no evaluation 'clean' (evaluation/clean.jsonl). It has test: name"),
        (("good", "poor", "--method", "etta"), 2, "no method 'etta'; it has off"),
        (("good", "poor", "--level", "5"), 2, "--level 5: expected a number between 0 and 1"),
        (("good", "poor", "--pictures", "-1"), 2, "--pictures -1: expected 0 or more"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_one_line(folder, capsys, words, code, message):
    given = [folder / w if w in ("good", "poor", "nowhere", "store") else w for w in words]
    assert compare(folder, *given)[0] == code
    told = capsys.readouterr().err.strip()
    assert message in told and len(told.splitlines()) == 1 and "Traceback" not in told


def test_runs_without_a_scan_in_common_are_refused(folder, tmp_path, capsys):
    other = tmp_path / "other" / "evaluation"
    other.mkdir(parents=True)
    lines = pathlib.Path(folder / "good/evaluation/test.jsonl").read_text().replace('"p0', '"q0')
    (other / "test.jsonl").write_text(lines)
    assert compare(folder, folder / "good", tmp_path / "other")[0] == 3
    told = capsys.readouterr().err.strip()
    assert "the runs share no subject (good 8, other 8)" in told and len(told.splitlines()) == 1
    (other / "test.jsonl").write_text('{"subject": ')
    assert compare(folder, folder / "good", tmp_path / "other")[0] == 3
