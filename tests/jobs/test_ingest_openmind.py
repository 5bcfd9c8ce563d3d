"""A manifest of OpenMind through its recipe into a store, and from there to a batch."""

import csv
import itertools

import nibabel
import numpy as np
import pytest

from configs import ingest_openmind
from tests.data.test_training_data import recipe
from ukbob_jax import errors, files
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.jobs import ingest
from ukbob_jax.store.reader import Store


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0])), path)


@pytest.fixture
def openmind(tmp_path):
    """Four persons of two studies; the last one's scan is missing, the third has no masks."""
    rng, rows = np.random.default_rng(0), []
    for number, (study, masks) in enumerate([("ds1", True), ("ds1", True), ("ds2", False), ("ds2", False)]):
        where = f"{study}/sub-{number}/anat/sub-{number}"
        row = {
            "image_path": f"{where}_T1w.nii.gz",
            "modality": "T1w",
            "age": 20 + number,
            "image_quality_score": 2,
        }
        image = rng.integers(1, 900, (12, 10, 8)).astype(np.int16)
        image[:2] = 0
        anatomy, anonymised = np.zeros((2, 12, 10, 8), np.uint8)
        anatomy[4:10, 2:8], anonymised[8:] = 1, 1
        if number < 3:
            save(tmp_path / "OpenMind" / row["image_path"], image)
        for column, mask in (("anat_mask_path", anatomy), ("anon_mask_path", anonymised)) if masks else ():
            row[column] = f"{where}_{column[:4]}.nii.gz"
            save(tmp_path / "OpenMind" / row[column], mask)
        rows.append(row)
    with open(tmp_path / "openneuro_metadata.csv", "w", newline="") as file:
        table = csv.DictWriter(file, [*rows[0]], restval="")
        table.writeheader()
        table.writerows(rows)
    return tmp_path


def config(folder, variant="native"):
    made = ingest_openmind.get_config(variant)
    made.store, made.workers = str(folder / variant), 1
    made.source.manifest, made.source.root = str(folder / "openneuro_metadata.csv"), str(folder / "OpenMind")
    return made


def test_what_there_is_arrives_and_batches_honour_the_masks(openmind):
    with pytest.raises(errors.SomeFailed, match="1 of 4 subjects failed"):
        ingest.run(config(openmind), str(openmind))
    [row] = files.read_jsonl(openmind / "failures.jsonl")
    assert row["subject"] == "ds2__sub-3__ses-DEFAULT__sub-3_T1w" and "No such file" in row["reason"]
    store = Store.open(openmind / "native")
    first = store.rows["ds1__sub-0__ses-DEFAULT__sub-0_T1w"]
    assert first.shape == (10, 10, 8) and first.labels == ("mask/anatomy", "mask/anonymisation")
    assert first.attributes == {"study": "ds1", "modality": "T1w", "age_years": 20.0, "quality_score": 2.0}
    assert (first.person, first.modality) == ("ds1__sub-0", "MR")
    given = {"label": "", "data.val_split": "", "data.train_split": first.split, "data.crop": (4, 4, 4)}
    of_first = recipe(store, **given, **{"data.foreground": 1.0, "model.out_channels": 1})
    data = TrainingData.open(of_first, str(openmind))
    stream = data.batches(of_first, 0)
    altered = [batch["anonymised"] for batch in itertools.islice(stream, 6)]
    stream.close()
    assert np.mean(altered) < 0.5 and np.concatenate(altered).any()


def test_one_millimetre(openmind):
    (openmind / "OpenMind" / "ds2" / "sub-3" / "anat").mkdir(parents=True)
    save(
        openmind / "OpenMind" / "ds2/sub-3/anat/sub-3_T1w.nii.gz",
        np.arange(1, 65, dtype=np.int16).reshape(4, 4, 4),
    )
    ingest.run(config(openmind, "onemm"), str(openmind))
    store = Store.open(openmind / "onemm")
    assert [store.rows[s].spacing_mm for s in store.subjects] == [(1.0, 1.0, 1.0)] * 4
    assert store.rows[store.subjects[0]].shape == (19, 19, 15)
    mask = store.read(store.subjects[0], "label/mask/anatomy")
    assert set(np.unique(mask)) == {0, 1} and mask.sum() == 12 * 12 * 15  # 6 x 6 voxels of 2 mm
