"""What can be set of each method of adaptation."""

import dataclasses
import math

import numpy as np
import pytest

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation.options import OF_THE_NETWORK, Adaptation, BatchNorm, ScanOptions, Tent


@pytest.mark.parametrize("options", [Adaptation, Tent, BatchNorm])
def test_all_methods_visit_a_scan_alike_and_none_by_position(options):
    shared = {field.name: field.default for field in dataclasses.fields(ScanOptions)}
    own = {field.name: field.default for field in dataclasses.fields(options)}
    assert shared.items() < own.items() and set(OF_THE_NETWORK) <= set(shared)
    with pytest.raises(TypeError, match="positional"):
        options(0.5)


def test_equal_options_share_a_compiled_program():
    given = Adaptation(overlap=np.array([0.5, 0.25, 0.0]), exclude=np.array([3, 7]), background_weight=1)
    same = Adaptation(overlap=(0.5, 0.25, 0.0), exclude=[3, 7])
    assert given == same and hash(given) == hash(same)
    assert given.exclude == (3, 7) and type(given.background_weight) is float
    assert given != Tent(overlap=(0.5, 0.25, 0.0), exclude=(3, 7))


@pytest.mark.parametrize(
    "options, values, message",
    [
        (Adaptation, {"steps": -1}, "etta: steps -1 is negative"),
        (Adaptation, {"optimizer": "lamb"}, "optimizer 'lamb' is not known. Use one of adam, sgd"),
        (Adaptation, {"background_weight": -0.5}, "background_weight -0.5 must be 0 or more"),
        (Adaptation, {"background_weight": math.nan}, "background_weight nan must be 0 or more"),
        (Adaptation, {"background_weight": math.inf}, "background_weight inf must be 0 or more"),
        (Adaptation, {"ceiling": 0.0}, "ceiling 0.0 is outside 0 to 1"),
        (Adaptation, {"ceiling": 1.5}, "ceiling 1.5 is outside 0 to 1"),
        (Adaptation, {"windows": 0}, "windows 0 must be at least 1; None takes all"),
        (Tent, {"activation": "relu"}, "activation 'relu' is not known. Use one of softmax, sigmoid"),
        (BatchNorm, {"activation": "relu"}, "activation 'relu' is not known"),
        (BatchNorm, {"fraction": 1.01}, "bn: fraction 1.01 is outside 0 to 1"),
        (BatchNorm, {"fraction": math.nan}, "bn: fraction nan is outside 0 to 1"),
    ],
)
def test_values_that_cannot_be_used_are_refused_by_field(options, values, message):
    with pytest.raises(ConfigError, match=message):
        options(**values)


def test_the_ends_of_every_range_can_be_used():
    Adaptation(steps=0, background_weight=0.0, ceiling=1.0, max_drift=None, windows=1)
    assert (BatchNorm(fraction=0.0).fraction, BatchNorm(fraction=1.0).fraction) == (0.0, 1.0)
