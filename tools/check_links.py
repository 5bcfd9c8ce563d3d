"""Every relative link of the README, CONTRIBUTING, findings and docs leads to a file, and its anchor to a heading.

    python -m tools.check_links

Links to other sites are not followed: the check needs no network.
"""

import pathlib
import re
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as hosting sites make them."""
    titles = re.findall(r"^#+\s+(.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken(page: pathlib.Path) -> Iterator[str]:
    """One line for each link of a page that leads nowhere."""
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            yield f"{page.relative_to(ROOT)}: {target}: no such file"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text()):
            yield f"{page.relative_to(ROOT)}: {target}: no such heading"


def main() -> int:
    pages = sorted(
        {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")}
        | {*ROOT.glob("experiments/*/README.md")}
    )
    lines = [line for page in pages for line in broken(page)]
    print("\n".join(lines) or f"{len(pages)} pages, every link leads somewhere")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
