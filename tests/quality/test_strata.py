import pytest

from ukbob_jax.errors import ConfigError
from ukbob_jax.quality import strata

PEOPLE = [{"sex": "F", "height_mm": 1699.0}, {"sex": "M", "height_mm": 1700.0}, {"sex": "M"}, {}]


def test_the_group_of_every_subject_is_named():
    assert strata.names(PEOPLE, (), 100) is None
    assert strata.names(PEOPLE, ("sex",), 100) == ["F", "M", "M", "unknown"]
    expected = ["F 1600-1700 mm", "M 1700-1800 mm", "M unknown", "unknown unknown"]
    assert strata.names(PEOPLE, ("sex", "height"), 100) == expected
    assert strata.name(PEOPLE[1], ("height", "sex"), 150) == "1650-1800 mm M"


@pytest.mark.parametrize(
    "by, band, message", [(("age",), 100, "'age' is not one of sex, height"), (("height",), 0, "band_mm=0")]
)
def test_other_strata_are_refused(by, band, message):
    with pytest.raises(ConfigError, match=message):
        strata.names(PEOPLE, by, band)
