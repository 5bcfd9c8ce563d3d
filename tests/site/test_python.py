"""Python in the documentation runs, page by page; of what cannot run here the names of the package exist."""

import ast

import numpy as np
import pytest

import ukbob_jax
from tests.inference import checkpoint
from tests.inference.networks import scan
from tests.site.blocks import PAGES, blocks, name
from ukbob_jax import cli
from ukbob_jax.volumes import layouts
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.volume import Volume

BLOCKS = [block for page in PAGES for block in blocks(page) if block.kind == "python"]
RUN = sorted({name(block.page) for block in BLOCKS if not block.reason})
SAVED = {
    "own_backbone.md": "mine/my_network.py",
    "own_layout.md": "hospital.py",
}  # first block of a page -> its file


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a scan and a small trained network, as pages call them."""
    write_volume(tmp_path / "scan.nii.gz", scan())
    write_volume(tmp_path / "labels.nii.gz", Volume((scan().array // 20).astype(np.uint8), scan().affine))
    for folder in ("runs/demo", "runs/mine"):
        checkpoint.save(tmp_path / folder, {0: "background", 1: "liver", 2: "spleen"}, favoured=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("UKBOB_CACHE", "off")
    return tmp_path


@pytest.mark.parametrize("page", RUN)
def test_python_of_a_page_runs(page, here, capsys, quick_compilation):
    names: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(b for b in BLOCKS if name(b.page) == page):
        if number == 0 and block.page.name in SAVED:
            (here / SAVED[block.page.name]).parent.mkdir(exist_ok=True)
            (here / SAVED[block.page.name]).write_text(block.text)
        elif not block.reason:
            exec(compile(block.text, f"{page}:{block.line}", "exec"), names)
    out = capsys.readouterr().out
    if page == "docs/start/first_scan.md":
        assert "(11, 9, 10)" in out and (here / "labels.nii.gz").exists()
    if page == "docs/howto/own_backbone.md":
        assert "(1, 8, 8, 8, 3)" in out
    if page == "docs/howto/own_objective.md":
        assert all(float(word) > 0 for word in out.split())


def test_the_layout_of_the_page_is_one(here, monkeypatch, capsys):
    block = next(block for block in BLOCKS if block.page.name == "own_layout.md")
    (here / "hospital.py").write_text(block.text)
    monkeypatch.setattr(layouts, "__path__", [*layouts.__path__, str(here)])
    write_volume(here / "patients" / "p1" / "mr.nii.gz", scan())
    (here / "patients" / "p2").mkdir()
    assert cli.main(["check", str(here / "patients"), "--layout", "hospital"]) == 4
    out = capsys.readouterr().out
    assert "ok   p1" in out and "BAD  p2" in out and "no mr.nii.gz" in out


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{name(block.page)}:{block.line}")
def test_names_of_the_package_exist(block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("bob."):
            found = ukbob_jax
            for part in ast.unparse(node).split(".")[1:]:
                if isinstance(found, type(ukbob_jax)):
                    assert hasattr(found, part), f"{name(block.page)}:{block.line}: no {ast.unparse(node)}"
                    found = getattr(found, part)
