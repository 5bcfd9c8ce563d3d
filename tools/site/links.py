"""Every link within a built site leads to a file of it, and its anchor to an element.

    python -m sphinx -W docs build/site && python -m tools.site.links build/site

Links to other sites are counted, not followed: the check needs no network.
"""

import html.parser
import pathlib
import sys
import urllib.parse
from typing import NamedTuple


class Page(html.parser.HTMLParser):
    """What a page links to, and the names of its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one element."""
        for name, value in attrs:
            if name == "id" and value:
                self.names.add(value)
            if name in ("href", "src") and value and tag != "base":
                self.links.append(value)


class Found(NamedTuple):
    """The links of a site."""

    pages: int
    inner: int  # links within the site
    outer: int  # to other sites
    broken: list[str]


def check(folder: pathlib.Path) -> Found:
    """Follow every link of the pages in a folder."""
    pages = {path.resolve(): Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}
    inner, outer, broken = 0, 0, []
    for path, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                outer += not link.startswith("data:")
                continue
            inner += 1
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            anchor = urllib.parse.unquote(parts.fragment)
            if not target.is_file():
                broken.append(f"{path.relative_to(folder.resolve())}: {link}: no such file")
            elif anchor and target in pages and anchor not in pages[target].names:
                broken.append(f"{path.relative_to(folder.resolve())}: {link}: no such element")
    return Found(len(pages), inner, outer, broken)


def main() -> int:
    folder = pathlib.Path(sys.argv[1])
    found, files = check(folder), [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    print("\n".join(found.broken) or f"{found.inner} links within {found.pages} pages lead somewhere")
    print(f"{found.outer} links to other sites were not followed; {len(files)} files, {size:.1f} MB")
    return int(bool(found.broken) or not found.pages)


if __name__ == "__main__":
    sys.exit(main())
