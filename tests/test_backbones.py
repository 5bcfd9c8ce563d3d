"""The other backbones walk through everything by their names in a recipe: trained, resumed, adapted, exported, split."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ukbob_jax as bob
from tests import test_seam as seam
from tests.conftest import ROOT
from tests.training import toy
from ukbob_jax import files, jobs, networks, settings
from ukbob_jax.models import architecture
from ukbob_jax.training import losses, sharding
from ukbob_jax.training.checkpoints import restore_params

pytestmark = pytest.mark.usefixtures("quick_compilation")

PLANS = {
    "n_stages": 3, "features_per_stage": (3, 4, 4), "kernel_sizes": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)), "n_conv_per_stage_decoder": (1, 1),
}  # fmt: skip
FIELDS = {
    "mednext": {
        "n_channels": 2, "exp_r": (1,) * 9, "block_counts": (1, 0, 0, 0, 1, 0, 0, 0, 0), "grn": True, "deep_supervision": 1,
    },
    "primus": {
        "embed_dim": 24, "patch_embed_size": (4, 4, 4), "input_shape": (16, 16, 32), "eva_depth": 2, "eva_numheads": 2,
        "num_register_tokens": 1, "drop_path_rate": 0.1,
    },
    "plain_unet": {**PLANS, "n_conv_per_stage": (1, 1, 1)},
    "resenc_unet": {**PLANS, "n_blocks_per_stage": (1, 1, 1)},
    "stunet": {
        "dims": (3, 4, 4), "depth": (1, 1, 1), "pool_op_kernel_sizes": ((1, 2, 2), (2, 2, 2)),
        "conv_kernel_sizes": ((3, 3, 3),) * 3,
    },
}  # fmt: skip
OTHERS = {name: value for name, value in seam.OVERRIDES.items() if not name.startswith("model.")}


def recipe(name, workdir, **changes):
    """The demo's recipe with another network, as from a command line."""
    words = [
        f"--config={ROOT}/configs/swin_bob.py:demo",
        f"--config.model.name={name}",
        f"--workdir={workdir}",
    ]
    config, _ = settings.parse(words, usage="")
    own = {f"model.{field}": value for field, value in FIELDS[name].items()}
    changes = {"model.out_channels": 0, **OTHERS, **own, **changes}
    return settings.resolve(settings.with_fields(config, changes), workdir)


@pytest.mark.parametrize("name", FIELDS)
def test_a_recipe_names_it_and_its_section_builds_it(name, tmp_path):
    config = recipe(name, tmp_path, **{"model.out_channels": 3})
    model = networks.from_section(config.model.to_dict())
    said = architecture.of(model)
    assert said.name == name and model.out_channels == 3 and model.in_channels == 4
    assert said.build(json.loads(json.dumps(said.fields(model)))) == model


@pytest.mark.slow
@pytest.mark.parametrize("name", FIELDS)
def test_it_trains_resumes_adapts_and_segments(name, tmp_path):
    workdir, again = tmp_path / "first", tmp_path / "again"
    steps = {"train.steps": 4, "train.eval_every": 2, "train.checkpoint_every": 2}
    for job in ("ingest", "train", "evaluate"):
        jobs.find(job).run(recipe(name, workdir, **steps), str(workdir))
    rows = [row for row in files.read_jsonl(workdir / "metrics.jsonl") if "train/loss" in row]
    assert len(rows) == 4 and rows[-1]["train/loss"] < rows[0]["train/loss"]
    shutil.copytree(workdir, again)
    shutil.rmtree(again / "checkpoints" / "step_00000004")
    assert (again / "checkpoints" / "step_00000002").is_dir()
    store = {"store": str(workdir / "stores" / "cohort")}
    jobs.find("train").run(recipe(name, again, **steps, **store), str(again))
    before, after = (restore_params(path / "checkpoints", "latest")[0] for path in (workdir, again))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    scans = {row["method"]: row for row in files.read_jsonl(workdir / "evaluation" / "test.scans.jsonl")}
    assert scans["etta"]["entropy_after"] != scans["etta"]["entropy_before"]
    segmenter = bob.Segmenter.load(workdir)
    bob.weights.save(tmp_path / "w.safetensors", segmenter.params, segmenter.model, card=segmenter.card)
    loaded = bob.weights.load(tmp_path / "w.safetensors", segmenter.model)
    jax.tree.map(np.testing.assert_array_equal, dict(segmenter.params), dict(loaded))


@pytest.mark.slow
@pytest.mark.parametrize("name", FIELDS)
def test_a_step_is_the_same_where_batch_parameters_and_crops_are_split(name):
    of_one_size = {"input_shape": (32, 16, 16), "drop_path_rate": 0.0} if name == "primus" else {}
    supervised = {"deep_supervision": True} if name in ("plain_unet", "resenc_unet", "stunet") else {}
    model = networks.build(name, 2, toy.CLASSES, **{**FIELDS[name], **of_one_size, **supervised})
    strides = architecture.of(model).strides(model)
    loss = losses.deep(losses.dice_ce, strides) if len(strides) > 1 else losses.dice_ce
    crops = [toy.batch(step, size=4, shape=(32, 16, 16)) for step in range(2)]
    train = functools.partial(toy.run, model=model, batches=crops, loss_fn=loss, learning_rate=1e-3)
    alone = train(sharding.make_mesh(data=1, batch_size=4))[1]
    split = train(sharding.make_mesh(data=2, fsdp=2, space=2, batch_size=4))[1]
    for found, wanted in zip(split, alone, strict=True):
        np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)
        np.testing.assert_allclose(found["grad_norm"], wanted["grad_norm"], rtol=1e-4)


@pytest.mark.slow
def test_a_step_through_the_seam_moves_the_loss():
    model = networks.build("primus", 2, toy.CLASSES, **{**FIELDS["primus"], "input_shape": (8, 8, 8)})
    crops = [toy.batch(0, size=2, shape=(8, 8, 8))] * 3
    metrics = toy.run(sharding.make_mesh(data=1, batch_size=2), model=model, batches=crops)[1]
    assert metrics[2]["loss"] < metrics[0]["loss"] and not any(one["skipped"] for one in metrics)
    assert jnp.isfinite(metrics[0]["grad_norm"])
