"""Score the exported model folder on whole scans of a fold: its labels, brought back to the files' grid, beside labelsTr.

This is what nnU-Net's own validation compares, where the job `evaluate` stays on the preprocessed grid. Writes
`evaluation/NAME_files.jsonl`, `.scans.jsonl`, `.summary.json` and `.run.json` as `evaluate` does; subjects that have a score
from this network and these files are not predicted again.
"""

import pathlib
import sys
from typing import Any

import numpy as np

import ukbob_jax
from ukbob_jax import files, splits
from ukbob_jax.anatomy import IGNORE
from ukbob_jax.data.options import Config
from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.evaluation import costs, failures, scoring, tables
from ukbob_jax.inference.nnunet import raw_folder, write
from ukbob_jax.inference.nnunet.plans import NnunetPlans
from ukbob_jax.inference.nnunet.segmenter import NnunetSegmenter
from ukbob_jax.progress import track
from ukbob_jax.store.reader import Store
from ukbob_jax.volumes.case import LABEL_SET, Case
from ukbob_jax.volumes.nifti import read_volume
from ukbob_jax.volumes.volume import Volume

METHOD = "off"  # of the rows: networks of nnU-Net are not adapted here


def run(config: Config, workdir: str) -> None:
    """Score every scan of `config.evaluate.split` that has no score yet.

    Raises:
        ConfigError: an unknown organ, or an empty split.
        FileError: no model folder, no store, or a case that is not in the raw folder.
        MismatchError: a label map on another grid than its image.
    """
    settings = config.evaluate
    home = pathlib.Path(workdir)
    plans = write.find(home / "nnunet", config.plans, config.configuration, "mirror" in config.augment)
    segmenter = NnunetSegmenter.load(plans.folder, folds=[config.fold], dtype=config.inference.dtype)
    known = dict(enumerate(plans.regions.names)) if plans.regions else plans.labels
    organs = tables.scored_organs(config.organs, known, bool(plans.regions))
    cases = {case.subject: case for case in raw_folder.training_cases(config.source.paths.root)}
    name = f"{settings.name}_files"
    folder = home / "evaluation"
    done = {path.stem: files.read_json(path) for path in folder.glob(f"{name}/*.json")}
    read = {key: value for key, value in settings.to_dict().items() if key != "age_band_years"}
    same_for_all = [segmenter.digest, ukbob_jax.__version__, read, organs]
    meter, store = costs.Meter(lambda: segmenter.estimates), Store.open(config.store)
    subjects = splits.named(config, store, settings.split)
    for subject in track(subjects, f"evaluate {name}"):
        if subject not in cases:
            raise FileError(f"{config.source.paths.root}: no case {subject!r}, which the split names.")
        key = files.fingerprint([same_for_all, raw_folder.checksum(cases[subject], plans)])
        if done.get(subject, {}).get("key") != key:
            done[subject] = {"key": key, **score(segmenter, plans, cases[subject], organs, config, meter)}
            files.write_json(folder / name / f"{subject}.json", done[subject])
    scores = {subject: {METHOD: done[subject]["scores"]} for subject in subjects}
    diagonals = {subject: done[subject]["diagonal_mm"] for subject in subjects}
    people = {subject: store.rows[subject].attributes for subject in subjects if subject in store.rows}
    rows = tables.collect(folder, name, scores, diagonals)
    summary = scoring.summarise(rows, attributes=people, age_band=settings.age_band_years)
    files.write_json(folder / f"{name}.summary.json", summary)
    about = {
        "ukbob_jax": ukbob_jax.__version__,
        "architecture": plans.network.name,
        "device": costs.device(),
        "methods": {METHOD: costs.summarise([done[s]["costs"] for s in subjects if "costs" in done[s]])},
    }
    files.write_json(folder / f"{name}.run.json", about)
    for method, found in summary.items():
        print(f"evaluate_nnunet {name}, {scoring.line(method, found)}", file=sys.stderr)


def score(
    segmenter: NnunetSegmenter,
    plans: NnunetPlans,
    case: Case,
    organs: dict[int, str],
    config: Config,
    meter: costs.Meter,
) -> dict[str, Any]:
    """`scores` of one scan, as `evaluate` keeps them, `diagonal_mm` of its field of view, and `costs`."""
    settings = config.evaluate
    truth = annotated(case, plans)
    paths = [pathlib.Path(path) for path in case.images]
    prediction, spent = meter.run(METHOD, lambda: segmenter.predict(paths))
    if prediction.volume.shape != truth.shape:
        raise MismatchError(
            f"{case.labels[LABEL_SET]}: shape {truth.shape}, but its image has {prediction.volume.shape}. Correct it."
        )
    found = scoring.score(
        prediction.volume,
        truth,
        organs,
        surface=settings.surface,
        lesions=settings.lesions,
        tolerance_mm=settings.tolerance_mm,
        tolerances_mm=settings.tolerances_mm.to_dict(),
        regions=plans.regions,
    )
    return {
        "scores": {"organs": found, **tables.outcome(prediction.report)},
        "diagonal_mm": failures.diagonal_mm(truth.shape, truth.spacing_mm),
        "costs": spent,
    }


def annotated(case: Case, plans: NnunetPlans) -> Volume:
    """The label map as it is stored, 255 where it was not annotated."""
    volume = read_volume(case.labels[LABEL_SET], kind="label")
    ignored = [int(id_) for id_ in case.description.ignored.get(LABEL_SET, ())]
    ids = np.where(np.isin(volume.array, ignored), IGNORE, volume.array).astype(np.uint8)
    return Volume(ids, volume.affine)
