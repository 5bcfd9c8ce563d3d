"""Grade the labels of a store: the Dice that a trained grader predicts for every organ of every subject.

Written to `quality/<label set>` inside the store, beside what SOLF finds:

    sentinel.jsonl          per subject and organ: predicted Dice, interval, slices looked at, reason, flagged, decision
    sentinel_grades*.jsonl  the same by label version and grader, before decisions; a cache

A large store is graded by several processes, each with its share (`config.sentinel.process` of `.processes`); a last run
without shares collects. New and changed labels are graded when the job runs again, the others are not; with another grader
all are.
"""

import json
import pathlib
import sys
import time
from typing import Any

import numpy as np

from ukbob_jax import anatomy, files, processes
from ukbob_jax.data.options import Config
from ukbob_jax.errors import ConfigError, FileError, UkbobError
from ukbob_jax.failures import Failures
from ukbob_jax.progress import Progress
from ukbob_jax.quality import cohort, decisions, grades, verdicts
from ukbob_jax.quality.grades import Grade
from ukbob_jax.sentinel import trained
from ukbob_jax.sentinel.grading import EMPTY, SentinelGrades
from ukbob_jax.sentinel.options import SentinelOptions
from ukbob_jax.sentinel.trained import TrainedGrader
from ukbob_jax.store.reader import Store

CACHE = "sentinel_grades"
SAVE_SECONDS = 30.0
Row = dict[str, Any]  # "subject", "key", and "grades": organ -> [dice, low, high, used, reason]


def run(config: Config, workdir: str) -> None:
    """Grade label set `config.label` of `config.store` with `config.sentinel.grader`.

    Raises:
        ConfigError: no subject has the label set, no such share, or the scans have several contrasts.
        FileError: no grader there, or decisions that cannot be used; or all subjects failed.
        SomeFailed: some labels could not be graded; `failures.jsonl` in the workdir lists them.
    """
    options, store = SentinelOptions(**config.sentinel), Store.open(config.store)
    subjects = [name for name, row in store.rows.items() if config.label in row.labels]
    if not subjects:
        raise ConfigError(
            f"{store.path}: no subject has a label set {config.label!r}. Correct --config.label."
        )
    grader = trained.open_grader(options.grader, options.embeddings, options.modality, options.rule)
    contrast = _contrast(config, grader, store, subjects)
    made = decisions.read(options.decisions, config.label) if options.decisions else []
    sharded = options.processes > 1
    part = f".{options.process}-of-{options.processes}" if sharded else ""
    mine = processes.shard(subjects, options.process, options.processes)
    folder = verdicts.folder(store.path, config.label)
    found, errors = graded(grader, store, mine, config.label, contrast, folder, part)
    if found and not sharded:
        collect(store, config.label, found, made, options.threshold)
    failures = Failures(pathlib.Path(workdir) / f"failures{part}.jsonl", "label maps", FileError)
    for name, error in errors.items():
        failures.add(name, "", "grade", error)
    failures.conclude(len(mine))


def _contrast(config: Config, grader: TrainedGrader, store: Store, subjects: list[str]) -> str:
    """The contrast to look at: the recipe's, the grader's own, or the only one.

    Raises:
        ConfigError: several, and none is chosen.
    """
    chosen = tuple(config.data.contrasts) or ((grader.contrast,) if grader.contrast else ())
    chosen = chosen or tuple(store.rows[subjects[0]].contrasts)
    if len(chosen) != 1:
        raise ConfigError(
            f"config.data.contrasts: a grader looks at one contrast; choose from {', '.join(chosen)}."
        )
    return chosen[0]


def graded(
    grader: TrainedGrader,
    store: Store,
    subjects: list[str],
    label: str,
    contrast: str,
    folder: pathlib.Path,
    part: str = "",
) -> tuple[dict[str, Row], dict[str, UkbobError]]:
    """Grade every subject, or take what any process saved where image, labels and grader are the same.

    New ones are saved in `folder` while they come, so that a stopped run goes on where it was.

    Returns:
        Rows by subject, and errors by subject.
    """
    known = _load(folder)
    keys = {name: _key(grader, store, name, label, contrast) for name in subjects}
    found = {s: known[s] for s in subjects if s in known and known[s]["key"] == keys[s]}
    missing = [s for s in subjects if s not in found]
    errors: dict[str, UkbobError] = {}
    path, saved = folder / f"{CACHE}{part}.jsonl", time.monotonic()
    progress = Progress("sentinel", len(subjects), done=len(found))
    for subject in missing:
        try:
            found[subject] = _row(grader, store, subject, label, contrast, keys[subject])
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
        f"sentinel: {len(missing) - len(errors)} of {len(subjects)} label maps graded, the others are known",
        file=sys.stderr,
    )
    return {subject: found[subject] for subject in subjects if subject in found}, errors


def _key(grader: TrainedGrader, store: Store, subject: str, label: str, contrast: str) -> str:
    """Changes with whatever decides a subject's grades."""
    row = store.rows[subject]
    version = cohort.version(store, subject, label)
    return files.fingerprint([grader.digest, row.source, row.folders["image"], version, contrast])


def _row(grader: TrainedGrader, store: Store, subject: str, label: str, contrast: str, key: str) -> Row:
    """The grades of one subject."""
    row = store.rows[subject]
    [channel] = row.channel_indices((contrast,), "config.data.contrasts")
    image = store.read(subject, "image")[..., channel]
    labels = store.read(subject, f"label/{label}")
    modality = row.modality or ("CT" if row.units == "HU" else "")
    found = grader.grade(image, labels, row.spacing_mm, image_modality=modality)
    organs = store.present(subject, label)
    return {"subject": subject, "key": key, "grades": {str(organ): _of(found, organ) for organ in organs}}


def _of(found: SentinelGrades, organ: int) -> list[Any]:
    """What is kept of an organ's grade. One that is listed and has no voxel gets 0, as an empty mask."""
    if organ >= len(found.dice) or not np.isfinite(found.dice[organ]):
        return [0.0, 0.0, 0.0, 0, EMPTY]
    ends = [files.json_number(float(end[organ])) for end in (found.low, found.high)]
    dice = float(np.clip(found.dice[organ], 0, 1))  # released graders are not squashed
    return [dice, *ends, int(found.slices[organ]), found.reason[organ]]


def _load(folder: pathlib.Path) -> dict[str, Row]:
    """What earlier runs have saved; a line that was cut off counts as none."""
    found: dict[str, Row] = {}
    for path in sorted(folder.glob(f"{CACHE}*.jsonl")):
        for line in files.read_text(path).splitlines():
            try:
                row = json.loads(line)
                found[str(row["subject"])] = {
                    "subject": str(row["subject"]),
                    "key": row["key"],
                    "grades": row["grades"],
                }
            except (ValueError, KeyError, TypeError):
                print(f"warning: {path}: a line is damaged; its subject is graded again", file=sys.stderr)
    return found


def collect(
    store: Store, label: str, found: dict[str, Row], made: list[decisions.Decision], threshold: float
) -> pathlib.Path:
    """Flag what is below the threshold, let decisions overrule, and write `sentinel.jsonl`."""
    subjects = list(found)
    k = max([anatomy.NUM_CLASSES, *(1 + int(organ) for row in found.values() for organ in row["grades"])])
    present, flagged = np.zeros((len(subjects), k), bool), np.zeros((len(subjects), k), bool)
    for i, subject in enumerate(subjects):
        for organ, values in found[subject]["grades"].items():
            present[i, int(organ)], flagged[i, int(organ)] = True, values[0] < threshold
    versions = {name: cohort.version(store, name, label) for name in subjects}
    flagged, decided, void = decisions.apply(made, subjects, versions, present, flagged)
    if void:
        print(f"sentinel: {len(void)} of {len(made)} decisions are about labels not here", file=sys.stderr)
    rows = []
    for i, subject in enumerate(subjects):
        for organ, (dice, low, high, used, reason) in found[subject]["grades"].items():
            choice = decided.get((subject, int(organ)), "")
            grade = Grade(dice, low, high, used, reason, bool(flagged[i, int(organ)]), choice)
            rows.append((subject, int(organ), grade))
    path = grades.write(store.path, label, rows)
    print(f"sentinel: {int(flagged.sum())} of {len(rows)} labels flagged, in {path}", file=sys.stderr)
    return path
