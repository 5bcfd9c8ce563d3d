import pytest

from tests.volumes.layouts.conftest import dataset
from ukbob_jax.errors import FileError
from ukbob_jax.volumes import dataset_json


@pytest.mark.parametrize(
    "fields, contrasts, labels",
    [
        (
            {"modality": {"0": "T1w", "1": "T2w"}, "labels": {"0": "background", "1": "liver"}},
            ("T1w", "T2w"),
            "liver",
        ),
        (
            {"channel_names": {"1": "fat", "0": "water"}, "labels": {"background": 0, "a": 1}},
            ("water", "fat"),
            "a",
        ),
    ],
)
def test_names_of_channels_and_labels_are_read_in_both_spellings(fields, contrasts, labels, tmp_path):
    found = dataset_json.read(dataset(tmp_path, **fields))
    assert found.contrasts == contrasts
    assert found.labels == {0: "background", 1: labels}


def test_a_path_inside_may_take_a_detour_but_not_lead_out(tmp_path):
    found = dataset_json.read(dataset(tmp_path))
    assert dataset_json.inside(found, "./a/../b.nii.gz") == tmp_path / "b.nii.gz"
    with pytest.raises(FileError, match="leads out of the dataset's folder"):
        dataset_json.inside(found, f"../{tmp_path.name}-other/b.nii.gz")
    with pytest.raises(FileError, match="expected a file name, found 3"):
        dataset_json.inside(found, 3)


def test_a_list_is_no_description(tmp_path):
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(FileError, match="expected a JSON object with a training list, found list"):
        dataset_json.read(tmp_path)


def test_ids_that_share_their_smallest_region_keep_their_numbers(tmp_path):
    said = {"labels": {"background": 0, "head": [1, 2, 3], "eye": [3]}, "regions_class_order": [2, 3]}
    found = dataset_json.read(dataset(tmp_path, **said))
    assert found.labels == {0: "background", 1: "head 1", 2: "head 2", 3: "eye"}
    assert found.regions.labels == {0: "background", 2: "head 2", 3: "eye"}
    assert dataset_json.read(dataset(tmp_path, labels={"a": [1], "b": 2})).regions is None


def test_one_word_may_say_the_modality_of_all_channels(tmp_path):
    said = dataset_json.read(dataset(tmp_path, modality="MRI")).description()
    assert (said.modality, said.units, said.contrasts) == ("MR", "arbitrary", ())
