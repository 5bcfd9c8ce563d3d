"""Score the workdir's network on one split of a store, with and without adaptation.

Writes `evaluation/NAME.jsonl` (a row per subject, way of adapting and organ), `evaluation/NAME.scans.jsonl` (a row per
subject and way: entropies, whether the adaptation was accepted) and label maps of the first subjects.
"""

import hashlib
import json
import pathlib
from typing import Any

import ml_collections
import numpy as np

from ukbob_jax import anatomy, files
from ukbob_jax.errors import ConfigError
from ukbob_jax.evaluation import metrics
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.progress import track
from ukbob_jax.store.reader import Store
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.volume import Volume

WAYS = ("off", "etta")


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Score every subject that has no score from this network and these settings yet.

    Raises:
        ConfigError: an unknown way of adapting or organ, or an empty split.
        FileError: no store or no checkpoint where the recipe says.
    """
    settings = config.evaluate
    check(settings.adapt)
    store = Store.open(config.store)
    segmenter = Segmenter.load(workdir)
    subjects = store.split(settings.split)
    organs = scored_organs(config.organs, segmenter.names)
    lookup = anatomy.to_names(segmenter.names) if config.data.organs else np.arange(256, dtype=np.uint8)
    key = fingerprint(config, segmenter)
    folder = pathlib.Path(workdir) / "evaluation"
    done = {path.name[:-5]: files.read_json(path) for path in folder.glob(f"{settings.name}/*.json")}
    for number, subject in enumerate(track(subjects, f"evaluate {settings.name}")):
        if done.get(subject, {}).get("key") == key:
            continue
        scan, truth = read(store, subject, segmenter.meta["contrasts"], settings.label)
        truth = Volume(lookup[truth.array], truth.affine)
        ways = {}
        for way in settings.adapt:
            adapt = config.etta.to_dict() if way == "etta" else False
            found = segmenter.predict(
                scan, adapt, overlap=config.inference.overlap, batch=config.inference.batch
            )
            ways[way] = {
                "organs": score(found.volume, truth, organs, settings.surface),
                **outcome(found.report),
            }
            if number < settings.pictures:
                name = f"{subject}_{way}.nii.gz"
                write_volume(folder / settings.name / name, found.volume, found.names)
        done[subject] = {"key": key, "ways": ways}
        files.write_json(folder / settings.name / f"{subject}.json", done[subject])
    collect(folder, settings.name, {subject: done[subject]["ways"] for subject in subjects})


def check(ways: tuple[str, ...]) -> None:
    """Refuse ways of adapting there are not."""
    unknown = [way for way in ways if way not in WAYS]
    if unknown:
        raise ConfigError(f"config.evaluate.adapt: {unknown[0]!r} is not one of {', '.join(WAYS)}.")


def scored_organs(names: tuple[str, ...], known: dict[int, str]) -> dict[int, str]:
    """Ids and names to score: those asked for, or all of the network's but the background.

    Raises:
        ConfigError: a name the network does not know.
    """
    ids = {name: organ for organ, name in known.items()}
    missing = [name for name in names if name not in ids]
    if missing:
        raise ConfigError(f"config.organs: {missing[0]!r} is not among the network's labels.")
    return {
        ids[name]: name for name in names or ids if ids[name] != 0 and name != anatomy.NAMES[anatomy.UNUSED]
    }


def fingerprint(config: ml_collections.ConfigDict, segmenter: Segmenter) -> str:
    """Changes when the network or a setting that moves scores does; old scores are then made anew."""
    what = {
        "network": segmenter.meta["provenance"],
        "evaluate": config.evaluate.to_dict(),
        "etta": config.etta.to_dict(),
        "inference": config.inference.to_dict(),
        "organs": list(config.organs),
        "store": config.store,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read(store: Store, subject: str, contrasts: list[str], label: str) -> tuple[Volume, Volume]:
    """Image `x y z c`, with the contrasts in the network's order, and true label map `x y z`.

    Raises:
        ConfigError: the store lacks a contrast the network needs.
    """
    row = store.rows[subject]
    missing = [name for name in contrasts if name not in row["contrasts"]]
    if missing:
        raise ConfigError(f"{store.path}: {subject} has no contrast {missing[0]!r}, which the network needs.")
    affine = np.asarray(row["affine"], np.float64)
    channels = [row["contrasts"].index(name) for name in contrasts]
    image = store.read(subject, "image")[..., channels]
    return Volume(image, affine), Volume(store.read(subject, f"label/{label}"), affine)


def score(
    found: Volume, truth: Volume, organs: dict[int, str], surface: bool
) -> dict[str, dict[str, float | None]]:
    """Dice and, when asked for, distances (mm) of every organ; None where it is in neither map."""
    largest = max(found.array.max(), truth.array[truth.array != anatomy.IGNORE].max(initial=0), *organs)
    num_classes = int(largest) + 1
    values = {"dice": metrics.dice(found.array, truth.array, num_classes)}
    if surface:
        distances = metrics.surface(found.array, truth.array, truth.spacing_mm, num_classes)
        values |= {"hd95": distances.hd95, "nsd": distances.nsd}
    return {
        name: {measure: number(array[organ]) for measure, array in values.items()}
        for organ, name in organs.items()
    }


def number(value: Any) -> float | None:
    """A JSON number; None for what JSON cannot hold."""
    return float(value) if np.isfinite(value) else None


def outcome(report: dict[str, Any]) -> dict[str, Any]:
    """What a row about a scan keeps of its report."""
    kept = {"mean_entropy": report["mean_entropy"], "accepted": None, "reason": None}
    if report["adaptation"]:
        names = ("accepted", "reason", "entropy_before", "entropy_after", "drift")
        kept |= {name: report["adaptation"][name] for name in names}
    return kept


def collect(folder: pathlib.Path, name: str, scores: dict[str, dict]) -> None:
    """Write the rows of all subjects as two tables."""
    organs, scans = [], []
    for subject, ways in scores.items():
        for way, found in ways.items():
            same = {"subject": subject, "adapt": way}
            organs += [{**same, "organ": organ, **values} for organ, values in found["organs"].items()]
            scans.append({**same, **{field: value for field, value in found.items() if field != "organs"}})
    files.write_jsonl(folder / f"{name}.jsonl", organs)
    files.write_jsonl(folder / f"{name}.scans.jsonl", scans)
