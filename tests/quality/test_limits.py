import json

import numpy as np
import pytest

from tests.quality.test_solf import N, cohort
from ukbob_jax.errors import FileError, MismatchError, ValuesError
from ukbob_jax.quality import fit, flag, outside
from ukbob_jax.quality.limits import MIN_OUTSIDE, Limits
from ukbob_jax.quality.solf import apply_limits

SEXES = ["F" if i % 2 else "M" for i in range(N)]


def fitted(**rule) -> Limits:
    limits = fit(cohort(), 5.0, groups=SEXES if "strata" in rule else None)
    return limits._replace(rule=limits.rule | rule)


def test_limits_are_read_as_they_were_written_also_infinite_ones(tmp_path):
    limits = fitted(strata=["sex"], height_band_mm=100.0).with_groups(["unknown"])
    limits.save(tmp_path / "limits.json")
    again = Limits.load(tmp_path / "limits.json")
    for one, other in zip(limits, again):
        np.testing.assert_array_equal(one, other)
    assert np.isinf(again.low[2]).all() and (again.count[2] == 0).all()


@pytest.mark.parametrize(
    "change", [{"format": "x"}, {"features": ["size"]}, {"low": [[[0, 0, 0]]]}, {"groups": None}]
)
def test_another_file_is_refused_with_its_name(tmp_path, change):
    path = tmp_path / "limits.json"
    fitted().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FileError, match=r"limits\.json: not a file of SOLF limits"):
        Limits.load(path)


def test_groups_are_named_as_the_limits_were_fitted():
    people = [{"sex": "F", "height_mm": 1712.0}, {}]
    assert fitted().groups_of(people) is None
    assert fitted(strata=["sex"], height_band_mm=100.0).groups_of(people) == ["F", "unknown"]
    by_height = fitted(strata=["height"])  # files of old do not say the width
    assert by_height.groups_of(people, 50.0) == ["1700-1750 mm", "unknown"]


def test_labels_are_judged_by_as_many_measures_as_the_limits_ask_for():
    measures, limits = cohort(), fitted()
    out = outside(measures, limits)
    assert MIN_OUTSIDE == limits.min_outside == 2
    np.testing.assert_array_equal(apply_limits(measures, limits).outside, out)
    np.testing.assert_array_equal(apply_limits(measures, limits).flagged, out.sum(-1) >= 2)
    for number in (1, 3):
        expected = out.sum(-1) >= number
        np.testing.assert_array_equal(apply_limits(measures, fitted(min_outside=number)).flagged, expected)
        np.testing.assert_array_equal(flag(measures, limits, number), expected)
    with pytest.raises(ValuesError, match="min_outside=4: choose 1, 2 or 3"):
        apply_limits(measures, fitted(min_outside=4))


def test_a_person_of_no_group_is_refused_and_of_an_added_one_not_judged():
    measures, limits = cohort(), fitted(strata=["sex"], height_band_mm=100.0)
    groups = limits.groups_of([{}] * N)
    with pytest.raises(MismatchError, match="unknown"):
        apply_limits(measures, limits, groups)
    assert not apply_limits(measures, limits.with_groups(["unknown"]), groups).outside.any()


def test_groups_by_height_without_a_width_are_refused_and_groups_by_sex_need_none():
    assert fitted(strata=["sex"]).groups_of([{"sex": "F"}]) == ["F"]
    with pytest.raises(MismatchError, match="do not say how wide"):
        fitted(strata=["height"]).groups_of([{"height_mm": 1712.0}])
