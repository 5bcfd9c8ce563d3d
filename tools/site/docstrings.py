"""Docstrings of this project, which read like Markdown, as reStructuredText for Sphinx's autodoc."""

import re

from tools.site import comments
from ukbob_jax import errors

SECTIONS = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|Note|Example)s?:", re.MULTILINE)
CODE = re.compile(r"(`+)(.+?)\1")


def on_docstring(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Sphinx's event `autodoc-process-docstring`, before napoleon's."""
    if isinstance(obj, type) and not any(SECTIONS.match(line) for line in lines):
        lines += _fields(obj)
    lines[:] = _literal(lines) if what == "module" else _sections([escaped(line) for line in lines])


def _sections(lines: list[str]) -> list[str]:
    """Errors by their full names; what is returned as prose, whose colons end no type."""
    made: list[str] = []
    section = ""
    for line in lines:
        if match := re.match(r"(\w+):$", line):
            section = match[1]
        elif section == "Raises":
            line = re.sub(r"\b[A-Z]\w+Error\b(?=.*:)", lambda name: _error(name[0]), line)
        elif section == "Returns" and made[-1] == "Returns:" and ":" in line:
            made.append("    \\")
        made.append(line)
    return made


def _error(name: str) -> str:
    return f"~{errors.__name__}.{name}" if hasattr(errors, name) else name


def _literal(lines: list[str]) -> list[str]:
    """Of a module: paragraphs as they are, indented blocks (commands, lists of files) as they stand."""
    made: list[str] = []
    inside = False
    for line in lines:
        indented = line.startswith("  ") or (inside and not line.strip())
        if indented and not inside:
            made += ["", "::", ""]
        elif inside and not indented:
            made.append("")
        inside = indented
        made.append(line if inside else escaped(line))
    return made


def on_skip(app: object, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Sphinx's event `autodoc-skip-member`: no fields of tuples, which their class lists, and nothing of libraries."""
    said = getattr(obj, "__doc__", None) or ""
    return True if said.startswith("Alias for field number") else None


def escaped(line: str) -> str:
    """One line: code in double backticks, and no other sign that reStructuredText would read."""
    found, at = [], 0
    for match in CODE.finditer(line):
        found += [_plain(line[at : match.start()]), _code(line, match)]
        at = match.end()
    return "".join([*found, _plain(line[at:])])


def _code(line: str, match: re.Match[str]) -> str:
    before = "\\ " if match.start() and line[match.start() - 1].isalnum() else ""
    after = "\\ " if line[match.end() : match.end() + 1].isalnum() else ""
    return f"{before}``{match[2]}``{after}"


def _plain(text: str) -> str:
    text = text.replace("\\", "\\\\")
    text = re.sub(r"([*|`])", r"\\\1", text)
    return re.sub(r"(?<=\w)_(?!\w)", r"\\_", text)


def _fields(kind: type) -> list[str]:
    """The section "Attributes:" of a class whose fields have comments instead."""
    found = comments.attributes(kind) if kind.__module__.startswith("ukbob_jax") else {}
    return ["", "Attributes:", *(f"    {name}: {text}" for name, text in found.items()), ""] if found else []
