"""The preset vibesegmentator: labels as its program recorded them, and what a model folder may ask for."""

import dataclasses
import functools
import json
import shutil

import numpy as np
import pytest
from scipy.special import softmax

import ukbob_jax as bob
from tests.inference.nnunet import tiny
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.nnunet import export, recipes, tptbox
from ukbob_jax.volumes.nifti import read_volume

NAMES = {0: "background", 1: "spleen", 2: "liver"}


def recipe(names):
    """VIBESegmentator's, with the labels of another model."""
    return dataclasses.replace(
        recipes.find("vibesegmentator"), parts=(bob.nnunet.Part(100, names),), label_set=""
    )


@pytest.fixture(scope="module")
def recorded(reference, tmp_path_factory):
    """The recorded run, and its model where the program keeps its own."""
    run = reference / "nnunet_networks" / "runs" / "mr_plain"
    if not run.is_dir():
        pytest.skip("no recorded run of TPTBox here")
    [model] = (run / "model").iterdir()
    place = tmp_path_factory.mktemp("weights")
    (place / "nnUNet_results" / "Dataset100").mkdir(parents=True)
    (place / "nnUNet_results" / "Dataset100" / model.name).symlink_to(model.resolve())
    return (
        run,
        place,
        {i: name for name, i in json.loads((model / "dataset.json").read_text())["labels"].items()},
    )


@pytest.fixture(scope="module")
def near(recorded):
    """Voxels of the model's grid, without padding, where the two best probabilities are closer than 0.01."""
    run, place, names = recorded
    segmenter = bob.nnunet.preset(recipe(names), place)
    model = segmenter.models[0].get()
    given = segmenter.steps.before(read_volume(run / "inputs" / "torso_0000.nii.gz"))
    array, properties = model.preprocess(given)
    best = np.sort(softmax(model.logits(array, mirror=False), axis=0), axis=0)
    paste = functools.partial(export.paste, plans=model.plans, properties=properties)
    return tptbox.unpad(paste((best[-1] - best[-2] < 0.01).astype(np.uint8)))


@pytest.mark.reference
@pytest.mark.parametrize("options", [{}, {"keep_size": True}, {"fill_holes": True}], ids=str)
def test_labels_are_those_of_the_program(recorded, near, options):
    """But where rounding decides: it works in float16 from the image to the sums of logits."""
    run, place, names = recorded
    scan = run / "inputs" / "torso_0000.nii.gz"
    found = bob.nnunet.preset(recipe(names), place, **options).predict(scan).volume
    name = next(iter(options), "default")
    expected = read_volume(run / "expected" / f"torso_tptbox_{name}.nii.gz", kind="label")
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)
    assert found.array.dtype == np.uint8
    differ = found.array != expected.array
    rounding = near.array if "keep_size" in options else tptbox.back(near, read_volume(scan)).array
    assert not (differ & (rounding == 0)).any() and differ.mean() < 3e-4


@pytest.fixture
def folder(tmp_path):
    """A model of three folds, one of them of all cases, whose dataset.json turns and resamples."""
    made = tiny.dataset_folder(tmp_path, 100, list(NAMES.values())[1:], "nnUNetTrainer", folds=(0, 1, 2))
    (made / "fold_2").rename(made / "fold_all")
    said = json.loads((made / "dataset.json").read_text())
    said |= {"orientation": ["L", "P", "S"], "spacing": [3.0, 2.0, 2.0]}  # z y x
    (made / "dataset.json").write_text(json.dumps(said))
    return made


@pytest.fixture(scope="module")
def scan():
    values = np.random.default_rng(0).normal(0, 4, (14, 12, 9)).astype(np.float32)
    return bob.Volume(values, np.diag([2.4, 2.0, 3.5, 1.0])).reorient("PIR")


@pytest.mark.usefixtures("quick_compilation")
def test_every_fold_counts_and_ids_are_changed_as_asked(folder, scan, tmp_path):
    segmenter = bob.nnunet.preset(recipe(NAMES), tmp_path)
    [part] = segmenter.provenance["parts"]
    assert part["folds"] == ["fold_0", "fold_1", "fold_all"] and part["step_size"] == 0.5
    labels = segmenter(scan)
    assert labels.shape == scan.shape and labels.orientation == "PIR" and len(np.unique(labels.array)) == 3
    model = dataclasses.replace(
        bob.nnunet.load(folder, "0,1,all"), importance=tptbox.importance
    )  # mirrors unless told not to
    grid = tptbox.read_grid(folder)
    inner = model.predict(tptbox.before(scan, grid), mirror=False)
    np.testing.assert_array_equal(tptbox.after(inner, scan, grid).array, labels.array)
    assert bob.nnunet.preset(recipe(NAMES), tmp_path, folds="0").provenance["parts"][0]["folds"] == ["fold_0"]

    config = {"labels": {"1": 7, "2": 300}}
    (folder / tptbox.CONFIG).write_text(json.dumps(config))
    other = bob.nnunet.preset(recipe(NAMES), tmp_path)
    assert other.names == {0: "background", 7: "spleen", 300: "liver"} and other.digest != segmenter.digest
    changed = other.predict(scan)
    np.testing.assert_array_equal(changed.volume.array, np.array([0, 7, 300])[labels.array])
    assert changed.volume.array.dtype == np.uint16
    assert changed.report["structures"]["liver"]["mean_confidence"] > 1 / 3

    (folder / tptbox.CONFIG).write_text(json.dumps({"labels": {"1": "L1"}}))
    with pytest.raises(ConfigError, match="renumber 1 to L1, and only numbers are read here"):
        bob.nnunet.preset(recipe(NAMES), tmp_path)


@pytest.mark.usefixtures("quick_compilation")
def test_the_encoder_with_residuals_is_preferred(folder, tmp_path):
    preferred = folder.with_name("nnUNetTrainer__nnUNetResEncUNetLPlans__3d_fullres")
    shutil.copytree(folder, preferred)
    assert bob.nnunet.preset(recipe(NAMES), tmp_path).models[0].kept.plans.folder == preferred
