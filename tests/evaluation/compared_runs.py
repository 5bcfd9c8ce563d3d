"""Evaluations without a network, as the job evaluate leaves them: true labels moved by a few voxels are what was "found"."""

import pathlib

import numpy as np

from ukbob_jax import anatomy, files
from ukbob_jax.evaluation import scoring, tables
from ukbob_jax.evaluation.failures import diagonals_mm
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.volume import Volume

SHAPE, SUBJECTS = (24, 20, 22), 8
ORGANS = {anatomy.IDS[name]: name for name in ("liver", "spleen", "kidney_left", "stomach")}


def store(folder: pathlib.Path) -> Store:
    """Eight people with four boxes each, a little different; the last lacks its stomach."""
    with StoreWriter(folder / "store") as writer:
        for number in range(SUBJECTS):
            rng = np.random.default_rng(number)
            label = np.zeros(SHAPE, np.uint8)
            for place, organ in enumerate(ORGANS):
                x, y = 2 + 11 * (place % 2), 2 + 9 * (place // 2)
                size = rng.integers(6, 9, 3)
                label[x : x + size[0], y : y + size[1], 6 : 6 + size[2]] = organ
            if number == SUBJECTS - 1:
                label[label == anatomy.IDS["stomach"]] = 0
            image = 100.0 + 40 * label + rng.normal(0, 8, SHAPE)
            writer.write(
                f"p{number:02}", image[..., None].astype(np.int16), np.diag([3.0, 3, 3, 1]), {"manual": label},
                source=str(number), split="test", contrasts=("water",),
                attributes={"sex": "FM"[number % 2], "age_years": 50.0 + 3 * number},
            )  # fmt: skip
    return Store.open(folder / "store")


def evaluate(
    workdir: pathlib.Path,
    store: Store,
    moved: int,
    subjects: int = SUBJECTS,
    kept: int = 3,
    seconds: float = 1.5,
) -> pathlib.Path:
    """Score labels that lie `moved` voxels too far along x, in the odd people one more; keep `kept` label maps."""
    folder, names = workdir / "evaluation", store.subjects[:subjects]
    scores = {}
    for number, subject in enumerate(names):
        truth = Volume(store.read(subject, "label/manual"), np.asarray(store.rows[subject].affine))
        found = Volume(np.roll(truth.array, moved + (number % 2) * (moved > 0), axis=0), truth.affine)
        organs = scoring.score(found, truth, ORGANS, surface=True)
        scores[subject] = {"off": {"organs": organs, "mean_entropy": 0.1, "accepted": None, "reason": None}}
        if number < kept:
            write_volume(folder / "test" / f"{subject}_off.nii.gz", found, ORGANS)
    rows = tables.collect(folder, "test", scores, diagonals_mm(store.rows, names))
    files.write_json(folder / "test.summary.json", scoring.summarise(rows))
    about = {
        "store": store.path, "label": "manual", "label_map": "", "device": "1 x cpu", "architecture": "swin_unetr",
        "parameters": 4_000_000 + moved,
        "methods": {"off": {"timed": 7, "seconds_per_scan": seconds, "estimated_bytes": 2e9, "peak_bytes": 3e9}},
    }  # fmt: skip
    files.write_json(folder / "test.run.json", about)
    return workdir
