"""A room imports only from rooms above it in the table of docs/architecture.md, inside functions too."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

ROOMS = (  # in the order data meets them; the first ten are tools that any room may use
    "errors", "stopping", "advice", "files", "console", "progress", "processes", "cluster", "failures", "options",
    "run_lock", "anatomy", "mirroring", "regions", "volumes", "diffusion", "phantom", "store", "splits", "export2d",
    "sources",
    "quality", "radiomics", "data", "models.kernels", "models", "networks", "training", "weights", "evaluation", "sentinel",
    "inference", "labelling", "devices", "settings", "active", "jobs", "commands", "cli", "main",
)  # fmt: skip
ORDER = {room: place for place, room in enumerate(ROOMS)}
FILES = sorted((ROOT / "ukbob_jax").rglob("*.py"))


def imports(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name, below the package, of everything that a file imports from it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("ukbob_jax.") and name != "ukbob_jax.__version__":
                yield node.lineno, name.removeprefix("ukbob_jax.")


def room(name: str) -> str:
    """Where a dotted name lives: the longest entry of the table that it begins with."""
    return max((r for r in ROOMS if f"{name}.".startswith(f"{r}.")), key=len, default="")


def dotted(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT / "ukbob_jax").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_a_room_imports_from_rooms_above_it_only(path):
    here = dotted(path)
    if not here:
        pytest.skip("the package itself hands out names of every room")
    assert room(here), f"{here} is in no room: give it a place in the table"
    for line, name in imports(path):
        assert ORDER[room(name)] <= ORDER[room(here)], (
            f"{path}:{line}: {room(here)} imports {name}, a room below"
        )


@pytest.mark.parametrize("family", ["jobs", "models", "commands"])
def test_members_of_a_family_do_not_import_each_other(family):
    """Jobs, backbones, commands; the demo alone is a list of jobs."""
    members = {path.name for path in (ROOT / "ukbob_jax" / family).iterdir() if path.is_dir()}
    members |= (
        {path.stem for path in (ROOT / "ukbob_jax" / family).glob("*.py")} if family != "models" else set()
    )
    for path in (ROOT / "ukbob_jax" / family).rglob("*.py"):
        own = path.relative_to(ROOT / "ukbob_jax" / family).parts[0].removesuffix(".py")
        for line, name in imports(path):
            parts = name.split(".")
            other = parts[1] if parts[0] == family and len(parts) > 1 else own
            allowed = {own, "kernels"} if own != "demo" else members
            assert other not in members - allowed, f"{path}:{line}: {family}.{own} imports {name}"
