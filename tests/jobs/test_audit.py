import base64
import csv
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from configs import common
from tests import browser
from tests.jobs.test_solf import AFFINE, BAD, HEART, LIVER, SHAPE, SPLEEN, label_map
from ukbob_jax import anatomy, files
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.evaluation.pages import labels
from ukbob_jax.jobs import audit, solf
from ukbob_jax.quality import cohort, decisions, verdicts
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Recipe and workdir of a small store that was judged and has its page."""
    workdir = tmp_path_factory.mktemp("audit")
    with StoreWriter(workdir / "store") as writer:
        for number in range(16):
            labels = label_map(number)
            image = (40 * labels.astype(np.int16) + np.arange(SHAPE[2]))[..., None].repeat(2, -1)
            attributes = {"sex": "FM"[number % 2], "site": "A <b>" if number < 8 else "B"}
            sets = {"auto": labels, "body": np.ones(SHAPE, np.uint8)}
            writer.write(f"s{number:02d}", image, AFFINE, sets, source="", attributes=attributes)
    config = common.base()
    config.store = str(workdir / "store")
    config.solf.update({"epsilon": 7.0, "min_voxels": 0})
    config = config.copy_and_resolve_references()
    solf.run(config, str(workdir))
    audit.run(config, str(workdir))
    return config, workdir


def page(workdir) -> str:
    return (workdir / "report" / "solf" / "index.html").read_text()


def data(workdir) -> dict:
    return json.loads(
        re.search(r'<script id="data" type="application/json">(.*?)</script>', page(workdir), re.S)[1]
    )


def test_every_flagged_label_is_listed_largest_outlier_score_first(made):
    config, workdir = made
    flagged = verdicts.flagged_organs(config.store, "auto")
    cases = data(workdir)["cases"]
    assert {(c["subject"], c["organ"]) for c in cases} == {
        (s, o) for s, organs in flagged.items() for o in organs
    }
    assert {(c["subject"], c["organ"]) for c in cases[:2]} == set(BAD.items())
    order = [c["outlier_score"] for c in cases]
    assert order == sorted(order, reverse=True)
    assert all(c["version"] == "0001" and c["sex"] in "FM" for c in cases)


def test_the_report_shows_labels_in_the_order_of_the_audit_page(made, monkeypatch):
    config, workdir = made
    drawn = []
    monkeypatch.setattr(labels, "pair", lambda store, label, rows: drawn.append(rows) or b"")
    monkeypatch.setattr(labels, "SCATTERED", tuple(anatomy.NAMES[organ] for organ in (LIVER, SPLEEN, HEART)))
    rows = files.read_jsonl(verdicts.folder(config.store, "auto") / verdicts.VERDICTS)
    labels.worst(Store.open(config.store), "auto", rows)
    first = {}
    for found in data(workdir)["cases"]:
        first.setdefault(found["organ"], (found["organ"], found["subject"]))
    assert [(flagged["organ"], flagged["subject"]) for flagged, _ in drawn] == list(first.values())
    assert len(drawn) == 3
    for _, representative in drawn:
        assert (
            data(workdir)["representatives"][str(representative["organ"])]["subject"]
            == representative["subject"]
        )


@pytest.fixture(scope="module")
def all_livers_flagged(made, tmp_path_factory):
    """Workdir with a page on verdicts that flag every liver."""
    config, workdir = made[0], tmp_path_factory.mktemp("livers")
    path = verdicts.folder(config.store, "auto") / verdicts.VERDICTS
    before, rows = path.read_bytes(), files.read_jsonl(path)
    try:
        files.write_jsonl(path, ({**row, "flagged": row["flagged"] or row["organ"] == LIVER} for row in rows))
        audit.run(config, str(workdir))
    finally:
        path.write_bytes(before)
    return workdir


def test_an_organ_whose_labels_are_all_flagged_has_no_representative_one(all_livers_flagged):
    found = data(all_livers_flagged)
    livers = [case for case in found["cases"] if case["organ"] == LIVER]
    assert len(livers) == 16 and all(case["picture"] for case in livers)
    assert str(LIVER) not in found["representatives"] and str(HEART) in found["representatives"]


def test_the_page_says_that_all_labels_of_an_organ_are_flagged(all_livers_flagged, tmp_path):
    with browser.started(tmp_path) as window:
        window.open(all_livers_flagged / "report" / "solf" / "index.html")
        for organ, is_told in ((LIVER, True), (HEART, False)):
            click(window, f"[data-organ='{organ}']")
            text = window.run("return document.querySelector('article').textContent")
            assert ("every label of this organ is flagged" in text) == is_told


def test_distributions_hold_every_label_and_the_limits(made):
    config, workdir = made
    limits = json.loads((verdicts.folder(config.store, "auto") / "limits.json").read_text())
    organs = {organ["id"]: organ for organ in data(workdir)["organs"]}
    assert {i: organ["count"] for i, organ in organs.items()} == {LIVER: 16, HEART: 16, SPLEEN: 15}
    for i, shown in enumerate(organs[LIVER]["features"]):
        assert sum(shown["bins"]) == 16
        assert shown["low"] == [limits["low"][0][LIVER][i]] and shown["from"] < shown["low"][0] < shown["to"]


def test_pictures_show_the_organ_tinted_beside_a_representative_one(made):
    _, workdir = made
    found = data(workdir)
    for case in found["cases"]:
        representative = found["representatives"][str(case["organ"])]
        assert representative["subject"] != case["subject"]
        for uri in (case["picture"], representative["picture"]):
            image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
            pixels = np.asarray(image).astype(int)
            assert pixels.shape[0] == 132 and (np.ptp(pixels, axis=-1) > 40).mean() > 0.01  # colour on grey


def test_the_page_needs_nothing_from_elsewhere(made):
    text = page(made[1])
    assert "http:" not in text and "https:" not in text and "<link" not in text
    assert not re.search(r"<(script|img)[^>]+src=", text)
    assert "A <b>" not in text  # data cannot end the script or become markup


def test_pictures_are_limited_and_so_are_rows(made):
    config, workdir = made
    fewer = config.copy_and_resolve_references()
    fewer.audit.update({"cases": 1, "rows": 2, "contrast": "1"})
    audit.run(fewer, str(workdir / "fewer"))
    cases = data(workdir / "fewer")["cases"]
    assert [bool(c["picture"]) for c in cases] == [True, False]
    assert data(workdir / "fewer")["unlisted"] == len(data(workdir)["cases"]) - 2 > 0
    fewer.audit.contrast = "T2"
    with pytest.raises(ConfigError, match=r"audit.contrast: s\d+ has contrasts .* not \['T2'\]"):
        audit.run(fewer, str(workdir / "fewer"))


def test_measures_nothing_that_solf_has_measured(made, tmp_path, monkeypatch):
    monkeypatch.setattr(cohort, "measure", None)  # would fail
    audit.run(made[0], str(tmp_path))


def test_refuses_labels_that_were_not_judged(made, tmp_path):
    config = made[0].copy_and_resolve_references()
    config.label = "manual"
    with pytest.raises(FileError, match="no verdicts yet"):
        audit.run(config, str(tmp_path))


@pytest.fixture(scope="module")
def window(made, tmp_path_factory):
    with browser.started(tmp_path_factory.mktemp("browser")) as found:
        found.open(made[1] / "report" / "solf" / "index.html")
        yield found


def click(window, where: str) -> None:
    window.run("document.querySelector(arguments[0]).click()", where)


def test_filters_leave_the_cases_that_match(window, made):
    cases = data(made[1])["cases"]

    def shown() -> list[str]:
        return window.run("return [...document.querySelectorAll('article')].map(a => a.dataset.case)")

    assert len(shown()) == len(cases)
    click(window, f"[data-organ='{LIVER}']")
    assert shown() == [f"{c['subject']}/{LIVER}/0001" for c in cases if c["organ"] == LIVER]
    assert window.run("return document.querySelectorAll('.plots svg').length") == 3
    for name, value in (("sex", "M"), ("site", "A <b>")):
        window.run("return audit.choose(0)")
        choose = (
            "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.onchange({target: s})"
        )
        window.run(choose, name, value)
        assert shown() == [f"{c['subject']}/{c['organ']}/0001" for c in cases if c[name] == value]
        window.run(choose, name, "")


def test_exported_decisions_are_accepted_by_solf(window, made, tmp_path):
    config, workdir = made
    first, second, third = data(workdir)["cases"][:3]
    for case, choice in ((first, "keep"), (second, "drop"), (third, "fix")):
        click(window, f"[data-case='{case['subject']}/{case['organ']}/0001'] .{choice}")
    exported = window.run("return audit.decisionsText()")
    assert [d["decision"] for d in json.loads(exported)["decisions"]] == ["keep", "drop", "fix"]
    table = list(csv.DictReader(io.StringIO(window.run("return audit.tableText()"))))
    assert table[0]["decision"] == "keep" and table[0]["site"] == first["site"]
    np.testing.assert_allclose(float(table[0]["sphericity"]), first["values"][1])
    after = []
    for name, text in (("decisions.json", exported), ("labels.csv", window.run("return audit.tableText()"))):
        (tmp_path / name).write_text(text)
        decided = config.copy_and_resolve_references()
        decided.solf.decisions = str(tmp_path / name)
        solf.run(decided, str(tmp_path))
        after.append(verdicts.flagged_organs(config.store, "auto"))
    assert first["organ"] not in after[0].get(first["subject"], set()) and after[0] == after[1]
    fix = files.read_jsonl(verdicts.folder(config.store, "auto") / "fix.jsonl")
    assert fix == [{"subject": third["subject"], "organ": third["organ"]}]
    audit.run(decided, str(tmp_path))  # a page made now knows the decisions
    known = {(c["subject"], c["organ"]): c["decision"] for c in data(tmp_path)["cases"] if c["decision"]}
    assert known[first["subject"], first["organ"]] == "keep" and len(known) == 3
    solf.run(config, str(tmp_path))


def test_keys_decide_and_decisions_survive_closing_the_page(window, made):
    case = data(made[1])["cases"][-1]
    key = f"{case['subject']}/{case['organ']}/0001"
    press = "document.querySelector(`[data-case='${arguments[0]}']`).onkeydown({key: 'd'})"
    window.run(press, key)
    window.open(made[1] / "report" / "solf" / "index.html")
    state = "return document.querySelector(`[data-case='${arguments[0]}']`).dataset.decision"
    assert window.run(state, key) == "drop"
    window.run(press, key)
    assert window.run(state, key) == ""


def told(window) -> str:
    return window.run("return document.getElementById('told').textContent")


@pytest.mark.parametrize(
    ("text", "words"),
    [("hello", "no file of decisions"), ('{"format": "ukbob-decisions", "label": "other", "decisions": []}', "other")],
)  # fmt: skip
def test_files_that_are_no_decisions_on_this_page_are_told(window, text, words):
    before = window.run("return audit.decisionsText()")
    window.run("audit.loadDecisions(arguments[0])", text)
    assert words in told(window) and window.run("return audit.decisionsText()") == before


def test_loaded_decisions_about_labels_not_shown_are_exported_as_they_came(window, made, tmp_path):
    away = {"subject": "s00", "organ": 72, "decision": "fix", "version": "0001"}
    case = data(made[1])["cases"][-1]
    here = {"subject": case["subject"], "organ": case["organ"], "decision": "keep", "version": ""}
    text = json.dumps({"format": "ukbob-decisions", "label": "auto", "decisions": [away, here]})
    window.run("audit.loadDecisions(arguments[0])", text)
    assert "1 decisions" in told(window)
    for name, exported in (("d.json", "decisionsText"), ("d.csv", "tableText")):
        (tmp_path / name).write_text(window.run(f"return audit.{exported}()"))
        assert decisions.read(tmp_path / name, "auto")[-1] == decisions.Decision(**away)
    click(window, f"[data-case='{case['subject']}/{case['organ']}/0001'] .keep")  # undone


def test_a_page_made_anew_is_not_overruled_by_what_was_left_undecided(window, made):
    cases = data(made[1])["cases"]
    key = f"{cases[-1]['subject']}/{cases[-1]['organ']}/0001"
    click(window, f"[data-case='{key}'] .drop")
    kept = json.loads(window.run("return localStorage.getItem(audit.data.key)"))
    assert kept[key] == "drop" and all(kept.values())
    click(window, f"[data-case='{key}'] .drop")


def test_a_label_is_shown_with_its_groups_limits_only(made, tmp_path):
    config = made[0].copy_and_resolve_references()
    config.solf.update({"strata": ("sex",), "min_count": 4})
    solf.run(config, str(tmp_path))
    audit.run(config, str(tmp_path))
    solf.run(made[0], str(tmp_path))
    with browser.started(tmp_path) as window:
        window.open(tmp_path / "report" / "solf" / "index.html")
        dashed = "s => s.querySelectorAll('[stroke-dasharray]').length"
        lines = f"return [...document.querySelectorAll(arguments[0])].map({dashed})"
        assert set(window.run(lines, "article svg")) == {2}
        click(window, f"[data-organ='{LIVER}']")
        assert window.run(lines, ".plots svg") == [4] * 3
        assert ": " in window.run("return document.querySelector('figcaption').title")


def test_the_store_is_left_as_it_was(made):
    assert Store.open(made[0].store).subjects == tuple(f"s{n:02d}" for n in range(16))
