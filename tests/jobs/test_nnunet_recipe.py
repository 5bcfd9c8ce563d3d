"""The recipe that trains as nnU-Net does: from a raw folder to a folder that nnU-Net predicts with."""

import json
import pathlib

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.inference.nnunet import raw_folder
from ukbob_jax import settings
from ukbob_jax.jobs import evaluate, export_nnunet, preprocess, train
from ukbob_jax.jobs.train import recipe
from ukbob_jax.store.reader import Store

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


@pytest.mark.slow
def test_a_small_training_learns_and_its_folder_is_one_that_torch_loads(tmp_path, quick_compilation):
    torch = pytest.importorskip("torch")
    config, workdir = made(tmp_path, *raw_folder.write(tmp_path)), tmp_path / "w"
    for job in (preprocess, train, export_nnunet, evaluate):
        job.run(config, str(workdir))
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert np.isfinite(losses).all() and losses[-1] < 0.7 * losses[0]
    assert max(row["val/dice/ball"] for row in rows if "val/dice/ball" in row) > 0.6
    assert (workdir / "evaluation/fold.summary.json").is_file()
    folder = workdir / f"nnunet/{raw_folder.NAME}/nnUNetTrainer__nnUNetPlans__3d_fullres"
    found = torch.load(folder / "fold_0/checkpoint_final.pth", weights_only=True)
    assert found["current_epoch"] == 10
    for name in ("decoder.encoder.stages.0.0.convs.0.all_modules.0.weight", "decoder.seg_layers.0.weight"):
        assert name in found["network_weights"]  # an alias, and a head of deep supervision
