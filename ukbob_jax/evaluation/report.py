"""One self-contained HTML page from text, tables and pictures; the PNGs also lie beside it."""

import base64
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

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
    rows: Sequence[Sequence[str | float | None]]
    caption: str = ""


class Section(NamedTuple):
    """A heading, a paragraph, and the tables and pictures that belong to it."""

    title: str
    text: str
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    link: tuple[str, str] = ("", "")  # of a page below this one, and what is there


def cell(value: str | float | None) -> str:
    """Format a table cell: numbers with three decimals, whole ones without, nothing for a missing value."""
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
    html = render("report.html", title=title, lead=lead, sections=sections, cell=cell, inline=_inline)
    files.write_bytes(folder / "index.html", html.encode())
    return folder / "index.html"


def render(template: str, **values: Any) -> str:
    """Fill in one of the HTML templates beside this file.

    Text is escaped. `{{ value | tojson }}` writes JSON that can stand inside a script: `<`, `>`, `&` and `'` are
    escaped, keys keep their order.

    Raises:
        ValueError: a number that is to be JSON is NaN or infinite.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template(template).render(values)


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
