"""Dice on held-out scans: per organ, with and without the filter, and per scanner, with and without adaptation."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.errors import FileError
from ukbob_jax.evaluation import charts, failures, montages, organs, scoring, significance
from ukbob_jax.evaluation.metrics import bootstrap_interval
from ukbob_jax.evaluation.report import Picture, Section, Table
from ukbob_jax.evaluation.statistics import mean_defined
from ukbob_jax.store.reader import Store
from ukbob_jax.volumes.nifti import read_label_names, read_volume

OFF, ETTA = "off", "etta"
DISTANCES = (
    *("variant", "mean Dice", "95 % interval", "HD95 mm, where found", "HD95 failed", "HD95 mm, penalised"),
    "surface Dice",
)
ABOUT_DISTANCES = (
    "Over scans. HD95 failed where an organ is missed or invented, and has no value there; in the penalised mean it "
    "counts as the diagonal of the scan's field of view."
)


def rows_of(workdir: pathlib.Path, name: str) -> scoring.Rows:
    """Read the rows that `evaluate` wrote for the test set `name`."""
    return scoring.read_rows(workdir / "evaluation" / f"{name}.jsonl")


def defined_means(rows: scoring.Rows, method: str, by: str) -> dict[str, float]:
    """Return subject or organ -> mean Dice of those that have one, see `scoring.dice_means`."""
    return {key: dice for key, dice in scoring.dice_means(rows, method, by).items() if dice is not None}


def clean_section(variants: dict[str, scoring.Rows], methods: dict[str, str]) -> Section:
    """Show the Dice of every organ, of several variants, on the scanner of training.

    Args:
        variants: title -> rows.
        methods: title -> "off" or "etta", which of its rows are meant.
    """
    means = {title: defined_means(rows, methods[title], "organ") for title, rows in variants.items()}
    named = list(next(iter(means.values())))
    groups = {organ: {title: of.get(organ, np.nan) for title, of in means.items()} for organ in named}
    cells = [(organ, *groups[organ].values()) for organ in named]
    cells.append(("mean", *(float(np.nanmean(list(of.values()))) for of in means.values())))
    surface = [surface_row(title, rows, methods[title]) for title, rows in variants.items()]
    return Section(
        "Held-out scans",
        "Dice of every scored organ on bodies the network never saw, against their true labels.",
        tables=[
            Table(("organ", *means), cells),
            Table(DISTANCES, surface, ABOUT_DISTANCES),
            interval_table(variants, methods, named),
            *([paired_table(variants, methods)] if len(variants) > 1 else []),
        ],
        pictures=[Picture("organ_dice", charts.bars(groups, "Dice"), "Dice per organ; longer is better.")],
    )


def interval_table(variants: dict[str, scoring.Rows], methods: dict[str, str], named: list[str]) -> Table:
    """Give the 95 % interval of every organ's mean Dice."""
    tables = {title: organs.table(rows, methods[title]) for title, rows in variants.items()}
    cells = [
        (organ, *(interval(of[organ]["dice"]) if organ in of else None for of in tables.values()))
        for organ in named
    ]
    return Table(("organ", *tables), cells, "95 % bootstrap intervals of the mean Dice over scans.")


def paired_table(variants: dict[str, scoring.Rows], methods: dict[str, str]) -> Table:
    """Compare every variant with the first, scan by scan."""
    (first, before), *others = (
        (title, defined_means(rows, methods[title], "subject")) for title, rows in variants.items()
    )
    found = {title: significance.difference(before, after) for title, after in others}
    corrected = significance.corrected([row["p"] for row in found.values()], "holm")
    cells = [
        (f"{title} − {first}", row["count"], change(row["mean"]), interval(row, "+"), row["p"], p, row["d"])
        for (title, row), p in zip(found.items(), corrected)
    ]
    header = ("variants", "scans", "difference", "95 % interval", "p", "Holm's p", "Cohen's d")
    return Table(
        header, cells, "Mean Dice, scan by scan; p is two-sided, from random flips of the differences' signs."
    )


def interval(entry: Mapping[str, Any], sign: str = "") -> str | None:
    """Write `low` and `high` of an entry; None where it has none."""
    if entry["low"] is None or entry["high"] is None:
        return None
    return f"{entry['low']:{sign}.3f} to {entry['high']:{sign}.3f}"


def change(value: float | None) -> str | None:
    """Write a difference with its sign."""
    return None if value is None else f"{value:+.3f}"


def surface_row(title: str, rows: scoring.Rows, method: str) -> tuple[str | float | None, ...]:
    """Return the cells of `DISTANCES`: of the distances, where they were measured, also how many failed, and that mean."""
    scans = np.array(list(defined_means(rows, method, "subject").values()))
    low, high = bootstrap_interval(scans)
    own = [row for row in rows if row["method"] == method]
    hd95, nsd = (mean_defined([row.get(name) for row in own]) for name in ("hd95", "nsd"))
    found = failures.counts(own, "hd95")
    failed = str(found) if found.finite or found.failed else None
    penalised = failures.penalised_mean(own, "hd95")
    return title, float(scans.mean()), f"{low:.3f} to {high:.3f}", hd95, failed, penalised, nsd


def scanners_section(
    workdir: pathlib.Path, names: list[str], stores: dict[str, Store], label: str
) -> Section:
    """Show mean Dice per scanner without and with adaptation, and one scan of each."""
    cells, pictures, found = [], [], []
    for name in names:
        rows = rows_of(workdir, name)
        scans = [
            row
            for row in scoring.read_rows(workdir / "evaluation" / f"{name}.scans.jsonl")
            if row["method"] == ETTA
        ]
        off, on = (defined_means(rows, method, "subject") for method in (OFF, ETTA))
        found.append(significance.difference(off, on))
        accepted = f"{sum(row['accepted'] for row in scans)} of {len(scans)}"
        means = [float(np.mean(list(of.values()))) for of in (off, on)]
        cells.append((name, *means, accepted))
        picture = compared(workdir, name, stores[name], label)
        pictures.append(
            Picture(f"scanner_{name}", picture, f"{name}: image, truth, prediction without and with ETTA.")
        )
    corrected = significance.corrected([row["p"] for row in found], "holm")
    cells = [
        (*means, change(row["mean"]), interval(row, "+"), p, change(row["worst"]), accepted)
        for (*means, accepted), row, p in zip(cells, found, corrected)
    ]
    header = (
        *("scanner", "Dice, off", "Dice, ETTA", "mean change", "95 % interval", "Holm's p", "worst change"),
        "accepted",
    )
    return Section(
        "Other scanners",
        "The same bodies as another scanner would show them. The network was trained on none of these; ETTA adapts its "
        "norms to each scan before labelling it, and falls back to the trained ones where the result looks wrong.",
        tables=[
            Table(
                header, cells, "Over scans; the change is ETTA minus off, scan by scan; p over all scanners."
            )
        ],
        pictures=pictures,
    )


def compared(workdir: pathlib.Path, name: str, store: Store, label: str) -> bytes:
    """Draw the first test scan beside its truth and its predictions.

    Raises:
        FileError: `evaluate` kept no label map of this test set.
    """
    folder = workdir / "evaluation" / name
    kept = sorted(folder.glob(f"*_{OFF}.nii.gz"))
    if not kept:
        raise FileError(f"{folder}: no label maps. Run evaluate with --config.evaluate.pictures=1.")
    subject = kept[0].name.removesuffix(f"_{OFF}.nii.gz")
    image = np.asarray(store.read(subject, "image")[..., -2:][..., 0], np.float32)
    names = read_label_names(kept[0])
    ours = np.array(
        [anatomy.IDS.get(names.get(i, ""), 0) for i in range(256)], np.uint8
    )  # so that colours agree
    truth = store.read(subject, f"label/{label}")
    labels = [("truth", np.where(np.isin(truth, ours), truth, 0))]
    for method in (OFF, ETTA):
        labels.append((method, ours[read_volume(folder / f"{subject}_{method}.nii.gz", kind="label").array]))
    return montages.comparison(image, labels, store.rows[subject].spacing_mm, anatomy.COLORS)
