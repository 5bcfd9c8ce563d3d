"""A setting is spelt as the user of the program writes it, and never named where the program lacks it."""

import contextlib

import pytest

from ukbob_jax import advice


@pytest.mark.parametrize(
    "spoken, value, flag, named, unknown",
    [
        (contextlib.nullcontext(), 'nan="zero"', "assume_ras=True", "nan", 'series="UID"'),
        (advice.options(["nan", "assume_ras"]), "--nan zero", "--assume-ras", "--nan", ""),
        (
            advice.fields("source", ["nan", "assume_ras"]),
            "--config.source.nan=zero",
            "--config.source.assume_ras=True",
            "config.source.nan",
            "",
        ),
    ],
    ids=["python", "command", "recipe"],
)
def test_a_setting_is_spelt_for_who_asks(spoken, value, flag, named, unknown):
    with spoken:
        assert advice.setting("nan", "zero") == value
        assert advice.setting("assume_ras", True) == flag
        assert advice.setting("nan") == named
        assert advice.fix(" Or give {}.", "series", "UID") == (f" Or give {unknown}." if unknown else "")
    assert advice.setting("nan", "zero") == 'nan="zero"'
