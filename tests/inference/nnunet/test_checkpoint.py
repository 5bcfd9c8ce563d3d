"""Checkpoints as nnU-Net's trainers write them."""

import collections
import zipfile

import numpy as np
import pytest

from tests.inference.nnunet import test_plans
from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.inference.nnunet import checkpoint, plans

torch = pytest.importorskip("torch")


def content(**changes):
    weight = torch.arange(6.0).reshape(2, 3)
    found = {
        "network_weights": collections.OrderedDict(
            [("conv.weight", weight), ("all_modules.0.weight", weight)]
        ),
        "optimizer_state": {
            "state": {0: {"momentum_buffer": torch.ones(1000)}},
            "param_groups": [{"lr": 0.01}],
        },
        "grad_scaler_state": {"scale": 65536.0, "_growth_tracker": 3},
        "logging": {"mean_fg_dice": [np.float32(0.5)], "dice_per_class_or_region": [[np.float32(0.5)]]},
        "_best_ema": np.float32(0.25),
        "current_epoch": 1000,
        "init_args": {
            **{"plans": test_plans.PLANS, "configuration": "3d_fullres", "fold": 0},
            **{"dataset_json": test_plans.DATASET, "device": torch.device("cuda:0"), "unpack_dataset": True},
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    return {key: value for key, value in {**found, **changes}.items() if value is not KeyError}


def saved(folder, fold="fold_0", name=checkpoint.FINAL, **changes):
    (folder / fold).mkdir(parents=True, exist_ok=True)
    torch.save(content(**changes), folder / fold / name)
    return folder / fold / name


def test_weights_trainer_and_axes_are_read(tmp_path):
    found = checkpoint.read(saved(tmp_path))
    np.testing.assert_array_equal(found.tensors["conv.weight"], np.arange(6.0).reshape(2, 3))
    assert found.tensors["all_modules.0.weight"] is found.tensors["conv.weight"]
    assert (found.trainer, found.configuration) == ("nnUNetTrainer", "3d_fullres")
    assert found.mirror_axes == (0, 1, 2) and found.dataset == test_plans.DATASET


@pytest.mark.parametrize("axes", [None, KeyError])
def test_without_axes_nothing_is_mirrored(tmp_path, axes):
    assert checkpoint.read(saved(tmp_path, inference_allowed_mirroring_axes=axes)).mirror_axes == ()


def test_scalars_of_either_numpy_are_taken(tmp_path):
    """The pickle names the module of the numpy that wrote it; the names have one length in this file."""
    path = saved(tmp_path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    key = next(name for name in records if name.endswith("data.pkl"))
    records[key] = records[key].replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    assert checkpoint.read(path).trainer == "nnUNetTrainer"


def test_the_optimisers_numbers_are_not_read(tmp_path):
    """A damaged storage of the optimiser is not noticed, and one of the network is."""
    path = saved(tmp_path)
    data = path.read_bytes()
    ones = torch.ones(1000).numpy().tobytes()
    path.write_bytes(data.replace(ones, b"\1" * len(ones)))
    assert len(checkpoint.read(path).tensors) == 2
    weight = np.arange(6, dtype=np.float32).tobytes()
    path.write_bytes(data.replace(weight, b"\1" * len(weight)))
    with pytest.raises(FileError, match="conv.weight: damaged"):  # noqa: RUF043
        checkpoint.read(path)


@pytest.mark.parametrize("key", ["network_weights", "trainer_name", "init_args"])
def test_checkpoints_of_others_are_refused(tmp_path, key):
    with pytest.raises(FileError, match="no checkpoint of nnU-Net v2"):
        checkpoint.read(saved(tmp_path, **{key: KeyError}))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data[:-300], "zip archive whose end is missing"),
        (lambda data: b"", "an empty file"),
        (lambda data: b"<!DOCTYPE html><html>403</html>", "text, such as a page"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (lambda data: b"\x93NUMPY" + bytes(100), "damaged, or no PyTorch checkpoint"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(tmp_path, change, told):
    path = saved(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(FileError, match=told) as caught:
        checkpoint.read(path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))


def test_weights_alone_are_refused_without_a_list_of_all(tmp_path):
    path = tmp_path / "checkpoint_final.pth"
    torch.save({f"stage.{i}.weight": torch.ones(1) for i in range(40)}, path)
    with pytest.raises(FileError, match=r"it holds stage\.0\.weight, .*stage\.5\.weight and 34 more\."):
        checkpoint.read(path)


def test_folds_are_found_and_chosen(tmp_path):
    for fold in ("fold_0", "fold_2", "fold_all"):
        saved(tmp_path, fold)
    (tmp_path / "fold_1").mkdir()

    def names(folds):
        return [path.parent.name for path in checkpoint.find(tmp_path, folds)]

    assert names("all") == names("0,2") == names([0, 2]) == ["fold_0", "fold_2"]
    assert names("fold_all") == ["fold_all"] and names(2) == ["fold_2"]
    with pytest.raises(FileError, match="fold_1: no checkpoint"):
        names("0,1")
    with pytest.raises(ConfigError, match="neither"):
        names("first")
    with pytest.raises(FileError, match="no fold_"):
        checkpoint.find(tmp_path / "fold_1")


def test_the_best_checkpoint_stands_in_with_a_warning(tmp_path):
    saved(tmp_path, name=checkpoint.BEST)
    with pytest.warns(UserWarning, match="checkpoint_best"):
        assert checkpoint.find(tmp_path)[0].name == checkpoint.BEST


def test_a_checkpoint_of_other_labels_or_channels_is_refused(tmp_path):
    folder = test_plans.write(tmp_path)
    said = plans.read(folder)
    checkpoint.check(checkpoint.read(saved(folder)), said)
    for key, value in (("labels", {"background": 0, "spleen": 1}), ("channel_names", {"0": "MR"})):
        arguments = {**content()["init_args"], "dataset_json": {**test_plans.DATASET, key: value}}
        with pytest.raises(MismatchError, match=f"trained with {key}"):
            checkpoint.check(checkpoint.read(saved(folder, init_args=arguments)), said)
    with pytest.raises(MismatchError, match="mirrors axes"):
        checkpoint.check(checkpoint.read(saved(folder, inference_allowed_mirroring_axes=(3,))), said)
