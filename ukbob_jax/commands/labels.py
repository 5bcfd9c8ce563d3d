"""List the structures: id, name, group, and the id each has in other label sets.

Where a data set cuts structures otherwise, `*` marks ids of its classes that only compare together with others
(lungs, vertebrae); `-` means that it has no such class.
"""

import argparse
import json
from typing import Any

from ukbob_jax import anatomy, console


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--dataset", choices=list(anatomy.DATASETS), help="show the classes of this label set"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> None:
    """Print the table."""
    rows = dataset_rows(options.dataset) if options.dataset else taxonomy_rows()
    print(json.dumps(rows, indent=1) if options.json else table(rows))


def taxonomy_rows() -> list[dict[str, Any]]:
    """A row per id of `anatomy`, with its counterpart in every other label set."""
    groups = {i: group for group, ids in anatomy.GROUPS.items() for i in ids}
    maps = {dataset: anatomy.to_dataset(dataset) for dataset in anatomy.DATASETS}
    return [
        {"id": i, "name": name, "group": groups.get(i, "-")}
        | {dataset: counterpart(label_map, i) for dataset, label_map in maps.items()}
        for i, name in anatomy.NAMES.items()
    ]


def dataset_rows(dataset: str) -> list[dict[str, Any]]:
    """A row per id of `dataset`, with its counterpart in `anatomy`."""
    label_map = anatomy.from_dataset(dataset)
    rows = []
    for i, name in anatomy.DATASETS[dataset].items():
        row = {"id": i, "name": name, "ours": counterpart(label_map, i)}
        rows.append(row | {"our name": anatomy.NAMES.get(label_map.mapped.get(i, -1), "-")})
    return rows


def counterpart(label_map: anatomy.LabelMap, i: int) -> str:
    """The id in the other label set, `*` where several are possible, `-` where there is none."""
    if i == 0:
        return "0"
    return str(label_map.mapped[i]) if i in label_map.mapped else "*" if i in label_map.ambiguous else "-"


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as aligned columns under their names."""
    header = list(rows[0])
    return console.aligned([header, *([str(row[name]) for name in header] for row in rows)])
