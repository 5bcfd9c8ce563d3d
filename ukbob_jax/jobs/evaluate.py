"""Score the workdir's network on one split of a store, with and without adaptation.

Writes `evaluation/NAME.jsonl` (a row per subject, method and organ), `evaluation/NAME.scans.jsonl` (a row per
subject and method: entropies, whether the adaptation was accepted), `evaluation/NAME.summary.json` (means, intervals,
comparisons with "off", organs, volumes, groups of people), `evaluation/NAME.run.json` (what was scored, time and memory)
and label maps of the first subjects. `ukbob compare` puts several of these beside each other.
"""

import functools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

import ukbob_jax
from ukbob_jax import anatomy, files, splits
from ukbob_jax.data.options import Config
from ukbob_jax.evaluation import costs, failures, scoring, tables, zero_shot
from ukbob_jax.inference.options import from_config
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.progress import track
from ukbob_jax.store.reader import Store
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.volume import Volume

# Sections of a recipe that no score depends on: those of other jobs, and those of the training, whose network counts
# itself. Of the store, each subject's arrays count. `data.organs` renumbers the true labels, as `mapping` tells.
UNREAD = (
    *("job", "seed", "platform", "workers", "repair", "cluster", "source", "inspect", "label", "store"),
    *("solf", "audit", "check_labels", "labeller", "agreement", "predict", "splits", "folds", "fold", "data"),
    *("model", "init", "init_new", "regions", "loss", "balance", "augment", "optimizer", "train", "epochs"),
    "mesh",
)


def run(config: Config, workdir: str) -> None:
    """Score every subject that has no score from this network and these settings yet.

    Raises:
        ConfigError: an unknown method or organ, or an empty split.
        FileError: no store or no checkpoint where the recipe says.
    """
    settings = config.evaluate
    options = {name: from_config(config, name, "evaluate.methods") for name in settings.methods}
    store = Store.open(config.store)
    segmenter = Segmenter.load(workdir, dtype=config.inference.dtype)
    subjects = splits.named(config, store, settings.split)
    read_found, read_truth, organs = mapping(config, segmenter)
    same_for_all = [decisive(config, segmenter), read_found.tolist(), read_truth.tolist(), organs]
    folder = pathlib.Path(workdir) / "evaluation"
    done = {path.name[:-5]: files.read_json(path) for path in folder.glob(f"{settings.name}/*.json")}
    meter = costs.Meter(lambda: segmenter.estimates)
    for number, subject in enumerate(track(subjects, f"evaluate {settings.name}")):
        what = store.identity(subject, "image", f"label/{settings.label}")
        attributes = store.rows[subject].attributes
        read_of_person = [attributes.get("sex")] if config.inference.gate else []
        key = files.fingerprint([same_for_all, what, *read_of_person])
        if done.get(subject, {}).get("key") == key:
            continue
        scan, truth = read(store, subject, segmenter.card.contrasts, settings.label)
        truth = Volume(read_truth[truth.array], truth.affine)
        annotated = store.rows[subject].annotated_classes(read_truth, 256)
        scores, spent = {}, {}
        for method in settings.methods:
            predict = functools.partial(segmenter.predict, scan, options[method], attributes=attributes)
            prediction, spent[method] = meter.run(method, predict)
            labels = Volume(read_found[prediction.volume.array], prediction.volume.affine)
            scores[method] = {
                "organs": scoring.score(
                    labels,
                    truth,
                    organs,
                    surface=settings.surface,
                    lesions=settings.lesions,
                    tolerance_mm=settings.tolerance_mm,
                    tolerances_mm=settings.tolerances_mm.to_dict(),
                    regions=segmenter.card.regions,
                    annotated=annotated,
                ),
                **tables.outcome(prediction.report),
            }
            if number < settings.pictures:
                name = f"{subject}_{method}.nii.gz"
                write_volume(folder / settings.name / name, prediction.volume, prediction.names)
        done[subject] = {"key": key, "methods": scores, "costs": spent}
        files.write_json(folder / settings.name / f"{subject}.json", done[subject])
    scores = {subject: done[subject]["methods"] for subject in subjects}
    rows = tables.collect(folder, settings.name, scores, failures.diagonals_mm(store.rows, subjects))
    groups = {s: str(store.rows[s].attributes.get(settings.groups, "unknown")) for s in subjects}
    people = {s: store.rows[s].attributes for s in subjects}
    summary = scoring.summarise(rows, groups if settings.groups else None, people, settings.age_band_years)
    files.write_json(folder / f"{settings.name}.summary.json", summary)
    about = description(config, segmenter, [done[subject].get("costs", {}) for subject in subjects])
    files.write_json(folder / f"{settings.name}.run.json", about)
    for method, found in summary.items():
        print(f"evaluate {settings.name}, {scoring.line(method, found)}", file=sys.stderr)


def mapping(config: Config, segmenter: Segmenter) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Lookups of predicted classes and of true ids into the classes that are scored, and those.

    Raises:
        ConfigError: an unknown organ or label set.
    """
    same = np.arange(256, dtype=np.uint8)
    if not config.evaluate.label_map:
        organs = tables.scored_organs(config.organs, segmenter.card.channels, bool(segmenter.card.regions))
        return same, anatomy.to_names(dict(segmenter.card.labels)) if config.data.organs else same, organs
    shared = zero_shot.common(config.evaluate.label_map, segmenter.card.used)
    return shared.found, shared.truth, tables.scored_organs(config.organs, {0: "background", **shared.organs})


def decisive(config: Config, segmenter: Segmenter) -> dict[str, Any]:
    """What decides the scores of every subject: the network, the code and all of the recipe but what is never read.

    A section that is new counts until it is listed in `UNREAD`.
    """
    settings = {name: value for name, value in config.to_dict().items() if name not in UNREAD}
    settings["evaluate"] = {name: v for name, v in settings["evaluate"].items() if name != "age_band_years"}
    return {"network": segmenter.digest, "ukbob_jax": ukbob_jax.__version__, "settings": settings}


def description(config: Config, segmenter: Segmenter, spent: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was scored, by what, and what it cost: JSON values.

    Args:
        config: the recipe.
        segmenter: the network.
        spent: of each subject, method -> what `costs.Meter.run` told; empty in scores of older versions.
    """
    settings = config.evaluate
    return {
        "ukbob_jax": ukbob_jax.__version__,
        "store": str(config.store),
        "split": settings.split,
        "label": settings.label,
        "label_map": settings.label_map,
        "contrasts": list(segmenter.card.contrasts),
        "architecture": segmenter.card.architecture,
        "parameters": sum(leaf.size for params, _ in segmenter.members for leaf in jax.tree.leaves(params)),
        "device": costs.device(),
        "methods": {m: costs.summarise([of[m] for of in spent if m in of]) for m in settings.methods},
    }


def read(store: Store, subject: str, contrasts: Sequence[str], label: str) -> tuple[Volume, Volume]:
    """Image `x y z c`, with the contrasts in the network's order, and true label map `x y z`.

    Raises:
        ConfigError: the store lacks a contrast the network needs.
    """
    row = store.rows[subject]
    affine = np.asarray(row.affine, np.float64)
    channels = row.channel_indices(contrasts, "the network")
    image = store.read(subject, "image")[..., channels]
    return Volume(image, affine), Volume(store.read(subject, f"label/{label}"), affine)
