"""Preprocess the training cases of an nnU-Net raw folder, as its plans say, into the store.

The store keeps nnU-Net's own axes: x y z of an array here are axes 0 1 2 of nnU-Net's, z y x of the file after
`transpose_forward`, and its affine holds their spacing alone. So crops, networks, windows and distances are nnU-Net's;
where a voxel lies in the patient is not kept, since what is predicted goes back to the scan by nnU-Net's own steps.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from ukbob_jax import files, processes, splits
from ukbob_jax.data.options import Config
from ukbob_jax.errors import FileError
from ukbob_jax.failures import FILE, Failure, Failures, failure
from ukbob_jax.inference.nnunet import plans as model_plans
from ukbob_jax.inference.nnunet import raw_folder, training_case, write
from ukbob_jax.progress import track
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.case import LABEL_SET, Case

SPLITS = "splits_final.json"  # in the workdir, nnU-Net's folds


def run(config: Config, workdir: str) -> None:
    """Preprocess every case of imagesTr that the store does not have yet; one that fails does not stop the others.

    Also begins the model folder, and writes nnU-Net's folds where there are cases enough.

    Raises:
        ConfigError: no plans, or ones that cannot be trained here.
        FileError: a raw folder or plans that cannot be read, or a store that cannot be written.
        SomeFailed: some cases failed; `failures.jsonl` in the workdir says which and why.
    """
    root = config.source.paths.root
    folder = pathlib.Path(workdir) / "nnunet"
    plans = write.begin(folder, config.plans, root, config.configuration, "mirror" in config.augment)
    cases = raw_folder.training_cases(root)
    workers = min(config.workers or processes.cores(), len(cases))
    one = functools.partial(write_one, store=config.store, model=str(plans.folder))
    failures = Failures(pathlib.Path(workdir) / FILE)
    with StoreWriter(config.store):
        done = track(processes.each(one, cases, workers), "preprocess", total=len(cases))
        failures.rows += [row for case, outcome in done if (row := failure_of(case, outcome))]
    if len(cases) >= splits.NNUNET_FOLDS:
        names = [case.subject for case in cases if not case.problem]
        files.write_json(pathlib.Path(workdir) / SPLITS, splits.nnunet_folds(names))
    failures.conclude(len(cases))


def write_one(case: Case, store: str, model: str) -> Failure | None:
    """Preprocess and write one case, unless it is there; runs in a worker process.

    Args:
        case: of the raw folder.
        store: folder.
        model: folder with the plans.
    Raises:
        FileError: the store cannot be written: no other case would fare better.
    """
    stage = "list"
    try:
        if case.problem:
            raise FileError(case.problem)
        plans = model_plans.read(model)
        source = raw_folder.checksum(case, plans)
        writer = StoreWriter(store)
        if writer.has(case.subject, source):
            return None
        stage = "preprocess"
        values = convert(case, plans)
        stage = "write"
        writer.write(case.subject, source=source, split="train", **values)
    except Exception as error:
        if stage == "write" and isinstance(error, FileError):
            raise
        return failure(case.subject, ", ".join(map(str, case.images)), stage, error)
    return None


def failure_of(case: Case, outcome: Any) -> Failure | None:
    """The failure of one case, if it failed; errors that concern all of them are raised."""
    if isinstance(outcome, processes.WorkerDied):
        return failure(case.subject, ", ".join(map(str, case.images)), "worker", outcome)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def convert(case: Case, plans: model_plans.NnunetPlans) -> dict[str, Any]:
    """What `StoreWriter.write` takes of a case."""
    array, labels = training_case.prepare(plans, case.images, case.labels[LABEL_SET])
    return {
        "image": np.moveaxis(array, 0, -1),
        "affine": np.diag([*plans.spacing, 1.0]),
        "labels": {LABEL_SET: labels},
        "description": dataclasses.replace(case.description, units=""),  # HU no longer
        "exact": True,
    }
