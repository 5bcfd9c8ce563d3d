import copy
import dataclasses
import json
import pickle

import numpy as np
import pytest

from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.store import rows
from ukbob_jax.store.reader import Store
from ukbob_jax.store.row import Channel, Subject
from ukbob_jax.store.writer import StoreWriter

# A line of a manifest as stores held it before rows had a type.
LINE = (
    b'{"id": "s1", "split": "train", "shape": [40, 36, 33], "spacing_mm": [2.0, 3.0, 4.0], '
    b'"affine": [[2.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 4.0, 0.0], [0.0, 0.0, 0.0, 1.0]], '
    b'"contrasts": ["fat", "water"], "labels": ["auto"], "annotated": [1, 3], "source": "sum1", "version": 2, '
    b'"intensity": {"mean": [1.5, 2.5]}, "slope": [0.5, 1.0], "intercept": [0.0, -1.0], '
    b'"attributes": {"sex": "F"}, "quality": {"seam": 0.5}, "present": {"auto": [1, 3]}, '
    b'"provenance": {"auto": {}}, "folders": {"image": "0001/image", "label/auto": "0002/label/auto"}, '
    b'"crc32": "ca0d88fa"}'
)


def test_an_old_line_is_read_and_written_with_the_same_bytes():
    subject = Subject.from_json(rows.decode_line(LINE, "row"))
    assert (subject.id, subject.shape, subject.contrasts) == ("s1", (40, 36, 33), ("fat", "water"))
    assert (subject.annotated, subject.slope, subject.digests) == ((1, 3), (0.5, 1.0), {})
    np.testing.assert_array_equal(subject.affine, np.diag([2.0, 3.0, 4.0, 1.0]))
    assert rows.encode_line(rows.without_digests(subject)) == LINE


def test_missing_fields_have_defaults_and_unknown_ones_survive():
    subject = Subject.from_json({"id": "s1", "colour": "red", "contrasts": ["ct"]})
    assert (subject.split, subject.annotated, subject.version) == ("", None, 1)
    assert subject.extra == {"colour": "red"} and subject.to_json()["colour"] == "red"
    assert Subject.from_json(json.loads(json.dumps(subject.to_json()))) == subject


def test_what_a_data_set_says_is_written_where_it_says_it_and_read_again():
    plain = Subject("s1")
    assert (
        not plain.to_json().keys() & {"person", "modality", "units", "label_names", "regions"}
        and plain.owner == "s1"
    )
    said = Subject("s1", person="p1", modality="CT", units="HU", label_names={"manual": {1: "liver"}})
    said = dataclasses.replace(
        said, regions={"manual": {"names": ["WT"], "values": [[1, 2]], "region_labels": [1]}}
    )
    assert Subject.from_json(json.loads(json.dumps(said.to_json()))) == said and said.owner == "p1"


@pytest.mark.parametrize("row", [{}, {"id": "s1", "shape": 3}, {"id": "s1", "channels": [{"b_s_mm2": 0}]}])
def test_what_is_no_subject_is_an_error_that_says_where(row):
    with pytest.raises(FileError, match=r"^m.jsonl: not a subject .* Run the ingest job again"):
        Subject.from_json(row, "m.jsonl")


def test_channels_are_stored_only_where_more_than_a_name_is_known(tmp_path):
    channels = (Channel("b0", 0.0), Channel("b1000", 1000.0, (0.0, 0.6, 0.8)))
    image = np.arange(4 * 4 * 4 * 2, dtype=np.int16).reshape(4, 4, 4, 2)
    with StoreWriter(tmp_path) as writer:
        writer.write("dwi", image, np.eye(4), {}, source="a", contrasts=channels)
        writer.write("mr", image, np.eye(4), {}, source="b", contrasts=("fat", "water"))
    store = Store.open(tmp_path)
    assert store.rows["dwi"].channels == channels and store.rows["dwi"].contrasts == ("b0", "b1000")
    assert store.rows["mr"].channels == (Channel("fat"), Channel("water"))
    assert [b'"channels"' in line for line in (tmp_path / "manifest.jsonl").read_bytes().splitlines()] == [
        True,
        False,
    ]


def test_a_subject_can_be_sent_to_a_process_and_not_be_changed():
    subject = Subject.new("s1", (3, 4, 5, 2), np.diag([1.0, 2.0, 3.0, 1.0]))
    assert pickle.loads(pickle.dumps(subject)) == subject == copy.copy(subject)
    assert subject.spacing_mm == (1.0, 2.0, 3.0) and subject.contrasts == ("0", "1")
    with pytest.raises(AttributeError):
        subject.split = "test"  # pyright: ignore[reportAttributeAccessIssue]


def test_channels_are_found_by_name_and_missing_ones_are_named():
    subject = Subject("s1", channels=(Channel("fat"), Channel("water")))
    assert subject.channel_indices(("water", "fat", "water")) == [1, 0, 1]
    with pytest.raises(MismatchError, match=r"s1 has contrasts \['fat', 'water'\], not \['t1', 't2'\]\."):
        subject.channel_indices(("t1", "fat", "t2"))
    with pytest.raises(ConfigError, match=r"^audit.contrast: s1 has contrasts .* not \['t1'\]\."):
        subject.channel_indices(("t1",), "audit.contrast")


def test_a_class_counts_as_annotated_where_all_ids_that_become_it_were_looked_for():
    lookup = np.zeros(256, np.uint8)
    lookup[[1, 2, 3, 4]] = 1, 1, 2, 9
    assert Subject("s").annotated_classes(lookup, 3).tolist() == [True, True, True]
    known = Subject("s", annotated=(1, 3)).annotated_classes(lookup, 3)
    assert known.tolist() == [True, False, True]  # id 2 was not looked for; class 9 lies beyond


def test_an_identity_is_of_the_arrays_asked_for_and_of_facts_but_not_of_the_split():
    subject = Subject(
        "s1",
        source="a",
        folders={"image": "1/image"},
        digests={"image": {"c": "x"}, "label/auto": {"c": "y"}},
    )
    same = subject.identity("image")
    assert same["image"] == ["1/image", {"c": "x"}] and same["source"] == "a"
    for change in ({"split": "test"}, {"version": 2}, {"digests": subject.digests | {"label/auto": {}}}):
        assert dataclasses.replace(subject, **change).identity("image") == same
    for change in (
        {"source": "b"},
        {"digests": {"image": {"c": "z"}}},
        {"units": "HU"},
        {"extra": {"later": "x"}},
    ):
        assert dataclasses.replace(subject, **change).identity("image") != same
