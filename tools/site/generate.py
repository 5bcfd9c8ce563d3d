"""Fills `<!-- generated: NAME -->` in a page with what the code says, or with a page from outside `docs`: `docs/conf.py`."""

import os
import pathlib
import re
from collections.abc import Callable, Mapping

from tools.check_links import LINK, ROOT
from tools.site import api, commands, formats, recipes

MARK = re.compile(r"^<!-- generated: (.+) -->$", re.MULTILINE)
DOCS = ROOT / "docs"


def other_pages() -> str:
    """A table of contents of the pages in `docs` that no other page lists, such as those of a part added since."""
    listed = "\n".join((DOCS / name).read_text() for name in ("index.md", "explanation.md"))
    pages = sorted(path.stem for path in DOCS.glob("*.md"))
    rest = [page for page in pages if page != "index" and not re.search(rf"^{page}$", listed, re.MULTILINE)]
    return "\n".join(["```{toctree}", ":maxdepth: 1", ":caption: More", "", *rest, "```"]) if rest else ""


PARTS: Mapping[str, Callable[[], str]] = {
    "config.shared": recipes.shared,
    "config.models": recipes.models,
    "config.pretrain": recipes.pretraining,
    "config.recipes": recipes.each,
    "commands.ukbob": commands.everyday,
    "commands.main": commands.training,
    "exit codes": commands.exits,
    "formats": formats.all_formats,
    "other pages": other_pages,
    **{f"api {name}": part for name, part in api.parts().items()},
}
OUTSIDE = {  # page of the repository -> page of the site that shows it
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "experiments/openmind/README.md": "evidence/openmind.md",
    "experiments/robustness/README.md": "evidence/robustness.md",
    "experiments/robustness/results/table.md": "evidence/robustness_table.md",
    "experiments/scaling/README.md": "evidence/scaling.md",
    "experiments/sentinel/README.md": "evidence/sentinel.md",
    "experiments/solf/README.md": "evidence/solf.md",
    "findings/README.md": "evidence/findings.md",
}


def filled(text: str, page: pathlib.Path) -> str:
    """A page with its marks replaced, whose links stay on the site.

    Args:
        text: of the page.
        page: its file.
    Raises:
        KeyError: a mark names nothing that can be generated.
    """
    text = relinked(text, page.parent, page.parent)
    return MARK.sub(lambda mark: _part(mark[1], page), text)


def _part(name: str, page: pathlib.Path) -> str:
    if name in OUTSIDE:
        file = ROOT / name
        return relinked(file.read_text(), file.parent, page.parent)
    return PARTS[name]()


def relinked(text: str, here: pathlib.Path, there: pathlib.Path) -> str:
    """Text whose relative links, made for a file in `here`, lead to the same from one in `there`.

    Links to pages that the site shows elsewhere lead there.
    """

    def link(match: re.Match[str]) -> str:
        target = match[1]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, hash_, anchor = target.partition("#")
        file = (here / path).resolve()
        shown = OUTSIDE.get(os.path.relpath(file, ROOT))
        file = DOCS / shown if shown else file
        return match[0].replace(f"({target})", f"({os.path.relpath(file, there)}{hash_}{anchor})")

    return LINK.sub(link, text)


def on_source_read(app: object, page: str, source: list[str]) -> None:
    """Sphinx's event `source-read`."""
    source[0] = filled(source[0], DOCS / f"{page}.md")
