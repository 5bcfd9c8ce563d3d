"""Which folder is a model folder of nnU-Net, and what is said where another is given."""

import pytest

from ukbob_jax.errors import FileError
from ukbob_jax.inference.nnunet import folders

NAME = "nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture
def model(tmp_path):
    made = tmp_path / "results" / "Dataset001_X" / NAME
    (made / "fold_0").mkdir(parents=True)
    (made / "plans.json").write_text("{}")
    (made / "fold_0" / "checkpoint_final.pth").write_bytes(b"")
    return made


def test_folders_are_told_apart(tmp_path):
    ours = tmp_path / "my__training__run"
    (ours / "checkpoints").mkdir(parents=True)
    folds = tmp_path / "model"
    (folds / "fold_0").mkdir(parents=True)
    assert not folders.is_folder(ours) and not folders.is_folder(tmp_path)
    assert folders.is_folder(folds) and folders.is_folder(tmp_path / "a__b__c")


def test_a_model_folder_may_have_any_name(model):
    renamed = model.rename(model.with_name("model"))
    for folder in (renamed, str(renamed)):
        assert folders.is_folder(folder) and folders.find(folder) == renamed
    assert not folders.is_named(renamed)


@pytest.mark.parametrize("part", ["fold_0", "fold_0/checkpoint_final.pth", "plans.json", "fold_3"])
def test_one_level_too_low_says_what_to_give(model, part):
    assert folders.is_folder(model / part)
    with pytest.raises(FileError, match=rf"a part of a model folder of nnU-Net; give the whole, {model}\."):
        folders.find(model / part)


def test_too_high_names_the_models_below(model):
    for place in (model.parent, model.parent.parent):
        assert folders.is_folder(place)
        with pytest.raises(FileError, match=rf"give one model folder: {model}\.$"):
            folders.find(place)
    for number in range(4):
        (model.with_name(f"nnUNetTrainer__p{number}__2d")).mkdir()
        (model.with_name(f"nnUNetTrainer__p{number}__2d") / "plans.json").write_text("{}")
    with pytest.raises(FileError, match=r"nnUNetTrainer__p1__2d and 2 more\.$"):
        folders.find(model.parent)


def test_folders_without_plans_and_archives_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"no such folder; expected .*TRAINER__PLANS__CONFIGURATION"):
        folders.find(tmp_path / "away")
    with pytest.raises(FileError, match=r"no plans\.json in it"):
        folders.find(tmp_path)
    archive = tmp_path / "model.zip"
    archive.write_bytes(b"")
    assert folders.is_folder(archive)
    with pytest.raises(FileError, match="an archive; unpack it"):
        folders.find(archive)
