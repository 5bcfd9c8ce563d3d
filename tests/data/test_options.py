"""How batches are made: which values can be used."""

import dataclasses

import pytest

from ukbob_jax.data.options import ACTIONS, READING, Crops, Labels, Reading
from ukbob_jax.errors import ConfigError


@pytest.mark.parametrize(
    "options, values, message",
    [
        (Crops, {"size": (8, 8)}, r"crop \(8, 8\): expected three positive numbers of voxels"),
        (Crops, {"size": (8, 0, 8)}, r"crop \(8, 0, 8\): expected three positive numbers"),
        (Crops, {"size": (8, 8, 8), "foreground": -0.1}, r"foreground -0.1: expected a fraction in \[0, 1\]"),
        (Crops, {"size": (8, 8, 8), "views": 0}, "views 0: expected 1 or more"),
        (Crops, {"size": (8, 8, 8), "max_shift": -1}, "max_shift -1: expected a number of voxels from 0"),
        (Crops, {"size": (8, 8, 8), "sampling": "x"}, "sampling 'x': expected one of balanced, nnunet"),
        (
            Crops,
            {"size": (8, 8, 8), "sampling": "nnunet", "views": 2},
            "sampling 'nnunet': places one crop of each sample, not 2 views",
        ),
        (
            Labels,
            {"set": "auto", "action": "erase"},
            "flagged='erase': expected one of ignore, drop, background",
        ),
        (Reading, {"damaged": "ignore"}, "damaged='ignore': expected stop or skip"),
        (Reading, {"process": 2, "processes": 2}, "process 2 is not one of 2 processes"),
        (Reading, {"process": -1}, "process -1 is not one of 1 processes"),
    ],
)
def test_values_that_cannot_be_used_are_refused_by_field(options, values, message):
    with pytest.raises(ConfigError, match=message):
        options(**values)


def test_the_ends_of_every_range_can_be_used():
    for foreground in (0, 1):
        assert Crops((1, 1, 1), foreground, max_shift=0).foreground == foreground
    assert [Labels("auto", action=action).action for action in ACTIONS] == list(ACTIONS)
    assert [Reading(process=n, processes=2).process for n in (0, 1)] == [0, 1]


def test_options_are_values_that_nobody_changes():
    assert Reading() == READING and Crops((8, 8, 8)) == Crops((8, 8, 8), 0.67, 1, None)
    for options, field in ((READING, "threads"), (Crops((8, 8, 8)), "views"), (Labels("auto"), "set")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(options, field, 3)
    first, second = Labels("auto"), Labels("auto")
    assert first.flagged == {} and first.flagged is not second.flagged
