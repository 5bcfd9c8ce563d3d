"""What the pages of the report show."""

import json
import re

import jinja2
import numpy as np
import pytest

from ukbob_jax.anatomy import IDS
from ukbob_jax.evaluation import report
from ukbob_jax.evaluation.pages import labels
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.case import Description

LIVER, SPLEEN, SHAPE = IDS["liver"], IDS["spleen"], (10, 8, 12)


def test_planes_go_through_the_label_even_where_its_centre_does_not():
    mask = np.zeros((9, 5, 5), bool)
    mask[[0, 1, 8], 2, 2] = True  # the mean, x = 3, is outside
    np.testing.assert_array_equal(labels.middle_voxel(mask), (1, 2, 2))


@pytest.fixture
def store(tmp_path) -> Store:
    label = np.zeros(SHAPE, np.uint8)
    label[2:5, 2:6, 3:8], label[6:9, 2:6, 3:8] = LIVER, SPLEEN
    image = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(*SHAPE, 1)
    with StoreWriter(tmp_path / "store") as writer:
        for number in range(3):
            writer.write(f"s{number}", image, np.eye(4), {"auto": label}, source=str(number))
    return Store.open(tmp_path / "store")


def row(number: int, organ: int, size: float, outside: tuple[str, ...] = ()) -> dict:
    return {
        "subject": f"s{number}",
        "organ": organ,
        "body_fraction": size,
        "sphericity": size,
        "eccentricity": 0.5,
        "outside": list(outside),
        "flagged": bool(outside),
    }


def test_a_label_is_shown_above_a_representative_one_unless_all_of_its_organ_are_flagged(store):
    odd = ("body_fraction", "sphericity")
    rows = [row(0, LIVER, 0.2), row(1, LIVER, 0.21), row(2, LIVER, 0.9, odd)]
    rows += [row(number, SPLEEN, size, odd) for number, size in enumerate((0.1, 0.11, 0.12))]
    pictures = {picture.name: picture for picture in labels.worst(store, "auto", rows)}
    assert list(pictures) == ["solf_liver", "solf_spleen"]  # the liver has the larger outlier score
    assert pictures["solf_liver"].caption == (
        "liver: flagged for body_fraction, sphericity (above), and a representative one (below)."
    )
    assert pictures["solf_spleen"].caption == (
        "spleen: flagged for body_fraction, sphericity. "
        "Every label of this organ is flagged, so no representative one is shown."
    )
    heights = [int.from_bytes(picture.png[20:24], "big") for picture in pictures.values()]  # of the PNGs
    assert heights[0] > 1.5 * heights[1]


def test_a_label_that_a_person_flagged_is_told_so():
    assert "flagged for a person's decision" in labels.worst_caption("liver", [], True)


def test_pages_escape_text_and_data():
    text = "</script><b>'&"
    page = report.render("audit.html", title=text, data={"z": text, "a": [1.5, None]})
    assert "<title>&lt;/script&gt;&lt;b&gt;&#39;&amp; · label audit</title>" in page
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    assert found[1].startswith('{"z":') and not set("<>&'") & set(found[1])
    assert json.loads(found[1]) == {"z": text, "a": [1.5, None]}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_has_not_are_refused(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.render("audit.html", title="", data={"a": value})


def test_a_template_is_given_every_value_it_names():
    with pytest.raises(jinja2.UndefinedError, match="'title' is undefined"):
        report.render("audit.html", data={})


def test_the_page_of_labels_names_them_as_the_data_set_does(tmp_path):
    image = np.zeros((6, 6, 6, 1), np.float32)
    image[2:4] = 1
    label = np.zeros((6, 6, 6), np.uint8)
    label[2:4] = 2
    with StoreWriter(tmp_path / "store") as writer:
        about = Description(label_names={"manual": {2: "head / tail"}})
        writer.write("a", image, np.eye(4), {"manual": label}, source="a", description=about)
    flagged = row(0, 2, 0.2, ("sphericity",)) | {"subject": "a"}
    store = Store.open(tmp_path / "store")
    assert labels.shown(store, "manual", [flagged]) == {2: "head / tail"}
    [picture] = labels.worst(store, "manual", [flagged])
    assert picture.name == "solf_head_tail" and picture.caption.startswith(
        "head / tail: flagged for sphericity"
    )
