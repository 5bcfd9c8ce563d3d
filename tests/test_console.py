import warnings

import pytest

from ukbob_jax import console
from ukbob_jax.errors import ConfigError, FileError, Preempted, SomeFailed


@pytest.fixture(autouse=True)
def showwarning(monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # `run` replaces it


def raising(error):
    def function(argv):
        raise error

    return function


def test_a_command_that_succeeds_gets_its_words_and_says_nothing(capsys):
    seen = []
    assert console.run(seen.extend, ["a", "--b"]) == 0
    assert seen == ["a", "--b"] and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "error, code",
    [
        (ConfigError("bad\n field"), 2),
        (FileError("bad  field"), 3),
        (SomeFailed("bad field"), 4),
        (Preempted("bad field"), 75),
    ],
)
def test_an_expected_failure_is_one_line_with_its_code(error, code, capsys):
    assert console.run(raising(error), []) == code
    assert capsys.readouterr().err == "ukbob: bad field\n"


def test_a_mistake_of_ours_names_the_way_to_the_traceback(capsys):
    assert console.run(raising(KeyError("x")), []) == 1
    told = capsys.readouterr().err
    assert told == "ukbob: internal error: KeyError: 'x' Run again with --debug for the traceback.\n"
    assert console.run(raising(KeyError("x")), ["--debug"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_interruption_has_the_code_of_the_signal(capsys):
    assert console.run(raising(KeyboardInterrupt()), []) == 130
    assert "interrupted" in capsys.readouterr().err


def test_only_our_own_warnings_are_shown(capsys):
    console.warn(UserWarning("two\nlines"), UserWarning)
    console.warn(DeprecationWarning("old"), DeprecationWarning)
    console.warn(RuntimeWarning("nan"), RuntimeWarning)
    assert capsys.readouterr().err == "ukbob: warning: two lines\n"
