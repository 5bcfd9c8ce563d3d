import cc3d
import numpy as np
import pytest
from scipy import ndimage

from ukbob_jax import anatomy
from ukbob_jax.anatomy import IDS
from ukbob_jax.errors import ConfigError
from ukbob_jax.phantom import label_errors

ALONE = label_errors.KINDS[:5]
ORGANS = ["liver", "kidney_left", "aorta", "femur_right", "vertebra_body", "gluteus_maximus_left"]


def dice(clean, noisy):
    """Dice of each class, (73,); 1 where absent from both."""
    a, b, both = (np.bincount(v.ravel(), minlength=73) for v in (clean, noisy, clean[clean == noisy]))
    return np.where(a + b > 0, 2 * both / np.maximum(a + b, 1), 1.0)


def planted(label, organ, kind, seed=1):
    return label_errors.plant(label, seed, organs=[IDS[organ]], count=1, kinds=[kind])


@pytest.mark.parametrize("seed", range(3))
def test_errors_are_gross_and_the_rest_stays(cohort, seed):
    for label in cohort[seed::3]:
        noisy, truth = label_errors.plant(label, seed, share=0.25)
        scores = dice(label, noisy)
        damaged = [error.organ for error in truth]
        assert len(truth) >= 12 and damaged == sorted(set(damaged))
        assert np.all((scores[damaged] > 0.25) & (scores[damaged] < 0.78))
        others = np.setdiff1d(np.arange(1, 73), damaged)
        assert scores[others].min() > 0.75
        assert noisy.dtype == np.uint8 and set(np.unique(noisy)) <= set(np.unique(label))


def test_the_clean_map_is_not_touched_and_seeds_decide(cohort):
    label = cohort[0].copy()
    a, b, c = (label_errors.plant(label, seed) for seed in (5, 5, 6))
    assert np.array_equal(label, cohort[0])
    assert np.array_equal(a[0], b[0]) and a[1] == b[1]
    assert a[1] != c[1]


@pytest.mark.parametrize("organ", ORGANS)
@pytest.mark.parametrize("kind", ALONE)
def test_only_the_stated_organ_is_damaged(cohort, organ, kind):
    noisy, truth = planted(cohort[1], organ, kind)
    assert [e.organ for e in truth] == [IDS[organ]]
    scores = dice(cohort[1], noisy)
    assert 0.3 < scores[IDS[organ]] < 0.76
    scores[[IDS[organ]]] = 1
    assert scores[1:].min() > 0.8


def test_shrinking_keeps_the_core(cohort):
    label = cohort[2]
    noisy, _ = planted(label, "liver", "shrunken")
    before, after = label == IDS["liver"], noisy == IDS["liver"]
    assert not np.any(after & ~before) and np.all(noisy[before & ~after] == 0)
    depth = ndimage.distance_transform_edt(np.pad(before, 1))[1:-1, 1:-1, 1:-1]
    assert depth[after].min() >= depth[before & ~after].max() - 0.31


def test_inflating_adds_all_around(cohort):
    label = cohort[2]
    noisy, _ = planted(label, "kidney_left", "inflated")
    before, after = label == IDS["kidney_left"], noisy == IDS["kidney_left"]
    assert np.all(after[before]) and after.sum() > 1.7 * before.sum()
    assert np.all(label[after] > 0)


def test_a_missing_part_leaves_one_end(cohort):
    label = cohort[2]
    noisy, _ = planted(label, "femur_right", "missing_part")
    kept, lost = (np.argwhere((label == IDS["femur_right"]) & m) for m in (noisy > 0, noisy == 0))
    assert np.linalg.norm(kept.mean(axis=0) - lost.mean(axis=0)) > 3


def test_a_leak_stays_attached_and_goes_to_one_side(cohort):
    label = cohort[2]
    noisy, _ = planted(label, "heart", "leaked")
    before, after = label == IDS["heart"], noisy == IDS["heart"]
    assert np.all(after[before])
    pieces = cc3d.connected_components(after, connectivity=26)
    assert np.bincount(pieces.ravel())[1:].max() > 0.95 * after.sum()
    assert np.linalg.norm(np.argwhere(after).mean(axis=0) - np.argwhere(before).mean(axis=0)) > 1


def test_fragments_are_many(cohort):
    noisy, _ = planted(cohort[2], "liver", "fragmented")
    assert cc3d.connected_components(noisy == IDS["liver"], connectivity=26).max() > 5


def test_a_swap_trades_parts_of_both_sides(cohort):
    label = cohort[2]
    noisy, truth = planted(label, "kidney_left", "swapped")
    left, right = IDS["kidney_left"], IDS["kidney_right"]
    assert sorted(truth) == [(right, "swapped"), (left, "swapped")]
    changed = label != noisy
    assert set(np.unique(label[changed])) == {left, right}
    assert np.array_equal(np.where(label[changed] == left, right, left), noisy[changed])
    sizes = [np.sum(m == i) for i in (left, right) for m in (label, noisy)]
    assert sizes[0] == sizes[1] and sizes[2] == sizes[3]


def test_an_unpaired_organ_trades_with_a_neighbour_or_loses_a_part(cohort):
    _, truth = planted(cohort[2], "lung_lower_lobe_right", "swapped")
    assert len(truth) == 2 and all(error.kind == "swapped" for error in truth)
    alone = np.where(cohort[2] == IDS["liver"], cohort[2], 0)  # there is nothing to trade with
    assert planted(alone, "liver", "swapped")[1] == [(IDS["liver"], "missing_part")]


def test_count_and_share_limit_the_number(cohort):
    for count in (0, 1, 4):
        _, truth = label_errors.plant(cohort[3], 0, count=count, kinds=ALONE)
        assert len(truth) == count
    assert label_errors.plant(cohort[3], 0, share=0.0)[1] == []


def test_tissues_and_tiny_organs_are_left_alone(cohort):
    sizes = np.bincount(cohort[4].ravel(), minlength=73)
    _, truth = label_errors.plant(cohort[4], 0, share=1.0)
    damaged = {error.organ for error in truth}
    assert len(damaged) > 20 and not damaged & set(anatomy.GROUPS["tissues"])
    assert all(sizes[i] >= label_errors.MIN_VOXELS for i in damaged)


def test_wrong_settings_are_named(cohort):
    with pytest.raises(ConfigError, match="melted"):
        label_errors.plant(cohort[0], 0, kinds=["melted"])
    with pytest.raises(ConfigError, match=r"1\.5"):
        label_errors.plant(cohort[0], 0, share=1.5)


def test_ignored_voxels_stay_ignored(cohort):
    label = cohort[0].copy()
    label[:, :16][label[:, :16] == IDS["inner_fat"]] = anatomy.IGNORE
    noisy, _ = label_errors.plant(label, 2, share=0.5)
    assert np.array_equal(noisy == anatomy.IGNORE, label == anatomy.IGNORE)
