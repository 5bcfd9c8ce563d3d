"""Labels of other data sets compared with ours."""

import numpy as np
import pytest

from ukbob_jax import anatomy
from ukbob_jax.evaluation import metrics, zero_shot


@pytest.mark.parametrize("dataset", anatomy.DATASETS)
def test_every_id_of_both_sides_is_compared_or_told(dataset):
    shared = zero_shot.common(dataset, anatomy.NAMES)
    classes = anatomy.common_classes(dataset)
    assert set(shared.organs.values()) == set(classes.names) - {"background"} and not shared.left_out
    compared = {i for i in anatomy.NAMES if shared.found[i] in shared.organs}
    assert compared | set(classes.left_out_ours) | {0, anatomy.UNUSED} == set(anatomy.NAMES)
    theirs = {i for i in anatomy.DATASETS[dataset] if shared.truth[i] in shared.organs}
    assert theirs | set(classes.left_out_theirs) | {0} == set(anatomy.DATASETS[dataset])
    assert shared.truth[anatomy.IGNORE] == anatomy.IGNORE


@pytest.mark.parametrize("dataset", anatomy.DATASETS)
def test_a_perfect_network_scores_one_on_another_data_set(dataset):
    """Their labels made from ours, class by class; what is ambiguous there has a common class here."""
    classes = anatomy.common_classes(dataset)
    ours = np.array([i for i in anatomy.NAMES if i != anatomy.UNUSED], np.uint8)
    theirs = np.array(
        [np.flatnonzero(classes.theirs == classes.ours[i])[0] if classes.ours[i] else 0 for i in ours]
    )
    shared = zero_shot.common(dataset, anatomy.NAMES)
    dice = metrics.dice(shared.found[ours], shared.truth[theirs], len(classes.names))
    assert (dice[1:] == 1).all()


def test_a_network_without_all_lobes_is_not_scored_on_lungs():
    names = {0: "background", 1: "liver", 2: "lung_upper_lobe_left", 3: "spleen"}
    shared = zero_shot.common("totalsegmentator_mr", names)
    assert set(shared.organs.values()) == {"liver", "spleen"} and "lung_left" in shared.left_out
    liver = next(k for k, name in shared.organs.items() if name == "liver")
    assert shared.found[1] == liver == shared.truth[5]
    with pytest.raises(ValueError, match="no class in common with btcv"):
        zero_shot.common("btcv", {0: "background", 1: "muscle"})
    with pytest.raises(ValueError, match="'flare' is not known"):
        zero_shot.common("flare", names)
