"""Tables of Markdown."""

import re
import textwrap
from collections.abc import Iterable, Sequence

LONGEST = 60  # characters of a default; a longer one is cut


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; signs that would end a cell are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def code(text: str) -> str:
    """Text set as code, cut where it is long; empty stays empty."""
    short = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return f"`{short}`" if short else ""


def prose(docstring: str) -> str:
    """A docstring as Markdown: paragraphs as such, indented blocks (commands, lists of files) as they stand."""
    made = []
    for lines in _runs(docstring.strip("\n").splitlines()):
        text = textwrap.dedent("\n".join(lines)).strip("\n")
        made.append(f"```text\n{text}\n```" if lines[0].startswith(" ") else plain(text))
    return "\n\n".join(made)


def _runs(lines: list[str]) -> list[list[str]]:
    """Lines in runs that are indented or not; empty ones end a run only where the next is of the other kind."""
    runs: list[list[str]] = []
    for line in lines:
        if runs and (not line.strip() or line.startswith(" ") == runs[-1][0].startswith(" ")):
            runs[-1].append(line)
        elif line.strip():
            runs.append([line])
    return runs


def plain(text: str) -> str:
    """Prose of the code as Markdown: values in quotes set as code, links to pages, no sign read as Markdown's own."""
    parts = re.split(r"(`[^`]*`)", text)
    for at in range(0, len(parts), 2):
        part = re.sub(r"docs/(\w+)\.md", r"[\1](../\1.md)", parts[at])
        part = re.sub(r"(?<!\w)\*(?=\w)|<(?=\w)|(?<=\w)\*\*(?=\w)", lambda sign: f"\\{sign[0]}", part)
        parts[at] = re.sub(r'"[^"\n]*"|(?<!\w)--[a-z][\w-]*', lambda value: f"`{value[0]}`", part)
    return "".join(parts)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
