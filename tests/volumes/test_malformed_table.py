"""The page on ingestion says of malformed files what the reader says."""

import importlib.util

from tests.conftest import ROOT


def test_the_page_shows_what_the_reader_says():
    spec = importlib.util.spec_from_file_location("malformed_table", ROOT / "tools" / "malformed_table.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    _, shown, _ = tool.parts(tool.PAGE.read_text())
    assert shown == tool.table(), "run: python tools/malformed_table.py --write"
    assert shown.count("\n") > 50
