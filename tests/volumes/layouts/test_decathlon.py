import pytest

from tests.volumes.layouts.conftest import dataset, entry, problems, table, touch
from ukbob_jax.errors import FileError
from ukbob_jax.volumes import layouts


def test_the_decathlon_lists_training_validation_and_test(tmp_path):
    names = [f"{f}/{n}.nii.gz" for n in "ab" for f in ("imagesTr", "labelsTr")]
    touch(tmp_path, *names, "imagesTs/c.nii.gz")
    dataset(tmp_path, training=[entry("b")], validation=[entry("a")], test=["./imagesTs/c.nii.gz"])
    want = [
        ("b", ["b.nii.gz"], {"manual": "b.nii.gz"}, "train"),
        ("a", ["a.nii.gz"], {"manual": "a.nii.gz"}, "val"),
        ("c", ["c.nii.gz"], {}, "test"),
    ]
    assert table(layouts.list_cases("decathlon", tmp_path)) == want
    assert table(layouts.list_cases("decathlon", tmp_path / "dataset.json")) == want
    dataset(tmp_path, training=[entry("b")], validation=[entry("a")], testing=["./imagesTs/c.nii.gz"])
    assert table(layouts.list_cases("decathlon", tmp_path)) == want


def test_a_dataset_may_be_named_relative_to_where_one_is(tmp_path, monkeypatch):
    touch(dataset(tmp_path, training=[entry("a")]), "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    monkeypatch.chdir(tmp_path)
    for root in (".", "dataset.json"):
        assert [case.subject for case in layouts.list_cases("decathlon", root)] == ["a"]
    dataset(tmp_path, training=[{"image": "/etc/passwd.nii.gz"}])
    with pytest.raises(FileError, match="leads out of the dataset's folder"):
        layouts.list_cases("decathlon", ".")


@pytest.mark.parametrize("name", ["../../etc/passwd.nii.gz", "/etc/passwd.nii.gz", "imagesTr/../../x.nii.gz"])
def test_a_path_out_of_the_dataset_is_refused(name, tmp_path):
    with pytest.raises(FileError, match="leads out of the dataset's folder"):
        layouts.list_cases("decathlon", dataset(tmp_path, training=[{"image": name}]))


@pytest.mark.parametrize(
    "fields, error, message",
    [
        ({}, FileError, "training.* missing or empty"),
        ({"training": []}, FileError, "training.* missing or empty"),
        ({"training": {"a": 1}}, FileError, "expected a list"),
        ({"training": [{"label": "a.nii.gz"}]}, FileError, "entry 0"),
        ({"training": [{"image": []}]}, FileError, "empty image list"),
        ({"training": [{"image": 3}]}, FileError, "expected a file name, found 3"),
        ({"training": [entry(n) for n in "bcdefg"]}, FileError, "12 of 12 files are missing: .* and 9 more"),
        ({"training": [entry("a")], "labels": {"liver": [1, 2]}}, FileError, "regions"),
        ({"training": [entry("a")], "modality": ["MR"]}, FileError, "channel names"),
    ],
)
def test_a_dataset_json_that_cannot_be_used_is_refused(fields, error, message, tmp_path):
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    with pytest.raises(error, match=message):
        layouts.list_cases("decathlon", dataset(tmp_path, **fields))


def test_a_label_of_null_is_none(tmp_path):
    touch(tmp_path, "imagesTr/a.nii.gz", "imagesTr/b.nii.gz", "labelsTr/a.nii.gz")
    dataset(tmp_path, training=[entry("a"), {**entry("b"), "label": None}])
    assert table(layouts.list_cases("decathlon", tmp_path)) == [
        ("a", ["a.nii.gz"], {"manual": "a.nii.gz"}, "train"),
        ("b", ["b.nii.gz"], {}, "train"),
    ]


def test_a_subject_listed_twice_or_without_a_file_has_a_problem(tmp_path):
    touch(tmp_path, *(f"{kind}Tr/{name}.nii.gz" for kind in ("images", "labels") for name in "ab"))
    touch(tmp_path, "imagesTr/c.nii.gz")
    dataset(tmp_path, training=[entry("a"), entry("b"), entry("a"), entry("c")])
    found = problems(layouts.list_cases("decathlon", tmp_path))
    assert list(found) == ["a", "b", "c"] and not found["b"]
    assert "a is listed more than once" in found["a"] and "missing: " in found["c"]


def test_images_of_one_name_in_a_folder_per_subject_are_told_apart(tmp_path):
    files = [f"{p}/{n}.nii.gz" for p in ("p1", "p2") for n in ("ct", "seg")]
    entries = [{"image": f"{p}/ct.nii.gz", "label": f"{p}/seg.nii.gz"} for p in ("p1", "p2")]
    touch(dataset(tmp_path, training=entries), *files)
    assert [case.subject for case in layouts.list_cases("decathlon", tmp_path)] == ["p1_ct", "p2_ct"]
    dataset(tmp_path, training=[entry("a"), entry("b")], test=["imagesTs/a.nii.gz"])
    touch(tmp_path, *(f"{f}/{n}.nii.gz" for n in "ab" for f in ("imagesTr", "labelsTr")), "imagesTs/a.nii.gz")
    assert "listed more than once" in problems(layouts.list_cases("decathlon", tmp_path))["a"]


def test_a_missing_or_broken_dataset_json_is_named(tmp_path):
    with pytest.raises(FileError, match=r"dataset\.json: no such file"):
        layouts.list_cases("decathlon", tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(FileError, match=r"dataset\.json: not readable as JSON"):
        layouts.list_cases("decathlon", tmp_path)


def test_amos_lists_ct_and_mr_together_and_one_side_is_taken(tmp_path):
    names = ["amos_0001", "amos_0500", "amos_0507", "amos_0600"]
    touch(tmp_path, *[f"{kind}Tr/{name}.nii.gz" for kind in ("images", "labels") for name in names])
    dataset(tmp_path, training=[entry(name) for name in names], modality={"0": "CT"})
    for modality, units, kept in (("CT", "HU", names[:2]), ("MR", "arbitrary", names[2:])):
        with pytest.warns(UserWarning, match=f"2 of 4 subjects are not {modality} and are left aside"):
            cases = layouts.list_cases("decathlon", tmp_path, modality=modality)
        assert [case.subject for case in cases] == kept
        assert {(case.description.modality, case.description.units) for case in cases} == {(modality, units)}
    assert len(layouts.list_cases("decathlon", tmp_path)) == 4
    dataset(tmp_path, training=[entry(names[0])])
    with pytest.raises(FileError, match="none of the 1 subjects is MR"):
        layouts.list_cases("decathlon", tmp_path, modality="MR")


def test_a_fold_of_a_datalist_validates(tmp_path):
    touch(tmp_path, *[f"{kind}Tr/{name}.nii.gz" for kind in ("images", "labels") for name in "abcd"])
    entries = [{**entry(name), "fold": n % 2} for n, name in enumerate("abc")]
    dataset(tmp_path, modality="MRI", training=entries, validation=[entry("d")])
    with pytest.warns(UserWarning, match=r"have folds \(0, 1\), and all of them train.*fold=0"):
        assert [case.split for case in layouts.list_cases("decathlon", tmp_path)] == ["train"] * 3 + ["val"]
    found = layouts.list_cases("decathlon", tmp_path, fold="1")
    assert [(case.subject, case.split) for case in found] == [
        ("a", "train"), ("b", "val"), ("c", "train"), ("d", "val"),
    ]  # fmt: skip
    with pytest.raises(FileError, match=r"fold=2, but \"training\" has the folds 0, 1;"):
        layouts.list_cases("decathlon", tmp_path, fold="2")
    dataset(tmp_path, training=[entry("a")])
    with pytest.raises(FileError, match="has the folds of none"):
        layouts.list_cases("decathlon", tmp_path, fold="0")
