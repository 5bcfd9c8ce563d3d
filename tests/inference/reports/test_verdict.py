"""SOLF's verdict on one predicted label map, against limits written by hand."""

import numpy as np
import pytest

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError, MismatchError
from ukbob_jax.inference.reports import verdict
from ukbob_jax.quality.limits import Limits
from ukbob_jax.quality.measures import FEATURES
from ukbob_jax.volumes.volume import Volume

COUNT = 73
LIVER, SPLEEN = anatomy.IDS["liver"], anatomy.IDS["spleen"]
NAMES = {0: "background", 1: "spleen", 2: "liver"}  # not the numbers of our own label set


def limits(high=None, low=None, groups=("",), rule=None, provenance=None, fitted=(LIVER, SPLEEN)):
    """Infinite limits, but for `{(structure, feature): value}`."""
    lowest = np.full((len(groups), COUNT, 3), -np.inf)
    highest = np.full((len(groups), COUNT, 3), np.inf)
    for array, given in ((lowest, low), (highest, high)):
        for (structure, feature), value in (given or {}).items():
            array[:, structure, FEATURES.index(feature)] = value
    count = np.zeros((len(groups), COUNT), np.int64)
    count[:, list(fitted)] = 30
    return Limits(lowest, highest, count, groups, rule or {}, provenance or {})


def scan(spleen=8):
    """Liver in 24 voxels, spleen in 8 (of 32: a quarter of the body)."""
    array = np.zeros((8, 8, 8), np.uint8)
    array[1:3, 1:5, 1:4] = 2
    if spleen:
        array[5:7, 5:7, 5:7] = 1
    return Volume(array, np.diag([2.0, 2.0, 2.0, 1.0]))


def test_only_what_leaves_its_range_is_outside_and_two_measures_flag():
    found = verdict.judge(scan(), NAMES, limits(high={(LIVER, "body_fraction"): 0.7}), {})
    assert found == {
        "spleen": {"outside": [], "flagged": False},
        "liver": {"outside": ["body_fraction"], "flagged": False},  # 24 of 32 voxels are 0.75
    }
    narrow = limits(high={(LIVER, "body_fraction"): 0.7}, low={(LIVER, "sphericity"): 2.0})
    assert verdict.judge(scan(), NAMES, narrow, {})["liver"] == {
        "outside": ["body_fraction", "sphericity"], "flagged": True
    }  # fmt: skip
    assert not verdict.judge(scan(), NAMES, narrow._replace(rule={"min_outside": 3}), {})["liver"]["flagged"]


def test_shares_of_the_body_are_exact():
    for high, outside in ((0.25, []), (0.249, ["body_fraction"])):
        found = verdict.judge(scan(), NAMES, limits(high={(SPLEEN, "body_fraction"): high}), {})
        assert found["spleen"]["outside"] == outside


def test_structures_that_are_not_there_have_no_verdict():
    found = verdict.judge(scan(spleen=0), NAMES, limits(low={(SPLEEN, "body_fraction"): 0.1}), {})
    assert list(found) == ["liver"]


def test_a_scan_in_another_orientation_has_the_same_verdict():
    flipped = Volume(scan().array[::-1].copy(), np.diag([-2.0, 2.0, 2.0, 1.0]))
    narrow = limits(high={(LIVER, "body_fraction"): 0.7, (SPLEEN, "sphericity"): 0.1})
    assert verdict.judge(flipped, NAMES, narrow, {}) == verdict.judge(scan(), NAMES, narrow, {})


def test_limits_that_do_not_fit_are_refused():
    heart = limits(fitted=(LIVER, anatomy.IDS["heart"]))
    with pytest.raises(ConfigError, match="1 structures that this network does not label, such as heart"):
        verdict.judge(scan(), NAMES, heart, {})
    with pytest.raises(MismatchError, match="fitted with the body as mask"):
        verdict.judge(scan(), NAMES, limits(provenance={"body": "mask"}), {})
    women = limits(groups=("F",), rule={"strata": ["sex"], "height_band_mm": 100.0})
    assert set(verdict.judge(scan(), NAMES, women, {"sex": "F"})) == {"liver", "spleen"}
    with pytest.raises(MismatchError, match="M"):
        verdict.judge(scan(), NAMES, women, {"sex": "M"})
