"""The names of the methods, for command lines and recipes."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from ukbob_jax.inference.adaptation import methods
from ukbob_jax.inference.adaptation.method_names import METHODS


def test_every_method_has_options_or_is_known_to_adapt_nothing():
    assert set(METHODS) == {*methods.OPTIONS, "off", "tta"} and len(set(METHODS)) == len(METHODS)
    assert METHODS[0] == "off"
    for name in METHODS:
        assert methods.Method.parse(name).name == name


@pytest.mark.parametrize("module", ["adaptation.method_names", "adaptation.options", "windows.window"])
def test_what_a_command_line_needs_imports_no_jax(module):
    code = f"import sys, ukbob_jax.inference.{module}; print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.strip() == "False"
