"""Where real scans lie, and what the tests ask of them."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def folder(name: str) -> pathlib.Path:
    """A folder of real scans; `UKBOB_REAL` overrides where they are. Skips the test where they are not."""
    found = pathlib.Path(os.environ.get("UKBOB_REAL", ROOT.parent / "shared" / "real")) / name
    if not found.is_dir():
        pytest.skip(f"no real scans here; set UKBOB_REAL to the folder that holds {name}")
    return found
