import numpy as np
import pytest

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError
from ukbob_jax.labelling import merge

LIVER, HEART, MUSCLE, PROSTATE = (anatomy.IDS[n] for n in ("liver", "heart", "muscle", "prostate"))


def maps(*columns):
    """Maps of 1 1 n voxels: `columns[v]` lists what every map says of voxel v."""
    return [np.array(labels, np.uint8).reshape(1, 1, -1) for labels in zip(*columns)]


def test_the_majority_wins_and_of_equals_the_first():
    given = maps((5, 5, 7), (7, 5, 5), (1, 2, 3), (0, 0, 9), (0, 2, 2), (255, 255, 1))
    assert merge.vote(given).ravel().tolist() == [5, 5, 1, 0, 2, 255]
    assert merge.vote(given[:2]).ravel().tolist() == [5, 7, 1, 0, 0, 255]


def test_first_come_fills_background_only():
    given = maps((5, 7), (0, 7), (0, 0))
    assert merge.first(given).ravel().tolist() == [5, 7, 0]
    assert given[0].ravel().tolist() == [5, 0, 0]


def block(organ, where):
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[where] = organ
    return labels


def test_only_water_decides_what_it_is_said_to():
    water = block(MUSCLE, np.s_[:3])
    other = block(MUSCLE, np.s_[6:9])
    other[9:] = HEART
    merged = merge.rules([other, water], ["in_phase", "water"], [MUSCLE])
    assert (merged[:3] == MUSCLE).all() and not merged[3:9].any() and (merged[9:] == HEART).all()


def test_stray_pieces_and_the_prostate_of_a_woman_go():
    labels = block(LIVER, np.s_[:6])
    labels[9:11, 9:11, 9:11] = LIVER  # 8 voxels, far below the table's for a liver
    labels[7:8] = PROSTATE
    for sex, has in (("F", False), ("M", True), (None, True)):
        merged = merge.rules([labels], ["water"], [], sex)
        assert (merged[:6] == LIVER).all() and not (merged[9:11] == LIVER).any()
        assert (merged == PROSTATE).any() == has


def test_rules_need_water():
    with pytest.raises(ConfigError, match="needs the contrast 'water'"):
        merge.rules(maps((1,)), ["fat"], [])
