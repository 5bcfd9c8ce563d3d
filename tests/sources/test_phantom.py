import dataclasses

import numpy as np
import pytest

from ukbob_jax import phantom
from ukbob_jax.errors import ConfigError
from ukbob_jax.sources import phantom as source

SHAPE = (32, 24, 64)


def cohort(**changes):
    return source.list_subjects(**{"count": 10, "shape": SHAPE, "seed": 3, **changes})


def test_subjects_of_one_cohort_are_the_same_however_many_are_asked_for():
    whole, part = cohort(), cohort(first=4, count=3)
    assert part == whole[4:7]
    assert [one.seed for one in whole] == [3_000_000 + number for number in range(10)]


def test_errors_are_planted_in_the_training_labels_only():
    found = cohort(errors=0.3, corrupted_fraction=0.5, splits={"val": 2, "test": 2})
    assert sorted(one.split for one in found) == ["test"] * 2 + ["train"] * 6 + ["val"] * 2
    wrong = [one for one in found if one.errors]
    assert (
        len(wrong) == 3
        and {one.split for one in wrong} == {"train"}
        and {one.errors for one in wrong} == {0.3}
    )


def test_every_setting_changes_the_checksum():
    one = cohort(count=1)[0]
    changes = {
        "subject": "x",
        "split": "val",
        "seed": 1,
        "shape": (32, 24, 65),
        "errors": 0.1,
        "scanner": "bias",
    }
    sums = {dataclasses.replace(one, **{name: value}).checksum() for name, value in changes.items()}
    assert len(sums | {one.checksum()}) == 1 + len(changes)
    assert cohort(count=1)[0].checksum() == one.checksum()


def test_what_is_stored_is_the_phantom_and_its_planted_errors():
    one = dataclasses.replace(cohort(count=1)[0], errors=0.5)
    image, label = one.read()
    found = one.convert((image, label))
    np.testing.assert_array_equal(found["labels"]["manual"], phantom.label_map(one.seed, SHAPE))
    assert found["image"] is image and found["contrasts"] == phantom.CONTRASTS
    np.testing.assert_array_equal(found["affine"], phantom.affine(SHAPE))
    planted = {error["organ"] for error in found["quality"]["planted"]}
    differ = found["labels"]["auto"] != label
    assert planted and differ.any() and planted & set(np.unique(label[differ]).tolist())
    assert one.files() == []


def test_without_errors_both_label_sets_are_the_truth():
    one = cohort(count=1)[0]
    label = np.zeros((2, 2, 2), np.uint8)
    found = one.convert((np.zeros((2, 2, 2, 4), np.float32), label))
    assert found["labels"]["auto"] is found["labels"]["manual"] and found["quality"] == {"planted": []}


def test_splits_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="more than the 10 persons"):
        cohort(splits={"val": 11})
