"""One self-contained HTML page from text, tables and pictures; the PNGs also lie beside it."""

import base64
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jinja2

from ukbob_jax import files


class Picture(NamedTuple):
    """A PNG with the name of its file and what a reader should see in it."""

    name: str
    png: bytes
    caption: str


class Table(NamedTuple):
    """Cells as text or numbers; numbers are shown with three decimals."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | float]]
    caption: str = ""


class Section(NamedTuple):
    """A heading, a paragraph, and the tables and pictures that belong to it."""

    title: str
    text: str
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    link: tuple[str, str] = ("", "")  # of a page below this one, and what is there


def cell(value: str | float | None) -> str:
    """A table cell's text: numbers with three decimals, whole ones without, nothing for a missing value."""
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)


def write(folder: str | pathlib.Path, title: str, lead: str, sections: Sequence[Section]) -> pathlib.Path:
    """Write `index.html` and the pictures into `folder`; return the page's path.

    Raises:
        FileError: the folder cannot be written.
    """
    folder = pathlib.Path(folder)
    for section in sections:
        for picture in section.pictures:
            files.write_bytes(folder / f"{picture.name}.png", picture.png)
    source = (pathlib.Path(__file__).parent / "report.html").read_text()
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    html = page.render(title=title, lead=lead, sections=sections, cell=cell, inline=_inline)
    files.write_bytes(folder / "index.html", html.encode())
    return folder / "index.html"


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
