"""How `ukbob info` lays out what it knows; what it knows of this machine is tested in tests/test_cli.py."""

import argparse
import json

import pytest

from ukbob_jax.commands import info
from ukbob_jax.errors import FileError


def test_nested_values_are_indented_and_lists_are_on_one_line():
    found = {"a": 1, "b": {"c": ["x", "y"], "d": {"e": None}}, "f": (1.5, 2)}
    assert info.lines(found) == ["a: 1", "b:", "  c: x, y", "  d:", "    e: None", "f: 1.5, 2"]


def test_a_workdir_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(FileError, match="no folder checkpoints in it"):
        info.card(str(tmp_path), "best")


def test_json_and_text_hold_the_same(monkeypatch, capsys):
    monkeypatch.setattr(info, "system", lambda: {"python": "3", "devices": ["cpu:0"]})
    monkeypatch.setattr(info, "card", lambda workdir, which: {"workdir": workdir, "checkpoint": which})
    parser = argparse.ArgumentParser()
    info.add_options(parser)
    info.run(parser.parse_args(["w", "--which", "latest", "--json"]))
    expected = {"python": "3", "devices": ["cpu:0"], "model": {"workdir": "w", "checkpoint": "latest"}}
    assert json.loads(capsys.readouterr().out) == expected
    info.run(parser.parse_args([]))
    assert capsys.readouterr().out.splitlines() == ["python: 3", "devices: cpu:0"]
