"""What is known of a subject before any voxel is read."""

import numpy as np

from tests.data.conftest import SHAPE, TRAIN
from ukbob_jax.data.options import Labels
from ukbob_jax.data.source import Epochs, ScanSource, centre_classes, class_weights, shuffled

ALL = (*TRAIN, "s5")


def test_a_crop_is_centred_on_annotated_classes_that_are_learnt():
    lookup = np.arange(256, dtype=np.uint8)
    lookup[[5, 6, 7, 8]] = 1, 1, 255, 0
    assert centre_classes([5, 6, 7, 8, 9], None, lookup) == {1: (5, 6), 9: (9,)}
    assert centre_classes([5, 6, 9], [6], lookup) == {1: (6,)}


def test_a_subject_comes_with_its_labels_meaning(store):
    labels = Labels("auto", flagged={"s1": {5}}, num_classes=10)
    source = ScanSource(store, ALL, labels, ("other", "fat"))
    sample = source[1]
    assert sample.subject == "s1" and sample.number == 1 and sample.shape == SHAPE
    assert (
        sample.channels == (2, 0) and sample.slope.tolist() == [1, 1] and sample.intercept.tolist() == [0, 0]
    )
    assert sample.lookup[5] == 255 and sample.lookup[7] == 7 and set(sample.classes) == {7, 9}
    assert sample.annotated.all() and np.flatnonzero(source[5].annotated).tolist() == [0, 5, 9]
    assert source[0].lookup[5] == 5  # flagged in the other only


def test_a_class_counts_as_much_as_the_least_of_its_labels(store):
    lookup = np.zeros(256, np.uint8)
    lookup[[5, 7, 9, 11]] = 1, 1, 2, 255
    found = class_weights({5: 0.5, 7: 0.75, 9: 0.25, 11: 0.1, 12: 0.1}, lookup, 4)
    assert found.dtype == np.float32 and found.tolist() == [1, 0.5, 0.25, 1]
    source = ScanSource(store, ALL, Labels("auto", weights={"s1": {5: 0.5}}, num_classes=10))
    assert source[1].weights[5] == 0.5 and source[1].weights.sum() == 9.5 and (source[0].weights == 1).all()
    assert ScanSource(store, ALL, Labels("auto"))[1].weights is None


def test_the_callers_lookup_stays_as_it_is(store):
    lookup = np.arange(256, dtype=np.uint8)
    ScanSource(store, TRAIN, Labels("auto", lookup=lookup, flagged={"s1": {5}}))[1]
    assert lookup[5] == 5


def test_without_labels_a_subject_has_no_classes(store):
    source = ScanSource(store, ALL, None)
    sample = source[5]
    assert sample.lookup is None and sample.classes == {} and sample.annotated is None
    assert sample.channels == (0, 1, 2) and not source.partial


def test_dropped_subjects_leave_the_numbers_of_the_others(store):
    source = ScanSource(store, TRAIN, Labels("auto", flagged={"s0": {5}, "s2": set()}, action="drop"))
    assert [source[i].number for i in range(len(source))] == [1, 2, 3, 4]


def test_epochs_are_permutations_that_the_seed_decides(store):
    epochs = Epochs(ScanSource(store, TRAIN, None), seed=7)
    found = [[epochs[5 * epoch + i].number for i in range(5)] for epoch in range(3)]
    assert all(sorted(order) == list(range(5)) for order in found)
    assert found == [shuffled(5, 7, epoch).tolist() for epoch in range(3)] and found[0] != found[1]


def test_work_for_a_subject_grows_with_its_classes_and_not_with_their_square():
    compared = []

    class Id(int):
        def __eq__(self, other: object) -> bool:
            compared.append(self)
            return int(self) == other

        __hash__ = int.__hash__

    counts = []
    for number in (60, 240):
        compared.clear()
        ids = [Id(i) for i in range(1, 1 + number)]
        found = centre_classes(ids, [Id(i) for i in ids], np.arange(256, dtype=np.uint8))
        assert list(found) == ids
        counts.append(len(compared))
    assert counts[1] <= 4.5 * counts[0]
