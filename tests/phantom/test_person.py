import numpy as np
import pytest

from ukbob_jax import phantom
from ukbob_jax.errors import ConfigError
from ukbob_jax.phantom import person


def test_the_seed_decides_everything():
    assert phantom.describe(7) == phantom.describe(7)
    assert phantom.describe(7) != phantom.describe(8)


def test_both_sexes_and_plausible_heights_occur():
    people = [phantom.describe(seed) for seed in range(200)]
    women = [p["height_mm"] for p in people if p["sex"] == "F"]
    men = [p["height_mm"] for p in people if p["sex"] == "M"]
    assert 60 < len(women) < 140
    assert min(women) > 1400 and max(men) < 2000
    assert 80 < np.mean(men) - np.mean(women) < 190


def test_another_sex_keeps_the_other_draws():
    woman, man = phantom.describe(5, "F"), phantom.describe(5, "M")
    assert woman["breath_mm"] == man["breath_mm"] and woman["legs"] == man["legs"]
    assert woman["height_mm"] < man["height_mm"]


def test_purposes_have_independent_numbers():
    a, b = (person.stream(1, purpose).standard_normal(1000) for purpose in (0, 1))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.15


@pytest.mark.parametrize("seed, sex, text", [(1, "X", "'F', 'M'"), (-1, None, "-1")])
def test_wrong_arguments_are_named(seed, sex, text):
    with pytest.raises(ConfigError, match=text):
        phantom.describe(seed, sex)
