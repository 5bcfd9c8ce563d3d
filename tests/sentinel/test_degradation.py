import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ukbob_jax.sentinel import degradation
from ukbob_jax.sentinel.degradation import KINDS, NOTHING_LEFT
from ukbob_jax.sentinel.sampling import BINS, pair_at, pairs, slice_dice

REMOVING = ("erode", "drop_components", "truncate")
ADDING = ("dilate", "add_components", "merge_neighbours")
LEFT, RIGHT, NEAR = 48, 49, 50  # femurs and a hip, by the taxonomy


@pytest.fixture(scope="module")
def labels():
    """Two mirrored ellipsoids and a third organ that touches one of them."""
    x, y, z = np.indices((40, 24, 32))
    found = np.zeros(x.shape, np.uint8)
    for label, centre in ((LEFT, 11), (RIGHT, 28)):
        found[((x - centre) / 6) ** 2 + ((y - 12) / 5) ** 2 + ((z - 14) / 9) ** 2 < 1] = label
    found[((x - 11) ** 2 + (y - 12) ** 2 + (z - 26) ** 2 < 25) & (found == 0)] = NEAR
    return found


def worse(labels, kind, severity, seed=0, label=LEFT):
    return degradation.degrade(
        degradation.organ_of(labels, label, (1, 1, 2)), kind, severity, np.random.default_rng(seed)
    )


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in NOTHING_LEFT])
def test_the_dice_is_about_what_was_asked_for(labels, kind):
    for severity in (0.1, 0.3, 0.5) if kind != "merge_neighbours" else (0.1,):  # the neighbour here is small
        score = degradation.dice(worse(labels, kind, severity), labels == LEFT)
        slack = {"drop_components": 0.2}.get(kind, 0.12)  # pieces and slices come whole
        assert score == pytest.approx(1 - severity, abs=slack), severity


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(list(KINDS)), st.floats(0, 1), st.integers(0, 100))
def test_kinds_keep_their_promises(labels_and_truth, kind, severity, seed):
    labels, truth = labels_and_truth
    mask = worse(labels, kind, severity, seed)
    assert mask.dtype == bool
    assert mask.shape == labels.shape
    assert 0 <= degradation.dice(mask, truth) <= 1
    if kind in REMOVING:
        assert not (mask & ~truth).any()
    if kind in ADDING:
        assert not (truth & ~mask).any()
    if kind in NOTHING_LEFT:
        assert degradation.dice(mask, truth) == 0
        assert mask.any() != (kind == "empty")
    np.testing.assert_array_equal(mask, worse(labels, kind, severity, seed))


@pytest.fixture(scope="module")
def labels_and_truth(labels):
    return labels, labels == LEFT


def test_whole_error_swaps_the_sides(labels):
    np.testing.assert_array_equal(worse(labels, "swap_sides", 1.0), labels == RIGHT)


def test_truncation_is_at_a_seam(labels):
    organ = degradation.organ_of(labels, LEFT, seams=[10, 18, 31])
    for seed in range(4):
        mask = degradation.degrade(organ, "truncate", 0.4, np.random.default_rng(seed))
        ends = np.flatnonzero(mask.any((0, 1)))[[0, -1]]
        whole = np.flatnonzero((labels == LEFT).any((0, 1)))[[0, -1]]
        assert (ends[0] in (10, 18) and ends[1] == whole[1]) or (ends[1] in (9, 17) and ends[0] == whole[0])


def test_merging_takes_voxels_of_the_neighbour_alone(labels):
    mask = worse(labels, "merge_neighbours", 0.3)
    assert set(np.unique(labels[mask])) == {LEFT, NEAR}


def test_an_organ_alone_has_no_neighbour_and_no_wrong_organ():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[4:8, 4:8, 4:8] = 1
    assert worse(labels, "merge_neighbours", 0.5, label=1) is None
    assert worse(labels, "wrong_organ", 1.0, label=1) is None


def test_two_errors_on_top_of_each_other(labels):
    score = degradation.dice(worse(labels, "erode+shift", 0.5), labels == LEFT)
    assert 0.3 < score < 0.8  # the second is measured on what the first left


def test_large_crops_are_measured_on_a_coarser_grid(labels, monkeypatch):
    monkeypatch.setattr(degradation, "LARGEST", 500)
    score = degradation.dice(worse(labels, "dilate", 0.3), labels == LEFT)
    assert score == pytest.approx(0.7, abs=0.02)


def test_pairs_cover_classes_and_the_quality_range_evenly(labels):
    count = 3 * 2 * BINS
    found = list(pairs(0, labels, (1, 1, 2), count=count))
    assert set(collections.Counter(p.label for p in found).values()) == {count // 3}
    scores = np.array([p.dice for p in found])
    assert ((scores >= 0) & (scores <= 1)).all()
    thirds = np.histogram(scores, 3, (0, 1))[0] / count
    assert thirds.min() > 0.2, thirds
    assert {p.kind for p in found} & set(NOTHING_LEFT)
    assert any(p.kind == "none" and p.dice == 1 for p in found)


def test_a_pair_is_a_function_of_seed_and_number(labels):
    first, again = (pair_at(7, 11, labels) for _ in range(2))
    np.testing.assert_array_equal(first.mask, again.mask)
    assert first[:2] == again[:2]
    resumed = next(iter(pairs(7, labels, count=1, start=11)))
    np.testing.assert_array_equal(first.mask, resumed.mask)


def test_the_dice_of_slices(labels):
    truth = labels == LEFT
    mask = truth.copy()
    mask[:, :, 14:] = False
    found = slice_dice(mask, truth)
    assert np.isnan(found[0])
    assert found[10] == 1
    assert found[16] == 0


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda v: degradation.organ_of(v, 5), r"label 5 \(liver\) is not in this map"),
        (lambda v: degradation.organ_of(v[0], 5), r"a label map is \(x, y, z\)"),
        (lambda v: worse(v, "melt", 0.5), "kind 'melt'"),
        (lambda v: worse(v, "erode", 1.5), "severity is 0 to 1"),
        (lambda v: pair_at(0, 0, v, kinds=("empty",)), "leaves something of the organ"),
        (lambda v: pair_at(0, 0, v, classes=(3,)), "none of the classes is there"),
    ],
)
def test_bad_input_is_one_line(labels, call, what):
    with pytest.raises(ValueError, match=what):
        call(labels)
