"""Labels by a trained network for scans without any, how far each can be trusted, and which are kept to learn from."""

import contextlib
import math
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax import files
from ukbob_jax.active.committee import Scorer
from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import FileError
from ukbob_jax.progress import track
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter

METHODS = ("none", "all", "random", "entropy", "dropout", "solf", "sentinel")
MAPS = {"entropy": "predictive_entropy", "dropout": "mutual_information"}
Key = tuple[str, int]  # subject, organ


@contextlib.contextmanager
def measured(costs: dict[str, Any]) -> Iterator[None]:
    """Note what is done inside: `seconds`, and `memory_bytes`, the most that the process held meanwhile.

    What it held before counts too. Memory is known on Linux alone, else None.
    """
    reset = pathlib.Path("/proc/self/clear_refs")
    with contextlib.suppress(OSError):
        reset.write_text("5")
    start = time.perf_counter()
    yield
    costs["seconds"] = time.perf_counter() - start
    costs["memory_bytes"] = _peak()


def _peak() -> int | None:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return None


def size_of(*paths: pathlib.Path) -> int:
    """Bytes of files and of all files in folders; what is not there has none."""
    every = (file for path in paths for file in ([path] if path.is_file() else path.rglob("*")))
    return sum(file.stat().st_size for file in every if file.is_file())


def write_labels(
    path: str, scorer: Scorer, subjects: Sequence[str], name: str, like: str, made_by: str
) -> None:
    """Label scans by the first network of a scorer, with the ids of label set `like`; what is there already stays.

    Args:
        path: of the store.
        scorer: whose network labels.
        subjects: the scans.
        name: label set that is written.
        like: label set whose ids, and names for them, it has.
        made_by: digest of the network; labels of another one are written anew.
    """
    store = Store.open(path)
    lookup = np.arange(256, dtype=np.uint8)
    lookup[list(scorer.stored_ids)] = list(scorer.stored_ids.values())
    said = {"labeller": "semi", "network": made_by}
    todo = []
    for subject in subjects:
        row = store.rows[subject]
        key = files.fingerprint([said, row.source, row.folders["image"]])
        if row.provenance.get(name, {}).get("key") != key:
            todo.append((subject, key))
    if todo:
        with StoreWriter(path) as writer:
            for subject, key in track(todo, "label"):
                found = np.asarray(scorer.segment(subject).labels)
                writer.write_label(subject, name, lookup[found], {**said, "key": key}, like=like)


def organs_of(store: Store, subjects: Sequence[str], name: str) -> list[Key]:
    """Every label there is to trust or not: subject and organ."""
    return [(subject, organ) for subject in subjects for organ in store.present(subject, name)]


def by_map(scorer: Scorer, subjects: Sequence[str], name: str, kind: str) -> dict[Key, float]:
    """Trust in each label: minus the mean over its voxels of a map of uncertainty, see `Scorer.maps`."""
    found = {}
    for subject in track(subjects, kind):
        label = scorer.store.read(subject, f"label/{name}")
        values = np.asarray(next(iter(scorer.maps(subject, kind)))[1], np.float64)
        total = np.bincount(label.ravel(), values.ravel(), minlength=256)
        count = np.bincount(label.ravel(), minlength=256)
        for organ in scorer.store.present(subject, name):
            found[subject, organ] = -float(total[organ] / count[organ])
    return found


def by_grade(
    store: Store, grader: Any, subjects: Sequence[str], name: str, contrast: str
) -> dict[Key, float]:
    """Trust in each label: its grade; 0 where it could not be graded.

    Args:
        store: of the scans.
        grader: with `grade(image, labels, spacing_mm)`.
        subjects: the scans.
        name: label set that is graded.
        contrast: that the grader sees, where it does not say which it knows.
    """
    found = {}
    for subject in track(subjects, "grade"):
        row = store.rows[subject]
        channel = row.channel_indices((getattr(grader, "contrast", "") or contrast,), "the grader")
        image = store.read(subject, "image")[..., channel]
        dice = np.asarray(grader.grade(image, store.read(subject, f"label/{name}"), row.spacing_mm).dice)
        for organ in store.present(subject, name):
            found[subject, organ] = float(np.nan_to_num(dice[organ], nan=0.0))
    return found


def by_chance(keys: Sequence[Key], rng: np.random.Generator) -> dict[Key, float]:
    """Trust that says nothing, to compare with."""
    return dict(zip(keys, rng.random(len(keys)).tolist()))


def most_trusted(trust: Mapping[Key, float], share: float) -> set[Key]:
    """Of each organ the share of labels that are trusted most, rounded up; of equals the first."""
    kept: set[Key] = set()
    for organ in sorted({organ for _, organ in trust}):
        own = sorted((key for key in trust if key[1] == organ), key=lambda key: -trust[key])
        kept.update(own[: math.ceil(share * len(own) - 1e-9)])
    return kept


def write_verdicts(path: pathlib.Path, trust: Mapping[Key, float], kept: set[Key]) -> None:
    """Write which labels are left out, in the form that `data.verdicts` reads."""
    rows = (
        {"subject": subject, "organ": organ, "trust": value, "flagged": (subject, organ) not in kept}
        for (subject, organ), value in sorted(trust.items())
        if organ != IGNORE
    )
    files.write_jsonl(path, rows)


def solf_trust(path: pathlib.Path, keys: Sequence[Key]) -> tuple[dict[Key, float], set[Key]]:
    """Trust in each label, minus the number of measures outside their limits, and the labels that SOLF keeps.

    What its file does not list, such as structures of a few voxels, is kept.

    Raises:
        FileError: the file is missing or damaged.
    """
    if not path.is_file():
        raise FileError(f"{path}: no verdicts of SOLF. Run the job again.")
    rows = {(row["subject"], row["organ"]): row for row in files.read_jsonl(path)}
    trust = {key: -float(len(rows[key]["outside"])) if key in rows else 0.0 for key in keys}
    return trust, {key for key in keys if key not in rows or not rows[key]["flagged"]}
