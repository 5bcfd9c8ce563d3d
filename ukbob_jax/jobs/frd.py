"""How far two sets of scans are apart: Frechet radiomic distance between stores, label sets, splits, sites or scanners.

Written to `{workdir}/frd`:

    index.html, *.png   the distance with its interval, which features move most, which scans stand out
    frd.json            the same as numbers
    shifts.csv          per feature: shift of its mean in reference standard deviations, log2 ratio of spreads
    scores.csv          per scan of the second set: distance to the reference's mean, p, whether beyond the threshold

Features are kept in `quality/<label set>/frd_rows*.jsonl` inside the stores, by version of image and labels; the same
command resumes. A large set is measured by several processes, each with its share (`config.frd.process` of `.processes`).
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from ukbob_jax import advice, files, processes
from ukbob_jax import options as fields_of
from ukbob_jax.data.options import Config
from ukbob_jax.errors import ConfigError, FileError, ValuesError
from ukbob_jax.evaluation import report
from ukbob_jax.evaluation.pages import frd as page
from ukbob_jax.failures import Failures
from ukbob_jax.radiomics import store_vectors
from ukbob_jax.radiomics.frd import align, compare, shifts
from ukbob_jax.radiomics.frd_options import FrdOptions
from ukbob_jax.radiomics.ood import Detector
from ukbob_jax.radiomics.store_vectors import Group
from ukbob_jax.radiomics.uncertainty import certainty
from ukbob_jax.store.reader import Store


def run(config: Config, workdir: str) -> None:
    """Measure the two sets that `config.frd` names, and compare them.

    Raises:
        ConfigError: a set is empty, both are the same, or an option is none.
        FileError: no store, or all scans failed.
        ValuesError: fewer than two scans of the reference could be measured.
        SomeFailed: some scans failed; `failures.jsonl` in the workdir lists them.
    """
    with advice.fields("frd", fields_of.names(FrdOptions)):
        options = FrdOptions(**config.frd)
        distance(config.store, config.label, options, workdir, pathlib.Path(workdir) / "frd")


def distance(path: str, label: str, options: FrdOptions, workdir: str, folder: pathlib.Path) -> None:
    """Measure and compare; see `run`.

    Args:
        path: of the reference's store.
        label: its label set.
        options: which two sets, and how.
        workdir: folder of `failures.jsonl`.
        folder: of the page and its tables.
    """
    groups = _groups(path, label, options)
    sharded = options.processes > 1
    part = f".{options.process}-of-{options.processes}" if sharded else ""
    failures = Failures(pathlib.Path(workdir) / f"failures{part}.jsonl", "scans", FileError)
    tables, total = [], 0
    for group in groups:
        mine = processes.shard(group.subjects, options.process, options.processes)
        found, errors = store_vectors.measured(
            dataclasses.replace(group, subjects=tuple(mine)), options.version, part
        )
        for subject, error in errors.items():
            failures.add(subject, "", "measure", error)
        tables.append(found)
        total += len(mine)
    if not sharded and all(tables):
        write(folder, options, groups, tables)
    failures.conclude(total)


def _groups(path: str, label: str, options: FrdOptions) -> tuple[Group, Group]:
    """The reference and the other set."""
    store = Store.open(path)
    other = Store.open(options.other) if options.other else store
    labels = label, options.other_label or label
    contrasts = options.contrast, options.other_contrast or options.contrast
    groups = tuple(
        store_vectors.group(s, label, where, field, contrast, options.organ)
        for s, label, where, field, contrast in zip(
            (store, other), labels, (options.where, options.other_where), ("where", "other_where"), contrasts
        )
    )
    if groups[0].same_arrays(groups[1]):
        raise ConfigError(
            f"{advice.setting('other_where')}: both sets are the same scans and labels; choose others, or another store or "
            "label set."
        )
    return groups[0], groups[1]


def write(
    folder: pathlib.Path,
    options: FrdOptions,
    groups: Sequence[Group],
    tables: Sequence[store_vectors.Table],
) -> None:
    """Compare the tables, and write what was found."""
    names = [next(iter(t.values()))[0] for t in tables]
    for table, own in zip(tables, names):
        if any(row[0] != own for row in table.values()):
            raise ValuesError(
                "scans of one set have different features: slices and volumes. Choose one kind by where."
            )
    reference, other = (np.array([values for _, values in t.values()]) for t in tables)
    reference, other = align(reference, names[0], other, names[1])
    facts: dict = {
        "version": options.version,
        "reference": groups[0].told(),
        "other": groups[1].told(),
        "scans": [len(reference), len(other)],
        "features": len(names[0]),
    }
    rows: list[dict] = []
    if len(other) > 1:
        found = compare(reference, other, version=options.version)
        sure = certainty(reference, other, version=options.version, draws=options.draws)
        facts |= {name: files.json_number(getattr(found, name)) for name in ("value", "d2", "paper")}
        facts |= {name: files.json_number(value) for name, value in dataclasses.asdict(sure).items()}
        facts["features_used"] = int(found.features.sum())
        used = np.flatnonzero(found.features)
        moved = shifts(reference[found.reference_rows][:, used], other[found.other_rows][:, used])
        rows = [
            {"feature": names[0][i], "shift": files.json_number(a), "log2_spread": files.json_number(b)}
            for i, a, b in zip(used, *map(np.ndarray.tolist, moved))
        ]
        files.write_csv(folder / "shifts.csv", ["feature", "shift", "log2_spread"], rows)
    known = np.isfinite(reference).all(0) & np.isfinite(other).all(0)
    test = Detector.fit(reference[:, known], distribution=options.distribution)
    scores = [
        {"subject": subject, "score": score, "p": p, "outside": bool(score > test.threshold)}
        for subject, score, p in zip(
            tables[1], test.scores(other[:, known]).tolist(), test.p_values(other[:, known]).tolist()
        )
    ]
    facts |= {"threshold": test.threshold, "outside": sum(s["outside"] for s in scores)}
    files.write_csv(folder / "scores.csv", ["subject", "score", "p", "outside"], scores)
    files.write_json(folder / "frd.json", facts)
    sections = page.sections(facts, rows, test.reference_scores, scores)
    path = report.write(folder, "Radiomic distance", page.lead(facts), sections)
    told = (
        f"{facts['value']:.3f}"
        if facts.get("value") is not None
        else "none of a single scan, or of equal sets"
    )
    print(
        f"frd: {told}; {facts['outside']} of {len(scores)} scans beyond the threshold, {path}",
        file=sys.stderr,
    )
