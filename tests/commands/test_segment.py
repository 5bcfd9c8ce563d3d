"""Reading the command line of `ukbob segment`; what it writes is tested in tests/test_cli.py."""

import argparse
import subprocess
import sys

import pytest

from ukbob_jax.commands.segment import options as segment
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation.method_names import METHODS


def parse(*words):
    parser = argparse.ArgumentParser(exit_on_error=False)
    segment.add_options(parser)
    return parser.parse_args(["IN", "OUT", *words])


@pytest.mark.parametrize(
    "words, expected",
    [
        ((), {"method": "off"}),
        (("--adapt",), {"method": "etta"}),
        (("--adapt", "tent", "--learning-rate", "0.1"), {"method": "tent", "learning_rate": 0.1}),
        (("--method", "etta", "--steps", "3"), {"method": "etta", "steps": 3}),
        *((("--method", name), {"method": name}) for name in METHODS),
    ],
)
def test_adapt_and_method_name_the_same(words, expected):
    assert segment.method_options(parse(*words)) == expected


def test_settings_of_another_method_are_refused():
    with pytest.raises(ConfigError, match="--steps goes with --method etta or tent"):
        segment.method_options(parse("--method", "tta", "--steps", "3"))
    with pytest.raises(argparse.ArgumentError, match="not allowed with argument"):
        parse("--method", "bn", "--adapt")


def test_help_loads_no_jax():
    code = "import sys; from ukbob_jax.commands import segment; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
