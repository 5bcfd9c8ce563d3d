"""Which sections the page has; a page with all of them is tested in tests/jobs/test_demo.py."""

import pytest

from configs import common
from ukbob_jax.errors import FileError
from ukbob_jax.evaluation.pages import scores
from ukbob_jax.jobs import report


def config(store, scanners=()):
    made = common.base()
    made.store, made.evaluate.scanners = str(store), scanners
    return made.copy_and_resolve_references()


@pytest.fixture
def asked(monkeypatch):
    """Records what the score sections are asked for."""
    found = []
    monkeypatch.setattr(scores, "rows_of", lambda folder, name: f"{folder.name}/{name}")
    monkeypatch.setattr(scores, "clean_section", lambda *args: found.append(args) or "clean")
    monkeypatch.setattr(scores, "scanners_section", lambda *args: found.append(args) or "scanners")
    monkeypatch.setattr(report.Store, "open", lambda path: path.name)
    return found


def score(folder, *names):
    for name in names:
        (folder / "evaluation").mkdir(parents=True, exist_ok=True)
        (folder / "evaluation" / f"{name}.jsonl").touch()


def test_without_scores_there_is_no_section(tmp_path, asked):
    assert report.score_sections(config(tmp_path / "store"), tmp_path) == [] and asked == []


def test_the_unfiltered_run_is_compared_where_it_was_scored(tmp_path, asked):
    folder = tmp_path / "run"
    score(folder, "clean")
    made = config(tmp_path / "store")
    assert report.score_sections(made, folder) == ["clean", "scanners"]
    assert list(asked[0][0]) == ["SOLF", "SOLF + ETTA"]
    score(folder / report.WITHOUT_SOLF, "clean")
    report.score_sections(made, folder)
    variants, methods = asked[2]
    assert variants == {"no filter": "without_solf/clean", "SOLF": "run/clean", "SOLF + ETTA": "run/clean"}
    assert methods == {"no filter": scores.OFF, "SOLF": scores.OFF, "SOLF + ETTA": scores.ETTA}


def test_scanners_that_were_scored_come_with_their_stores(tmp_path, asked):
    made = config(tmp_path / "store", ("bias", "noise"))
    score(tmp_path, "noise", "another")
    assert report.score_sections(made, tmp_path) == ["scanners"]
    _, names, stores, label = asked[0]
    assert names == ["noise"] and stores == {"noise": "noise"} and label == made.evaluate.label


def test_a_missing_store_is_told(tmp_path):
    with pytest.raises(FileError, match="none"):
        report.run(config(tmp_path / "none"), str(tmp_path))
