"""The recipe that trains as nnU-Net does: from a raw folder to a folder that nnU-Net predicts with."""

import importlib.util
import json
import pathlib
import warnings

import numpy as np
import pytest

import ukbob_jax as bob
from tests.conftest import ROOT
from tests.inference.nnunet import raw_folder, tiny
from ukbob_jax import networks, settings, weights
from ukbob_jax.inference.nnunet import write
from ukbob_jax.jobs import evaluate, evaluate_nnunet, export_nnunet, preprocess, train
from ukbob_jax.jobs.train import recipe
from ukbob_jax.store.reader import Store
from ukbob_jax.weights import tensors

SHORT = (
    "train.steps=40", "optimizer.hold_steps=4", "train.log_every=10", "train.eval_every=20", "mesh.data=1",
    "train.checkpoint_every=20", "data.threads=1", "workers=1", "evaluate.surface=False",
)  # fmt: skip


def made(root: pathlib.Path, raw: str, plans: str, *more: str):
    """The recipe of a small training, for the workdir `root`/w."""
    words = (f"source.paths.root={raw}", f"plans={plans}", *SHORT, *more)
    argv = [
        f"--config={ROOT}/configs/nnunet.py",
        f"--workdir={root}/w",
        *(f"--config.{word}" for word in words),
    ]
    config, _ = settings.parse(argv, usage="")
    return settings.resolve(config, root / "w")


def test_the_store_holds_the_arrays_of_nnunet_and_the_plans_fill_the_recipe(tmp_path):
    config = made(tmp_path, *raw_folder.write(tmp_path))
    for _ in range(2):  # the second run finds all cases there
        preprocess.run(config, str(tmp_path / "w"))
    store = Store.open(tmp_path / "w/store")
    row = store.rows["case_0"]
    assert len(store.subjects) == 6 and (row.dtype, row.version) == ("float32", 1)
    assert row.shape == (20, 16, 21) and row.spacing_mm == (2.0, 2.0, 2.0)  # z y x of the file, transposed
    assert row.label_names["manual"] == {0: "background", 1: "ball", 2: "box"}
    assert store.read("case_0", "image").mean() == pytest.approx(0, abs=1e-5)
    assert len(json.loads((tmp_path / "w/splits_final.json").read_text())) == 5
    found = recipe.planned(config, str(tmp_path / "w"))
    assert (found.data.crop, found.data.batch_size) == ((16, 16, 16), 2)
    assert (found.model.name, found.model.n_stages, found.model.deep_supervision) == ("plain_unet", 3, True)
    loss = found.loss
    assert (loss.name, loss.include_background, loss.batch, loss.lambda_ce) == ("dice_ce", False, True, 1.0)


def test_scores_on_the_files_are_those_of_their_label_maps(tmp_path, quick_compilation):
    """Of a network with random weights; a corner of each scan is not annotated."""
    config, workdir = made(tmp_path, *raw_folder.write(tmp_path, ignore=True)), str(tmp_path / "w")
    preprocess.run(config, workdir)
    plans = write.find(tmp_path / "w/nnunet", config.plans, "3d_fullres", mirrored=True)
    model = networks.build(plans.network.name, plans.in_channels, plans.out_channels, **plans.network.fields)
    values = tiny.drawn(tensors.variables(model), 0)
    write.checkpoint(plans, weights.to_torch(values.pop("params"), model, values), 0)
    evaluate_nnunet.run(config, workdir)
    rows = [
        json.loads(line) for line in (tmp_path / "w/evaluation/fold_files.jsonl").read_text().splitlines()
    ]
    (first, *_) = json.loads((tmp_path / "w/splits_final.json").read_text())
    assert {row["subject"] for row in rows} == set(first["val"]) and {row["organ"] for row in rows} == {
        "ball",
        "box",
    }
    subject = first["val"][0]
    scan = f"{config.source.paths.root}/imagesTr/{subject}_0000.nii.gz"
    found = bob.nnunet.load(plans.folder).predict(scan).array
    true = bob.read_volume(scan.replace("_0000", "").replace("imagesTr", "labelsTr"), kind="label").array
    found, true = found[true != 3], true[true != 3]
    for number, organ in ((1, "ball"), (2, "box")):
        both = ((found == number) & (true == number)).sum()
        dice = 2 * both / ((found == number).sum() + (true == number).sum())
        row = next(row for row in rows if (row["subject"], row["organ"]) == (subject, organ))
        assert row["dice"] == pytest.approx(dice, abs=1e-6)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "w/evaluation/fold_files").iterdir()}
    evaluate_nnunet.run(config, workdir)
    assert kept == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "w/evaluation/fold_files").iterdir()
    }


JOBS = (preprocess, train, export_nnunet, evaluate, evaluate_nnunet)


@pytest.mark.slow
def test_a_small_training_learns_and_its_folder_is_one_that_torch_loads(tmp_path, quick_compilation):
    torch = pytest.importorskip("torch")
    config, workdir = made(tmp_path, *raw_folder.write(tmp_path)), tmp_path / "w"
    for job in JOBS:
        job.run(config, str(workdir))
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert np.isfinite(losses).all() and losses[-1] < 0.7 * losses[0]
    assert max(row["val/dice/ball"] for row in rows if "val/dice/ball" in row) > 0.6
    for name in ("fold", "fold_files"):
        assert (workdir / f"evaluation/{name}.summary.json").is_file()
    folder = workdir / f"nnunet/{raw_folder.NAME}/nnUNetTrainer__nnUNetPlans__3d_fullres"
    found = torch.load(folder / "fold_0/checkpoint_final.pth", weights_only=True)
    assert found["current_epoch"] == 10
    for name in ("decoder.encoder.stages.0.0.convs.0.all_modules.0.weight", "decoder.seg_layers.0.weight"):
        assert name in found["network_weights"]  # an alias, and a head of deep supervision
    beside_nnunet(folder, workdir, config)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["regions", "ignore", "regions and ignore"])
def test_a_training_with_regions_or_an_ignored_label_goes_through_to_nnunet(
    tmp_path, quick_compilation, kind
):
    changes = {"regions": "regions" in kind, "ignore": "ignore" in kind}
    few = ("train.steps=4", "train.eval_every=4", "train.checkpoint_every=4", "train.log_every=2")
    config, workdir = made(tmp_path, *raw_folder.write(tmp_path, **changes), *few), tmp_path / "w"
    for job in JOBS:
        job.run(config, str(workdir))
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite([row["train/loss"] for row in rows if "train/loss" in row]).all()
    names = {"anything", "box"} if changes["regions"] else {"ball", "box"}
    for table in ("fold", "fold_files"):
        found = (workdir / f"evaluation/{table}.jsonl").read_text().splitlines()
        assert {json.loads(line)["organ"] for line in found} == names
    folder = workdir / f"nnunet/{raw_folder.NAME}/nnUNetTrainer__nnUNetPlans__3d_fullres"
    beside_nnunet(folder, workdir, config)


def beside_nnunet(folder: pathlib.Path, workdir: pathlib.Path, config) -> None:
    """nnU-Net, where it is installed, predicts with a folder what we predict."""
    if not importlib.util.find_spec("nnunetv2"):
        return
    from tests.inference.nnunet.random_models import compare, theirs

    scan = (f"{config.source.paths.root}/imagesTr/case_0_0000.nii.gz",)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's and nnU-Net's own, about what they will remove
        expected = theirs.predict(theirs.predictor(folder, [0]), scan, workdir / "theirs.nii.gz")
    ours = bob.nnunet.load(folder)
    found = compare.compare(ours, scan, expected, workdir / "ours.nii.gz", None)
    assert found.equal, found
