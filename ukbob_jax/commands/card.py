"""Describe a store: counts, contrasts, spacings, label sets, groups of people, licences and known issues.

The card is counted from the manifest; no voxel is read, and nothing of a single person is told: groups of fewer than five
people are put together, ages are bands of ten years. Licences and issues are those of the public data sets that the store
was made from, as ingestion noted them; name them with --dataset for stores of older versions, or where layout and label
set do not tell. Printed as Markdown, or with --json as JSON; --out FOLDER writes card.md and card.json.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ukbob_jax import files
from ukbob_jax.errors import ConfigError
from ukbob_jax.sources.known_issues import DATASETS, WRITTEN
from ukbob_jax.volumes import sets


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("store", help="folder or URL of a store")
    parser.add_argument(
        "--dataset", nargs="+", default=[], metavar="KEY",
        help=f"public data sets that it was made from: {', '.join(DATASETS)}",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    parser.add_argument("--out", metavar="FOLDER", help="also write card.md and card.json into it")


def run(options: argparse.Namespace) -> None:
    """Print the card.

    Raises:
        ConfigError: an unknown data set.
        FileError: no store, or a damaged one.
    """
    from ukbob_jax.store import card, origins
    from ukbob_jax.store.reader import Store

    if unknown := [key for key in options.dataset if key not in DATASETS]:
        raise ConfigError(f"--dataset {unknown[0]}: unknown; choose from {', '.join(DATASETS)}.")
    store = Store.open(options.store)
    rows = list(store.rows.values())
    keys = sorted({*origins.read(options.store), *options.dataset} & DATASETS.keys())
    found = {
        "store": pathlib.PurePath(options.store).name,
        **card.describe(rows),
        "remarks_of_the_set": sets.unlike(rows),
        "datasets": {key: dataclasses.asdict(DATASETS[key]) for key in keys},
        "terms_written": WRITTEN,
    }
    text = markdown(found)
    if options.out:
        folder = pathlib.Path(options.out)
        files.write_json(folder / "card.json", found)
        files.write_bytes(folder / "card.md", text.encode())
    print(json.dumps(found, indent=1) if options.json else text, end="\n" if options.json else "")


def markdown(found: Mapping[str, Any]) -> str:
    """Write the card as Markdown."""
    splits, contrasts, modalities, units = (
        _counts(found[name]) for name in ("splits", "contrasts", "modalities", "units")
    )
    lines = [
        f"# {found['store']}",
        "",
        f"{found['subjects']} subjects of {found['persons']} persons. Splits: {splits}. Modalities: {modalities}. "
        f"Units: {units}.",
        "",
        f"Contrasts (subjects): {contrasts}.",
        "",
        *_table(
            ("x y z", "least", "median", "most"),
            [
                (
                    name.replace("_", " "),
                    *(" ".join(f"{v:g}" for v in found[name][key]) for key in found[name]),
                )
                for name in ("spacing_mm", "shape", "extent_mm")
            ],
        ),
        "## Label sets",
        "",
        *_label_sets(found["label_sets"]),
        "## People",
        "",
        *_people(found["people"]),
        "## Licences and known issues",
        "",
        *_datasets(found),
        "## Remarks",
        "",
        *_list(
            [
                *(f"{count} scans: {text}" for text, count in found["remarks"].items()),
                *found["remarks_of_the_set"],
            ]
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _label_sets(sets_: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not sets_:
        return ["None.", ""]
    lines = []
    for name, found in sets_.items():
        partial = f"; {found['partial']} annotated for some classes only" if found["partial"] else ""
        lines += [
            f"**{name}**, {found['subjects']} subjects{partial}. Classes (subjects): {_counts(found['classes'])}.",
            "",
        ]
    return lines


def _people(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not groups:
        return ["Sex, age and site are not known.", ""]
    rows = [
        (attribute, _counts(found["groups"]), found["in_small_groups"], found["unknown"])
        for attribute, found in groups.items()
    ]
    return _table(("attribute", "groups (persons)", "in groups of fewer than 5", "not known"), rows)


def _datasets(found: Mapping[str, Any]) -> list[str]:
    if not found["datasets"]:
        return [
            "Which public data sets this store was made from is not known; name them with `ukbob card STORE --dataset KEY`.",
            "",
        ]
    lines = [f"As stated by {found['terms_written']}; the makers' own words count.", ""]
    for said in found["datasets"].values():
        lines += [
            f"**{said['title']}**: {said['licence']}. Access: {said['access']}. Labels: {said['labels']}.",
            "",
        ]
        lines += _list([f"{i['kind']}: {i['text']} ({i['date']}, {i['source']})" for i in said["issues"]])
    return lines


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items()) or "none"


def _list(items: Sequence[str]) -> list[str]:
    return [*(f"- {item}" for item in items or ["none known"]), ""]


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [*("| " + " | ".join(map(str, cells)) + " |" for cells in lines), ""]
