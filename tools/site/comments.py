"""What the source says of a value: the comment beside it, or the line of its class's docstring."""

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any, NamedTuple

ROOTS = {"config": "", "model": "model.", "source": "source."}  # names of variables in recipes -> section


def by_line(source: str) -> dict[int, str]:
    """Line number -> comment on it, without its sign."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").rstrip() for t in tokens if t.type == tokenize.COMMENT}


def beside(node: ast.stmt, comments: dict[int, str], lines: list[str]) -> str:
    """The comment of a statement: those within its lines, else those alone on the lines above it."""
    first, last = node.lineno, node.end_lineno or node.lineno
    within = [comments[line] for line in range(first, last + 1) if line in comments]
    if found := " ".join(text for text in within if not text.startswith("fmt:")):
        return found
    above: list[str] = []
    while first > 1 and lines[first - 2].lstrip().startswith("#"):
        first -= 1
        above.insert(0, comments[first])
    return " ".join(above)


class Assigned(NamedTuple):
    """One `config.a.b = value  # comment` of a recipe."""

    function: str
    name: str  # dotted, without `config.`
    comment: str
    value: ast.expr

    def is_of(self, value: Any) -> bool:
        """Whether this may have set a field that has `value`: the same literal, or something that is computed."""
        try:
            return bool(ast.literal_eval(self.value) == value)
        except (ValueError, TypeError):
            return True


def assigned(source: str) -> Iterator[Assigned]:
    """Every assignment to a field in a recipe's source."""
    comments, lines = by_line(source), source.splitlines()
    for function in ast.parse(source).body:
        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if name := _dotted(target):
                        comment = beside(node, comments, lines)
                        yield Assigned(getattr(function, "name", ""), name, comment, node.value)


def _dotted(node: ast.expr) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return (
        ROOTS[node.id] + ".".join(parts) if parts and isinstance(node, ast.Name) and node.id in ROOTS else ""
    )


def attributes(kind: type) -> dict[str, str]:
    """What docstrings of a class and its bases say of its fields; a comment beside a field where they are silent."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("ukbob_jax"):
            found |= _commented(base) | _documented(inspect.getdoc(base) or "")
    return found


def _documented(docstring: str) -> dict[str, str]:
    """Name -> text of the section "Attributes:", or "Args:" of a module's class."""
    section = re.search(r"^(?:Attributes|Args):\n((?:[ ]+.*\n?|\n)*)", docstring, re.MULTILINE)
    entries = re.split(r"^(?=\w)", textwrap.dedent(section[1]), flags=re.MULTILINE) if section else []
    pairs = (entry.partition(":") for entry in entries if ":" in entry)
    return {name.strip(): " ".join(text.split()) for name, _, text in pairs}


def _commented(kind: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return {}
    comments, lines, found = by_line(source), source.splitlines(), {}
    for node in getattr(ast.parse(source).body[0], "body", ()):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = beside(node, comments, lines)
    return {name: text for name, text in found.items() if text}
