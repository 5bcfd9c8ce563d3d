"""Names of classes in a mirror image."""

import numpy as np
import pytest

from ukbob_jax import anatomy, mirroring
from ukbob_jax.errors import ConfigError


def test_the_mirror_of_any_names_swaps_their_sides_and_ignores_lobes():
    names = {0: "background", 1: "kidney_left", 2: "liver", 3: "kidney_right"}
    assert mirroring.lookup(names)[:4].tolist() == [0, 3, 2, 1]
    ours = mirroring.lookup(anatomy.NAMES)
    lobes = list(anatomy.GROUPS["lungs"])
    lobes = [i for i in lobes if "_lobe_" in anatomy.NAMES[i]]
    assert len(lobes) == 5 and (ours[lobes] == anatomy.IGNORE).all()
    others = np.setdiff1d(np.arange(256), lobes)
    np.testing.assert_array_equal(ours[others], anatomy.MIRROR[others])
    for unusable, words in (
        ({1: "kidney_left"}, "not kidney_right"),
        ({1: "class_1"}, "class_1 may be of one"),
    ):
        with pytest.raises(ConfigError, match=words):
            mirroring.lookup(unusable)


@pytest.mark.parametrize(
    "left, right",
    [
        ("Left-Hippocampus", "Right-Hippocampus"),
        ("ctx-lh-insula", "ctx-rh-insula"),
        ("kidney (LEFT)", "kidney (RIGHT)"),
        ("LeftKidney", "RightKidney"),
        ("kidneyLeft", "kidneyRight"),
        ("hippocampus_L", "hippocampus_R"),
        ("L lung", "R lung"),
        ("left kidney", "right kidney"),
    ],
)
def test_sides_are_found_however_a_data_set_spells_them(left, right):
    names = {0: "background", 1: left, 2: "Cleft", 3: right, 4: "vertebra L4", 5: "Lung", 6: "upright"}
    assert mirroring.lookup(names)[:7].tolist() == [0, 3, 2, 1, 4, 5, 6]
    with pytest.raises(ConfigError, match="mirroring"):
        mirroring.lookup({1: left})
