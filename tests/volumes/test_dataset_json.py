import pytest

from tests.volumes.layouts.conftest import dataset
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
