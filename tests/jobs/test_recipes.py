"""The recipes of public datasets, each on small synthetic scans in the dataset's own layout."""

import json

import nibabel
import numpy as np
import pytest

from configs import amos, brats, btcv, swin_bob
from ukbob_jax import files, settings
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.jobs import evaluate, ingest, predict, train
from ukbob_jax.store.reader import Store

pytestmark = pytest.mark.usefixtures("quick_compilation")

TINY = {
    "workers": 1, "data.crop": (32, 32, 32), "data.batch_size": 2, "data.threads": 2, "mesh.data": 1,
    "model.feature_size": 12, "model.depths": (1, 1, 1, 1), "epochs.total": 0, "train.steps": 2,
    "optimizer.warmup_steps": 1, "train.eval_every": 2, "train.log_every": 1, "augment": ("intensity",),
    "inference.overlap": 0.0,
}  # fmt: skip


def write(path, array, spacing):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([*spacing, 1.0])), path)


def ct(rng, classes, shape=(20, 20, 12)):
    """An image in HU and labels in boxes, so that there is something to see."""
    label = np.kron(rng.integers(0, classes, tuple(s // 4 for s in shape)), np.ones((4, 4, 4))).astype(
        np.uint8
    )
    return (60 * label - 150 + rng.normal(0, 10, shape)).astype(np.int16), label


def recipe(module, variant, workdir, root, **changes):
    config = module.get_config(variant).copy_and_resolve_references()
    for name, value in {**TINY, "source.paths.root": str(root), **changes}.items():
        *sections, field = name.split(".")
        section = config
        for part in sections:
            section = section[part]
        with section.unlocked(), section.ignore_type():
            section[field] = value
    return settings.resolve(config, workdir)


def trained(config, workdir):
    for job in (ingest, train):
        job.run(config, str(workdir))
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert all(np.isfinite(json.loads(line)["train/loss"]) for line in lines[:2])
    return json.loads(lines[-1])


@pytest.mark.parametrize("module", [btcv, brats, amos, swin_bob])
def test_every_variant_is_a_recipe_that_differs_from_the_first(module):
    made = [module.get_config(variant).to_json() for variant in module.VARIANTS]
    assert len(set(made)) == len(made) and module.get_config().to_json() == made[0]


def test_recipes_start_from_the_published_numbers():
    """Of the paper: crops, batch, losses, epochs; of the released script: optimizer, sampling, windows."""
    for made in (swin_bob.get_config(), btcv.get_config(), brats.get_config(), amos.get_config()):
        assert made.data.crop == (96, 96, 96) and made.data.batch_size == 8
        assert (made.optimizer.learning_rate, made.optimizer.weight_decay) == (1e-4, 1e-5)
        assert (made.model.feature_size, made.model.depths, made.model.num_heads, made.model.window_size) == (
            48, (2, 2, 2, 2), (3, 6, 12, 24), (7, 7, 7)
        )  # fmt: skip
    whole, few = swin_bob.get_config(), btcv.get_config()
    assert (whole.loss.name, whole.epochs.total, whole.solf.epsilon) == ("dice_bce", 3_000, 2.0)
    assert whole.epochs.warmup > 50 and whole.model.out_channels == 73
    for made in (few, brats.get_config(), amos.get_config()):
        assert (made.epochs.total, made.epochs.warmup) == (500, 50)
    assert few.epochs.crops == 4 and few.data.foreground == 0.5 and few.source.spacing_mm == (1.5, 1.5, 2.0)
    assert few.data.normalize == "window:-175:250" and few.inference.overlap == 0.5
    assert brats.get_config().loss.name == "dice_bce" and brats.get_config().inference.overlap == 0.6


@pytest.mark.slow
def test_btcv(tmp_path):
    rng = np.random.default_rng(0)
    split = files.read_json(btcv.SPLIT)
    for name in split["train"] + split["val"]:
        image, label = ct(rng, 14)
        write(tmp_path / "raw" / "img" / f"{name}.nii.gz", image, (1.5, 1.5, 2.0))
        write(tmp_path / "raw" / "label" / f"{name.replace('img', 'label')}.nii.gz", label, (1.5, 1.5, 2.0))
    config = recipe(btcv, "finetune", tmp_path / "run", tmp_path / "raw", **{"train.accumulate": 2})
    numbers = trained(config, tmp_path / "run")
    assert {"val/dice", "val/dice/liver", "val/dice/adrenal_gland_left"} < numbers.keys() and len(
        numbers
    ) == 15
    assert len(Segmenter.load(tmp_path / "run").names) == 14


@pytest.mark.slow
def test_amos(tmp_path):
    rng = np.random.default_rng(0)
    lists = {"training": (1, 4), "validation": (8,)}
    dataset = {"name": "AMOS", "modality": {"0": "CT"}, "labels": {str(n): str(n) for n in range(16)}}
    for field, numbers in lists.items():
        ending = "Tr" if field == "training" else "Va"
        dataset[field] = []
        for number in numbers:
            entry = {kind: f"./{kind}s{ending}/amos_{number:04d}.nii.gz" for kind in ("image", "label")}
            for kind, array in zip(entry, ct(rng, 16)):
                write(tmp_path / "raw" / entry[kind], array, (1.5, 1.5, 2.0))
            dataset[field].append(entry)
    files.write_json(tmp_path / "raw" / "dataset.json", dataset)
    numbers = trained(recipe(amos, "finetune", tmp_path / "run", tmp_path / "raw"), tmp_path / "run")
    assert {"val/dice/duodenum", "val/dice/prostate_or_uterus"} < numbers.keys() and len(numbers) == 17


@pytest.mark.slow
def test_brats_from_files_to_label_maps_scored_by_region(tmp_path):
    rng = np.random.default_rng(0)
    root, workdir = tmp_path / "raw", tmp_path / "run"
    for number in range(3):
        subject = f"BraTS20_Training_{number:03d}"
        label = np.zeros((24, 24, 24), np.uint8)
        label[4:20, 4:20, 4:20], label[7:17, 7:17, 7:17], label[9:14, 9:14, 9:14] = 2, 4, 1
        head = np.pad(np.ones((20, 20, 20)), 2)
        for channel, ending in enumerate(("t1", "t1ce", "t2", "flair")):
            image = head * (100 + 40 * channel * (label > 0) + rng.normal(0, 5, label.shape))
            write(root / subject / f"{subject}_{ending}.nii.gz", image.astype(np.int16), (1, 1, 1))
        write(root / subject / f"{subject}_seg.nii.gz", label, (1, 1, 1))
    changes = {
        "folds": 3, "predict.inputs": str(root), "evaluate.split": "train", "evaluate.methods": ("off",), "train.steps": 10,
        "train.eval_every": 10, "optimizer.learning_rate": 5e-3, "optimizer.layer_decay": 1.0,
    }  # fmt: skip
    config = recipe(brats, "finetune", workdir, root, **changes)
    numbers = trained(config, workdir)
    assert set(numbers) == {"step", "val/dice", "val/dice/WT", "val/dice/TC", "val/dice/ET"}
    assert numbers["val/dice/WT"] > 0.3  # it lights up in three contrasts
    predict.run(config, str(workdir))
    evaluate.run(config, str(workdir))
    subject = Store.open(workdir / "store").subjects[0]
    found = nibabel.load(workdir / "predictions" / f"{subject}.nii.gz").get_fdata()
    assert set(np.unique(found)) <= {0, 1, 2, 4} and found.any()
    rows = files.read_jsonl(workdir / "evaluation" / "test.jsonl")
    assert {row["organ"] for row in rows} == {"WT", "TC", "ET"} and len(rows) == 9
    assert all(0 <= row["dice"] <= 1 for row in rows)  # every scan has every region: none is left undefined
    assert np.mean([row["dice"] for row in rows if row["organ"] == "WT"]) > 0.3
