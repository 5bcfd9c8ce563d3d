"""Radiomic features of a store's labels: one table with a row per subject and organ.

Written to `quality/<label set>` inside the store:

    radiomics.csv           subject, organ, name, and every feature; what is not defined is an empty cell
    radiomics.json          the options and versions behind it
    radiomics_rows*.jsonl   the same by label version and options; a cache

A large store is measured by several processes, each with its share (`config.radiomics.process` of `.processes`); a last
run without shares writes the table. New and changed subjects are measured when the job runs again, the others are not.
"""

import dataclasses
import json
import pathlib
import sys
import time
import warnings
from typing import Any

import jax

import ukbob_jax
from ukbob_jax import advice, anatomy, files, processes
from ukbob_jax import options as fields_of
from ukbob_jax.data.options import Config
from ukbob_jax.errors import ConfigError, FileError, UkbobError
from ukbob_jax.failures import Failures
from ukbob_jax.progress import Progress
from ukbob_jax.quality import cohort, verdicts
from ukbob_jax.radiomics import table
from ukbob_jax.radiomics.features import features
from ukbob_jax.radiomics.options import RadiomicsOptions
from ukbob_jax.store.reader import Store

CACHE, TABLE = "radiomics_rows", "radiomics.csv"
SAVE_SECONDS = 30.0
Row = dict[str, Any]  # "subject", "key", and "rows" of the table


def run(config: Config, workdir: str) -> None:
    """Measure label set `config.label` of `config.store` by `config.radiomics`.

    Raises:
        ConfigError: no subject has the label set, no such share or contrast, or an option that is none.
        FileError: all subjects failed.
        SomeFailed: some failed; `failures.jsonl` in the workdir lists them.
    """
    with advice.fields("radiomics", fields_of.names(RadiomicsOptions)):
        options = RadiomicsOptions(**config.radiomics)
    store = Store.open(config.store)
    subjects = [name for name, row in store.rows.items() if config.label in row.labels]
    if not subjects:
        raise ConfigError(
            f"{store.path}: no subject has a label set {config.label!r}. Correct --config.label."
        )
    contrast = _contrast(options, store, subjects)
    sharded = options.processes > 1
    part = f".{options.process}-of-{options.processes}" if sharded else ""
    mine = processes.shard(subjects, options.process, options.processes)
    folder = verdicts.folder(store.path, config.label)
    found, errors = measured(store, mine, config.label, contrast, options, folder, part)
    if found and not sharded:
        write(store, config.label, contrast, options, found, folder)
    failures = Failures(pathlib.Path(workdir) / f"failures{part}.jsonl", "label maps", FileError)
    for name, error in errors.items():
        failures.add(name, "", "measure", error)
    failures.conclude(len(mine))


def _contrast(options: RadiomicsOptions, store: Store, subjects: list[str]) -> str:
    """The recipe's contrast, or the only one.

    Raises:
        ConfigError: there are several, and none is chosen.
    """
    if options.contrast:
        return options.contrast
    names = tuple(store.rows[subjects[0]].contrasts)
    if len(names) != 1:
        raise ConfigError(
            f"config.radiomics.contrast: features are of one contrast; choose from {', '.join(names)}."
        )
    return names[0]


def measured(
    store: Store,
    subjects: list[str],
    label: str,
    contrast: str,
    options: RadiomicsOptions,
    folder: pathlib.Path,
    part: str = "",
) -> tuple[dict[str, list[Row]], dict[str, UkbobError]]:
    """Measure every subject, or take what any process saved where image, labels and options are the same.

    New ones are saved in `folder` while they come, so that a stopped run goes on where it was.

    Returns:
        Rows of the table by subject, and errors by subject.
    """
    known, arguments = _load(folder), options.arguments()
    keys = {name: _key(store, name, label, contrast, arguments) for name in subjects}
    found = {s: known[s] for s in subjects if s in known and known[s]["key"] == keys[s]}
    missing = [s for s in subjects if s not in found]
    errors: dict[str, UkbobError] = {}
    path, saved = folder / f"{CACHE}{part}.jsonl", time.monotonic()
    progress = Progress("radiomics", len(subjects), done=len(found))
    for subject in missing:
        try:
            rows = _rows(store, subject, label, contrast, arguments)
            found[subject] = {"subject": subject, "key": keys[subject], "rows": rows}
        except UkbobError as error:
            errors[subject] = error
        progress.update(len(found) + len(errors))
        if time.monotonic() - saved > SAVE_SECONDS:
            files.write_jsonl(path, found.values())
            saved = time.monotonic()
    progress.close()
    if missing and found:
        files.write_jsonl(path, found.values())
    print(
        f"radiomics: {len(missing) - len(errors)} of {len(subjects)} label maps measured, the others are known",
        file=sys.stderr,
    )
    return {subject: found[subject]["rows"] for subject in subjects if subject in found}, errors


def _key(store: Store, subject: str, label: str, contrast: str, arguments: dict[str, Any]) -> str:
    """Changes with whatever decides a subject's features."""
    row = store.rows[subject]
    version = cohort.version(store, subject, label)
    return files.fingerprint([row.source, row.folders["image"], version, contrast, arguments])


def _rows(store: Store, subject: str, label: str, contrast: str, arguments: dict[str, Any]) -> list[Row]:
    """A row per organ of one subject; organs of a single voxel have empty cells."""
    row = store.rows[subject]
    organs = sorted(int(i) for i in store.present(subject, label) if i not in (0, anatomy.IGNORE))
    if not organs:
        return []
    [channel] = row.channel_indices((contrast,), "config.radiomics.contrast")
    image = store.read(subject, "image")[..., channel]
    labels = store.read(subject, f"label/{label}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "classes of a single voxel", UserWarning)
        found = features(image, labels, row.spacing_mm, classes=organs, **arguments)
    return list(table.rows(found, organs, store.label_names(label, [subject]) or anatomy.NAMES))


def _load(folder: pathlib.Path) -> dict[str, Row]:
    """What earlier runs have saved; a line that was cut off counts as none."""
    found: dict[str, Row] = {}
    for path in sorted(folder.glob(f"{CACHE}*.jsonl")):
        for line in files.read_text(path).splitlines():
            try:
                row = json.loads(line)
                found[str(row["subject"])] = {
                    "subject": row["subject"],
                    "key": row["key"],
                    "rows": row["rows"],
                }
            except (ValueError, KeyError, TypeError):
                print(f"warning: {path}: a line is damaged; its subject is measured again", file=sys.stderr)
    return found


def write(
    store: Store,
    label: str,
    contrast: str,
    options: RadiomicsOptions,
    found: dict[str, list[Row]],
    folder: pathlib.Path,
) -> None:
    """Write the table, subjects in the store's order, and what it was made with."""
    rows = [{"subject": subject, **row} for subject, organs in found.items() for row in organs]
    files.write_csv(folder / TABLE, ["subject", "organ", "name", *table.columns(options.families)], rows)
    kept = {k: v for k, v in dataclasses.asdict(options).items() if not k.startswith("process")}
    versions = {"ukbob_jax": ukbob_jax.__version__, "jax": jax.__version__}
    facts = {
        "label": label,
        "options": {**kept, "contrast": contrast},
        "versions": versions,
        "rows": len(rows),
    }
    files.write_json(folder / "radiomics.json", facts)
    print(f"radiomics: {len(rows)} organs of {len(found)} subjects, in {folder / TABLE}", file=sys.stderr)
