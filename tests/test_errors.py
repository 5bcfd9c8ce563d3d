import inspect

import pytest

from ukbob_jax import errors

CLASSES = [found for _, found in inspect.getmembers(errors, inspect.isclass)]


def test_every_expected_failure_has_the_one_base():
    assert len(CLASSES) > 5 and all(issubclass(found, errors.UkbobError) for found in CLASSES)


@pytest.mark.parametrize(
    "kind, code",
    [
        ("UkbobError", 1), ("ConfigError", 2), ("EmptyError", 2), ("InputError", 3), ("FileError", 3),
        ("GeometryError", 3), ("ValuesError", 3), ("MismatchError", 3), ("SomeFailed", 4), ("Preempted", 75),
    ],
)  # fmt: skip
def test_exit_codes_are_the_documented_ones(kind, code):
    assert getattr(errors, kind).exit_code == code
    assert {found.__name__ for found in CLASSES if found.exit_code == code} >= {kind}


def test_bad_settings_and_bad_input_are_value_errors_too():
    values = {found.__name__ for found in CLASSES if issubclass(found, ValueError)}
    assert values == {found.__name__ for found in CLASSES} - {"UkbobError", "SomeFailed", "Preempted"}
