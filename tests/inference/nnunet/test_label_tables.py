import json

import pytest

from ukbob_jax import anatomy
from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.inference.nnunet import label_tables

WHOLE = label_tables.part_of("vibesegmentator_ct", 1, 72)


def write(folder, labels) -> None:
    fields = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(fields))


def named(table: dict[int, str]) -> dict[str, int]:
    return {name: i for i, name in table.items()}


def test_the_whole_taxonomy_is_model_100_and_20_is_the_ribs():
    assert {i: name for i, name in WHOLE.items() if i != 20} == {
        i: name for i, name in anatomy.NAMES.items() if i != anatomy.UNUSED
    }
    assert WHOLE[20] == "ribs"


@pytest.mark.parametrize("twenty", ["unused", "rib", "Ribs", "unused/rib (ct only)", "20"])
def test_names_that_its_makers_use_are_accepted(tmp_path, twenty):
    write(tmp_path, named(WHOLE | {20: twenty, 50: "pelvis_left", 66: "muscle_other", 5: "Liver"}))
    label_tables.check(tmp_path, WHOLE)


def test_numbers_for_names_are_accepted_where_they_agree(tmp_path):
    write(tmp_path, {"background": 0} | {str(i): i for i in range(1, 73)})
    label_tables.check(tmp_path, WHOLE)
    write(tmp_path, {"background": 0} | {str(i): 73 - i for i in range(1, 73)})
    with pytest.raises(MismatchError, match="label 1 is '72', but 'spleen'"):
        label_tables.check(tmp_path, WHOLE)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (WHOLE | {2: "kidney_left", 3: "kidney_right"}, "label 2 is 'kidney_left', but 'kidney_right' in"),
        ({i: name for i, name in WHOLE.items() if i < 72}, "label 72 is missing, but 'bone_other' in"),
        (WHOLE | {73: "hand"}, "label 73 is 'hand', but missing in"),
    ],
)
def test_the_first_difference_is_named(tmp_path, labels, words):
    write(tmp_path, named(labels))
    with pytest.raises(MismatchError, match=words) as error:
        label_tables.check(tmp_path, WHOLE)
    assert "\n" not in str(error.value) and "dataset.json" in str(error.value)


def test_regions_and_a_folder_without_description_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"dataset\.json"):
        label_tables.check(tmp_path, WHOLE)
    fields = {"labels": {"background": 0, "all": [1, 2], "core": [2]}, "regions_class_order": [1, 2]}
    (tmp_path / "dataset.json").write_text(json.dumps(fields))
    with pytest.raises(MismatchError, match="are regions"):
        label_tables.check(tmp_path, WHOLE)


def test_parts_are_renumbered_from_one():
    vertebrae = label_tables.part_of("totalsegmentator_ct", 25, 50)
    assert (len(vertebrae), vertebrae[1], vertebrae[2], vertebrae[26]) == (
        27, "sacrum", "vertebrae_S1", "vertebrae_C1",
    )  # fmt: skip
