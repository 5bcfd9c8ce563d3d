"""Model folders from loading to labels, and what is refused."""

import json

import numpy as np
import pytest

import ukbob_jax as bob
from tests.inference.nnunet import test_plans, tiny
from ukbob_jax import cli
from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.inference.nnunet import labels
from ukbob_jax.inference.nnunet.segmenter import NnunetSegmenter

pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tiny.folder(tmp_path_factory.mktemp("model"), folds=("0", "1", "all"), change=tiny.narrow)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "one_0000.nii.gz"
    array = np.random.default_rng(0).normal(2, 3, (20, 18, 12)).astype(np.float32)
    bob.write_volume(path, bob.Volume(array, np.diag([-1.0, 1.0, 2.0, 1.0])))
    return path


def test_folds_are_averaged_and_flips_change_the_logits(made, scan):
    both, first, second = (bob.nnunet.load(made, folds=folds) for folds in ("all", "0", [1]))
    assert [path.parent.name for path in both.checkpoints] == ["fold_0", "fold_1"]
    array, _ = both.preprocess(scan)
    found = [model.logits(array, mirror=False) for model in (both, first, second)]
    assert found[0].shape == (2, *array.shape[1:]) and found[0].dtype == np.float32
    np.testing.assert_allclose(found[0], (found[1] + found[2]) / 2, atol=1e-5)
    assert np.abs(first.logits(array) - found[1]).max() > 1e-3


def test_labels_lie_on_the_scans_grid(made, scan):
    model = bob.nnunet.load(made, folds=0)
    labels, stored = model.predict(scan), bob.read_volume(scan)
    assert labels.shape == stored.shape and labels.array.dtype == np.uint8
    np.testing.assert_array_equal(labels.affine, stored.affine)
    assert len(model.estimates) == 1 and 0 < labels.array.mean() < 1


def test_a_network_of_slices_runs(tmp_path, scan):
    name = "nnUNetTrainer__nnUNetPlans__2d"
    model = bob.nnunet.load(tiny.folder(tmp_path, name, change=tiny.flat, axes=(0, 1)))
    array, properties = model.preprocess(scan)
    logits = model.logits(array)
    assert model.batch == 8 and logits.shape == (2, *array.shape[1:])
    labels, _ = model.segment(array, properties)
    assert labels.shape == (20, 18, 12)


def test_batch_norms_take_their_running_statistics(tmp_path, scan):
    name = "nnUNetTrainerBN__nnUNetPlans__3d_fullres"
    model = bob.nnunet.load(tiny.folder(tmp_path, name, change=tiny.narrow))
    assert "batch_stats" in model.members[0]
    array, _ = model.preprocess(scan)
    twice = model.logits(np.concatenate([array, array], axis=1)[:, : array.shape[1]], mirror=False)
    np.testing.assert_allclose(twice, model.logits(array, mirror=False), atol=1e-5)


def test_a_cascade_sees_the_labels_of_the_stage_before(tmp_path, scan):
    names = [f"nnUNetTrainer__nnUNetPlans__{stage}" for stage in ("3d_cascade_fullres", "3d_lowres")]
    made = tiny.folder(tmp_path, names[0], change=tiny.cascade)
    with pytest.raises(FileError, match="put that model's folder, nnUNetTrainer__nnUNetPlans__3d_lowres"):
        bob.nnunet.load(made)
    first = bob.nnunet.load(tiny.folder(tmp_path, names[1], folds=("0",), change=tiny.cascade))
    model = bob.nnunet.load(made)
    array, properties = model.preprocess(scan)
    image, _ = first.preprocess(scan)
    np.testing.assert_array_equal(array[:1], image)
    seen = first.predict(scan).array.T.transpose(1, 0, 2)
    seen = seen[tuple(slice(*pair) for pair in properties["bbox_used_for_cropping"])]
    rules, inside = model.plans.resampling_labels, properties["nonzero"]
    grids = image.shape[1:], [1.0, 2.0, 1.0], [3.0, 1.0, 1.0]
    np.testing.assert_array_equal(array[1], labels.on_array_grid(seen, inside, *grids, rules, "") == 1)
    assert array.shape[0] == model.plans.in_channels == 2
    assert model.predict(scan).shape == (20, 18, 12)


def test_segmenter_takes_the_folder_and_saves_a_report(made, scan, tmp_path):
    segmenter = bob.Segmenter.load(made)
    assert isinstance(segmenter, NnunetSegmenter)
    prediction = segmenter.predict(scan)
    np.testing.assert_array_equal(segmenter(scan).array, prediction.volume.array)
    report = json.loads(prediction.save(tmp_path / "labels.nii.gz").read_text())
    liver = report["structures"]["liver"]
    assert liver["voxels"] == int((prediction.volume.array == 1).sum())
    assert liver["volume_ml"] == pytest.approx(liver["voxels"] * 2 / 1000)
    assert report["nnunet"]["folds"] == ["fold_0", "fold_1"] and report["mean_entropy"] > 0
    assert len(segmenter.digest) == 16
    assert segmenter.digest != NnunetSegmenter.load(made, mirror=False).digest
    with pytest.raises(ConfigError, match="method"):
        segmenter.predict(scan, method="etta")


def test_the_command_labels_a_folder(made, scan, tmp_path, capsys):
    model = ["--model", str(made), "--folds", "0", "--no-mirror", "--step-size", "0.8"]
    assert cli.main(["segment", str(scan.parent), str(tmp_path), *model]) == 0
    report = json.loads((tmp_path / "one.json").read_text())
    assert report["nnunet"]["mirror_axes"] == [] and report["nnunet"]["step_size"] == 0.8
    assert "about" in capsys.readouterr().err
    assert (tmp_path / "one.nii.gz").exists() and (tmp_path / "summary.csv").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--folds", "5"), "fold_5: no checkpoint_final.pth"),
        (("--mirror",), "--mirror goes with networks trained here"),
        (("--method", "etta"), "--method goes with networks trained here"),
        (("--step-size", "0"), "step_size 0.0 must be"),
    ],
)
def test_the_command_refuses_in_one_line(made, scan, tmp_path, capsys, words, told):
    assert cli.main(["segment", str(scan), str(tmp_path / "out.nii.gz"), "--model", str(made), *words]) in (
        2,
        3,
    )
    line = capsys.readouterr().err.strip()
    assert told in line and "\n" not in line


def test_options_of_nnunet_need_such_a_folder(scan, tmp_path, capsys):
    words = ["segment", str(scan), str(tmp_path / "out.nii.gz"), "--model", str(tmp_path), "--folds", "0"]
    assert cli.main(words) == 2
    assert "--folds goes with a model folder of nnU-Net" in capsys.readouterr().err


def test_folders_that_do_not_belong_together_are_refused(made, tmp_path, scan):
    def copied(name, **changes):
        place = test_plans.write(tmp_path, tiny.narrow, name=name, **changes)
        (place / "fold_0").mkdir()
        data = (made / "fold_0" / "checkpoint_final.pth").read_bytes()
        (place / "fold_0" / "checkpoint_final.pth").write_bytes(data)
        return place

    with pytest.raises(
        MismatchError, match=r"by nnUNetTrainer, whose network is plain_unet, .* whose network is stunet"
    ):
        bob.nnunet.load(copied("STUNetTrainer__nnUNetPlans__3d_fullres"))
    with pytest.raises(MismatchError, match=r"whose norm is the default, .* whose norm is batch"):
        bob.nnunet.load(copied("nnUNetTrainerBN__nnUNetPlans__3d_fullres"))
    with pytest.raises(MismatchError, match="was trained as 3d_fullres"):
        bob.nnunet.load(copied("nnUNetTrainer__nnUNetPlans__3d_small"))
    labels = {"background": 0, "liver": 1, "spleen": 2}
    with pytest.raises(MismatchError, match="trained with labels"):
        other = {**test_plans.DATASET, "labels": labels}
        bob.nnunet.load(copied("nnUNetTrainer__nnUNetPlans__3d_fullres", dataset=other))
    truncated = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0" / "checkpoint_final.pth"
    truncated.write_bytes(truncated.read_bytes()[:5000])
    with pytest.raises(FileError, match="damaged"):
        bob.nnunet.load(truncated.parent.parent)
    with pytest.raises(FileError, match=r"no plans\.json"):
        empty = tmp_path / "nnUNetTrainer__nnUNetPlans__2d"
        empty.mkdir()
        bob.Segmenter.load(empty)


def test_weights_of_another_network_are_refused(tmp_path):
    made = tiny.folder(tmp_path, change=tiny.narrow)
    found = json.loads((made / "plans.json").read_text())
    arguments = found["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    arguments["n_conv_per_stage"] = [3, 2]
    (made / "plans.json").write_text(json.dumps(found))
    with pytest.raises(MismatchError, match="not those of the network in the plans") as caught:
        bob.nnunet.load(made)
    assert "\n" not in str(caught.value)


def test_trainers_that_are_not_known_can_be_named(tmp_path):
    made = tiny.folder(tmp_path, change=tiny.narrow)
    renamed = made.rename(tmp_path / "MyTrainer__nnUNetPlans__3d_fullres")
    with pytest.raises(FileError, match="'MyTrainer' is not known"):
        bob.nnunet.load(renamed)
    assert bob.nnunet.load(renamed, trainer="nnUNetTrainer").plans.trainer == "nnUNetTrainer"


def test_a_folder_of_another_name_is_what_its_checkpoint_says(tmp_path):
    name = "nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres"
    made = tiny.folder(tmp_path, name, change=tiny.narrow, axes=None)
    model = bob.nnunet.load(made.rename(tmp_path / "liver model"))
    assert (model.plans.trainer, model.plans.configuration) == ("nnUNetTrainerNoMirroring", "3d_fullres")
    assert model.mirror_axes == ()


@pytest.mark.parametrize(
    ("place", "told"), [("fold_0", "give the whole, "), ("..", "give one model folder: "), (".", "")]
)
def test_the_command_says_which_folder_is_meant(made, scan, tmp_path, capsys, place, told):
    if not told:  # a folder of input without a scan
        (tmp_path / "notes.txt").write_text("none")
        words = [str(tmp_path), str(tmp_path / "out"), "--model", str(made)]
        told = "holds no scans"
    else:
        words = [str(scan), str(tmp_path / "out.nii.gz"), "--model", str(made / place)]
    assert cli.main(["segment", *words]) in (2, 3)
    line = capsys.readouterr().err.strip()
    assert told in line and "\n" not in line
