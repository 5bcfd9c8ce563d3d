"""The notebook runs from top to bottom, and is stored without output."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

PATH = ROOT / "experiments" / "quickstart.ipynb"


def test_notebook_is_stored_without_output():
    cells = nbformat.read(PATH, as_version=4).cells
    assert any(cell.cell_type == "code" for cell in cells)
    for cell in cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom():
    notebook = nbformat.read(PATH, as_version=4)
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(PATH.parent)}}).execute()
    text = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "Dice of the liver" in text
