"""Several evaluations beside each other: read, brought to the scans and organs they share, and tested pair by pair."""

import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ukbob_jax import advice, files
from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.evaluation import organs, scoring, significance
from ukbob_jax.volumes.case import listed

FOLDER = "evaluation"  # in a workdir
SAME_VOLUME = (
    0.02  # by which the volume of a true label may differ between runs, a fraction; other grids round
)


class Run(NamedTuple):
    """One method of one evaluation.

    Attributes:
        title: told apart from the others'.
        folder: of the evaluation.
        name: of the test set.
        method: of adaptation.
        rows: of this method, a row per subject and organ.
        about: what NAME.run.json says; empty for evaluations of older versions.
    """

    title: str
    folder: pathlib.Path
    name: str
    method: str
    rows: scoring.Rows
    about: Mapping[str, Any]

    @property
    def scores(self) -> dict[str, dict[str, float | None]]:
        """Organ -> subject -> Dice."""
        return organs.scores(self.rows, self.method)

    @property
    def means(self) -> dict[str, float | None]:
        """Subject -> mean Dice over its organs."""
        return scoring.dice_means(self.rows, self.method, "subject")

    @property
    def costs(self) -> Mapping[str, Any]:
        """Time and memory, as `costs.summarise`; empty where they were not kept."""
        return self.about.get("methods", {}).get(self.method, {})

    def label_map(self, subject: str) -> pathlib.Path:
        """Where `evaluate` keeps a label map, if it was asked to."""
        return self.folder / self.name / f"{subject}_{self.method}.nii.gz"


class Comparison(NamedTuple):
    """Runs on what they share.

    Attributes:
        runs: with the rows of the shared subjects and organs only.
        subjects: that all runs have, in the order of the first.
        organs: that all runs have, in the order of the first.
        remarks: what was left out, or makes the runs differ in more than their networks; a sentence each.
    """

    runs: tuple[Run, ...]
    subjects: tuple[str, ...]
    organs: tuple[str, ...]
    remarks: tuple[str, ...]


def load(workdirs: Sequence[str | os.PathLike], name: str, methods: Sequence[str]) -> list[Run]:
    """Read one evaluation of each workdir.

    Args:
        workdirs: of the runs.
        name: of the test set, `config.evaluate.name`.
        methods: of adaptation that are compared; a workdir gives a run for each.
    Raises:
        ConfigError: fewer than two runs, the same twice, or a method that was not scored.
        FileError: a workdir without that evaluation, or a damaged one.
    """
    folders = [pathlib.Path(workdir) for workdir in workdirs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError(f"{', '.join(map(str, folders))}: the same run twice; name different ones.")
    if len(set(methods)) < len(methods):
        raise ConfigError(f"{advice.setting('method')}: the same method twice in {', '.join(methods)}.")
    if len(folders) * len(methods) < 2:
        raise ConfigError(
            f"{folders[0] if folders else 'nothing'}: one run has nothing to be compared with; name two."
        )
    titles = _titles(folders)
    return [run for folder, title in zip(folders, titles) for run in _read(folder, title, name, methods)]


def _read(workdir: pathlib.Path, title: str, name: str, methods: Sequence[str]) -> list[Run]:
    folder = workdir / FOLDER
    path = folder / f"{name}.jsonl"
    if not path.is_file():
        there = sorted(p.stem for p in folder.glob("*.jsonl") if not p.stem.endswith(".scans"))
        known = f" It has {', '.join(there)}: name one with {advice.setting('name')}." if there else ""
        what = f"no evaluation {name!r} ({FOLDER}/{name}.jsonl)" if workdir.is_dir() else "no such folder"
        raise FileError(f"{workdir}: {what}.{known or ' Score the run with the job evaluate.'}")
    rows = scoring.read_rows(path)
    scored = list(dict.fromkeys(row["method"] for row in rows))
    for method in methods:
        if method not in scored:
            raise ConfigError(f"{path}: no method {method!r}; it has {', '.join(scored) or 'no rows'}.")
    about = folder / f"{name}.run.json"
    said = files.read_json(about) if about.is_file() else {}
    return [
        Run(
            title if len(methods) == 1 else f"{title}, {method}",
            folder,
            name,
            method,
            [row for row in rows if row["method"] == method],
            said,
        )
        for method in methods
    ]


def _titles(folders: Sequence[pathlib.Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts), default=1) + 1):
        titles = ["/".join(part[-length:]) for part in parts]
        if len(set(titles)) == len(titles):
            break
    return titles


def compare(runs: Sequence[Run]) -> Comparison:
    """Bring runs to the subjects and organs that all of them have.

    Raises:
        MismatchError: they share no subject or no organ.
    """
    remarks = []
    shared = {}
    for what in ("subject", "organ"):
        each = [list(dict.fromkeys(row[what] for row in run.rows)) for run in runs]
        shared[what] = [name for name in each[0] if all(name in others for others in each[1:])]
        if not shared[what]:
            counts = ", ".join(f"{run.title} {len(found)}" for run, found in zip(runs, each))
            raise MismatchError(
                f"{runs[0].folder / runs[0].name}: the runs share no {what} ({counts}). Compare runs that were scored on "
                "the same test set."
            )
        every = dict.fromkeys(name for found in each for name in found)
        if left := [name for name in every if name not in shared[what]]:
            remarks.append(
                f"{len(shared[what])} of {len(every)} {what}s are in all runs; left out: {listed(left)}."
            )
    kept = tuple(
        run._replace(
            rows=[r for r in run.rows if r["subject"] in shared["subject"] and r["organ"] in shared["organ"]]
        )
        for run in runs
    )
    remarks += _other_truths(kept) + _other_settings(kept)
    return Comparison(kept, tuple(shared["subject"]), tuple(shared["organ"]), tuple(remarks))


def _other_truths(runs: Sequence[Run]) -> list[str]:
    """Say that true labels are not the same in all runs."""
    first = organs.scores(runs[0].rows, runs[0].method, "true_volume_ml")
    told = []
    for run in runs[1:]:
        other = organs.scores(run.rows, run.method, "true_volume_ml")
        differ = [
            f"{organ} of {subject}"
            for organ, of in first.items()
            for subject, volume in of.items()
            if _differ(volume, other.get(organ, {}).get(subject))
        ]
        if differ:
            told.append(
                f"{run.title} was scored against other true labels than {runs[0].title}: {len(differ)} volumes "
                f"differ by more than {SAME_VOLUME:.0%} ({listed(differ)})."
            )
    return told


def _differ(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return (one is None) != (other is None)
    return abs(one - other) > SAME_VOLUME * max(one, other)


def _other_settings(runs: Sequence[Run]) -> list[str]:
    """Say where time and memory, or the labels' name, cannot be compared."""
    told = []
    for field, what in (("device", "devices"), ("label", "label sets")):
        found = {run.title: run.about[field] for run in runs if run.about.get(field)}
        if len(set(found.values())) > 1:
            each = "; ".join(f"{title}: {value}" for title, value in found.items())
            told.append(f"The runs were scored on different {what} ({each}).")
    return told


def pairs(found: Comparison, correction: str) -> list[dict[str, Any]]:
    """Compare every two runs scan by scan, by the mean Dice over organs: JSON values.

    Returns:
        For each pair "first" and "second" (numbers of runs), `significance.difference` of their means over scans, and
        "p_corrected", corrected for the number of pairs.
    """
    means = [run.means for run in found.runs]
    rows = [
        {"first": i, "second": j, **significance.difference(means[i], means[j])}
        for i, j in itertools.combinations(range(len(found.runs)), 2)
    ]
    for row, p in zip(rows, significance.corrected([row["p"] for row in rows], correction)):
        row["p_corrected"] = p
    return rows


def most_different(found: Comparison) -> list[tuple[str, float]]:
    """Return the subjects with the range of their mean Dice over the runs, widest first; those without Dice are left out."""
    means = [run.means for run in found.runs]
    spread = {}
    for subject in found.subjects:
        values = [value for of in means if (value := of[subject]) is not None]
        if len(values) == len(means):
            spread[subject] = max(values) - min(values)
    return sorted(spread.items(), key=lambda pair: (-pair[1], pair[0]))
