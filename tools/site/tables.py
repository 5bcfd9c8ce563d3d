"""Tables of Markdown."""

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


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
