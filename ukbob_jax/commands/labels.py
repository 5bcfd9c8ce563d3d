"""List the structures: id, name, group, and the id each has in other label sets.

Where a data set cuts structures otherwise, `*` marks ids of its classes that only compare together with others
(lungs, vertebrae); `-` means that it has no such class.
"""

import argparse
import json
from typing import Any

from ukbob_jax import anatomy


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--dataset", choices=list(anatomy.DATASETS), help="show the classes of this label set"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> None:
    """Print the table."""
    rows = theirs(options.dataset) if options.dataset else ours()
    print(json.dumps(rows, indent=1) if options.json else table(rows))


def ours() -> list[dict[str, Any]]:
    """A row per id of ours, with its counterpart in every other label set."""
    groups = {i: group for group, ids in anatomy.GROUPS.items() for i in ids}
    maps = {dataset: anatomy.to_dataset(dataset) for dataset in anatomy.DATASETS}
    return [
        {"id": i, "name": name, "group": groups.get(i, "-")}
        | {dataset: counterpart(found, i) for dataset, found in maps.items()}
        for i, name in anatomy.NAMES.items()
    ]


def theirs(dataset: str) -> list[dict[str, Any]]:
    """A row per id of `dataset`, with our id."""
    found = anatomy.from_dataset(dataset)
    return [
        {"id": i, "name": name, "ours": counterpart(found, i), "our name": anatomy.NAMES.get(found.mapped.get(i), "-")}
        for i, name in anatomy.DATASETS[dataset].items()
    ]  # fmt: skip


def counterpart(found: anatomy.LabelMap, i: int) -> str:
    """The id in the other label set, `*` where several are possible, `-` where there is none."""
    if i == 0:
        return "0"
    return str(found.mapped[i]) if i in found.mapped else "*" if i in found.ambiguous else "-"


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as aligned columns under their names."""
    header = list(rows[0])
    cells = [header, *([str(row[name]) for name in header] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in cells)
