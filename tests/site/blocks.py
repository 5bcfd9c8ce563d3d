"""The code of the documentation: blocks, and the commands in them."""

import pathlib
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from markdown_it import MarkdownIt

from tests.conftest import ROOT

PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("*/README.md"),
        *ROOT.glob("*/*/README.md"),
    ]
)
MARK = re.compile(r"<!-- not run: ([^>]+?) -->")
SHELL = ("", "bash", "indented")


class Block(NamedTuple):
    """A block of code on a page."""

    page: pathlib.Path
    line: int
    kind: str  # its language; "indented"
    text: str
    reason: str  # why it is not run; empty: it is


def name(page: pathlib.Path) -> str:
    """A page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: pathlib.Path) -> Iterator[Block]:
    """Every block of a page, fenced or indented; directives of the site are none."""
    reason = ""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "html_block":
            mark = MARK.search(token.content)
            reason = mark[1] if mark else ""
        elif token.type in ("fence", "code_block"):
            kind = token.info.split()[0] if token.info else "indented" if token.type == "code_block" else ""
            if not kind.startswith("{"):
                yield Block(page, (token.map or [0])[0] + 1, kind, token.content, reason)
            reason = ""
        elif token.nesting >= 0 and token.type != "inline":
            reason = ""


def commands(block: Block) -> Iterator[list[str]]:
    """The words of every command of a shell block: variables filled in, what stands in [brackets] taken too."""
    values: dict[str, str] = {}
    text = re.sub(r"\\\n\s*", " ", block.text)
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if assigned := re.match(r"(?:export )?([A-Z]+)=(\"[^\"]*\"|'[^']*')$", line):
            values[assigned[1]] = assigned[2][1:-1]
            continue
        if block.kind != "bash":
            line = re.split(r"\s{3,}", line)[0]  # what it does, in words, stands beside it
        line = re.sub(r"\$([A-Z]+)", lambda name: values.get(name[1], name[0]), line)
        line = re.sub(r"\[(--[^\]]+)\]", r"\1", line)
        for part in re.split(r"\s(?:&&|\|\||\|)\s", line):
            if words := shlex.split(part, comments=True):
                yield words
