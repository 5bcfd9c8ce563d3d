"""Presets from folders of weights to labels: TotalSegmentator step by step, and what is refused."""

import dataclasses
import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

import ukbob_jax as bob
from tests.conftest import ROOT
from tests.inference.nnunet import tiny
from ukbob_jax import anatomy, cli, files
from ukbob_jax.errors import ConfigError, FileError, GeometryError, MismatchError
from ukbob_jax.inference.nnunet import merge, recipes
from ukbob_jax.inference.preset_names import PRESETS, SPEEDS
from ukbob_jax.inference.windows import memory
from ukbob_jax.volumes.nifti import read_label_names, read_volume

pytestmark = pytest.mark.usefixtures("quick_compilation")

CT = "totalsegmentator_ct"
FIVE = {  # as TotalSegmentator's parts, with fewer classes: data set -> names, and the first id that is written
    291: (("spleen", "kidney"), 1),
    292: (("sacrum",), 3),
    293: (("heart", "aorta"), 4),
    294: (("humerus",), 6),
    295: (("skull", "rib", "sternum"), 7),
}
MIRRORING = "nnUNetTrainer"


def five():
    """TotalSegmentator's recipe with the parts above, at 2 mm."""
    parts = tuple(
        bob.nnunet.Part(number, dict(enumerate(("background", *names))), first)
        for number, (names, first) in FIVE.items()
    )
    return dataclasses.replace(recipes.find(CT), parts=parts, spacing_mm=2.0, label_set="")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of weights; one part was trained with mirroring, which presets leave out."""
    place = tmp_path_factory.mktemp("weights")
    for number, (names, _) in FIVE.items():
        tiny.dataset_folder(
            place / "results", number, names, MIRRORING if number == 294 else tiny.NOT_MIRRORING
        )
    return place


@pytest.fixture(scope="module")
def total(root):
    return bob.nnunet.preset(five(), root)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A scan in axes of its own, anisotropic and oblique."""
    path = tmp_path_factory.mktemp("scan") / "one_0000.nii.gz"
    values = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 40, (11, 20, 15)), 1)
    axes = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]]) * [3.3, 1.4, 2.5]
    turn = nib.affines.from_matvec(nib.quaternions.quat2mat([0.99, 0.05, 0.1, 0.02]) @ axes, [3, 4, 5])
    nib.save(nib.Nifti1Image(np.rint(values * 10).astype(np.int16), turn), path)
    return path


def walk(scan, root):
    """TotalSegmentator's steps once more, with nibabel and scipy alone; nnU-Net's own is ours, at a step of 0.8."""
    stored = nib.load(scan)
    image = nib.as_closest_canonical(nib.Nifti1Image(stored.get_fdata(), stored.affine))
    zoom = np.array(image.header.get_zooms()) / 2.0
    array = ndimage.zoom(image.get_fdata(), zoom, mode="nearest", order=1).astype(np.int32)
    affine = image.affine.copy()
    affine[:3, :3] /= zoom
    merged = np.zeros(array.shape, int)
    for number, (names, first) in FIVE.items():
        [folder] = (root / "results" / f"Dataset{number}_Tiny").iterdir()
        labels = bob.nnunet.load(folder, 0, step_size=0.8).predict(bob.Volume(array, affine), mirror=False)
        for own in range(1, len(names) + 1):
            merged[labels.array == own] = first + own - 1
    labels = ndimage.zoom(merged, np.array(image.shape) / merged.shape, mode="nearest", order=0)
    back = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.io_orientation(stored.affine)
    )
    return nib.orientations.apply_orientation(labels, back)


def test_totalsegmentators_parts_become_one_label_map(total, scan, root):
    found = total.predict(scan)
    np.testing.assert_array_equal(found.volume.array, walk(scan, root))
    np.testing.assert_allclose(found.volume.affine, nib.load(scan).affine, atol=1e-6)
    assert found.volume.array.dtype == np.uint8 and len(np.unique(found.volume.array)) > 5
    assert total.names == found.names and total.names[4] == "heart" and len(total.names) == 10
    structures = found.report["structures"]
    assert [structures[name]["id"] for name in ("spleen", "sternum")] == [1, 9]
    assert all(0 <= value["mean_confidence"] <= 1 for value in structures.values() if value["voxels"])
    assert [part["step_size"] for part in found.report["nnunet"]["parts"]] == [0.8] * 5
    assert found.report["nnunet"]["spacing_mm"] == 2.0


def test_models_without_a_wanted_structure_are_not_run(total, scan):
    found, whole = total.only(("heart", "aorta")), total.predict(scan).volume.array
    assert len(found.models) == len(found.provenance["parts"]) == 1 and total.only(()) is total
    labels = found.predict(scan).volume.array
    assert set(np.unique(labels)) <= {0, 4, 5}
    for i in (4, 5):  # later parts may have taken voxels
        assert (labels[whole == i] == i).all() and (whole == i).any()


def test_certainty_of_a_structure_is_that_of_its_own_model(total, scan, root):
    [folder] = (root / "results" / "Dataset293_Tiny").iterdir()
    given = total.steps.before(read_volume(scan))
    model = bob.nnunet.load(folder, 0, step_size=0.8)
    _, certain = model.segment(*model.preprocess(given), mirror=False, certainty=True)
    aorta = certain.labels == 2
    expected = certain.entropy[aorta].mean(dtype=np.float64)
    found = total.predict(scan).report["structures"]["aorta"]["mean_entropy"]
    assert aorta.any() and found == pytest.approx(expected, rel=1e-6)


def test_equal_networks_share_a_program(total, scan):
    """Of five parts with 2, 3 and 4 classes three programs are compiled, and the tool's five have four."""
    total.predict(scan)
    before = merge.add_view._cache_size()
    merge.add_view.clear_cache()
    total.predict(scan)
    assert merge.add_view._cache_size() == 3 <= before
    assert len(total.estimates) == 5
    heads = [len(part.names) for part in recipes.find(CT).parts]
    assert heads == [25, 27, 19, 24, 27]


def test_weights_need_not_stay_in_memory(total, scan, root):
    frugal = bob.nnunet.preset(five(), root / "results", kept_bytes=0)
    assert not any(one.kept for one in frugal.models) and all(one.kept for one in total.models)
    np.testing.assert_array_equal(frugal.predict(scan).volume.array, total.predict(scan).volume.array)
    assert frugal.digest == total.digest
    assert len(frugal.estimates) == 5
    kept, dropped = (
        next(iter(segmenter.estimates.values())).total - memory.tree_bytes(total.models[0].kept.members)
        for segmenter in (total, frugal)
    )
    others = sum(memory.tree_bytes(one.kept.members) for one in total.models[1:])
    assert kept - dropped == others > 0


def test_the_digest_sees_weights_and_settings(total, root, tmp_path):
    for number, (names, _) in FIVE.items():
        tiny.dataset_folder(tmp_path, number, names, folds=(1,))
    others = [
        bob.nnunet.preset(five(), root, step_size=0.5),
        bob.nnunet.preset(five(), tmp_path, folds=1),
        bob.nnunet.preset(dataclasses.replace(five(), spacing_mm=3.0), root),
    ]
    assert len({total.digest, *(other.digest for other in others)}) == 4


def test_missing_parts_are_named(root, tmp_path):
    part = five().parts[0]
    recipe = dataclasses.replace(five(), parts=(part, dataclasses.replace(part, dataset=296), *five().parts))
    with pytest.raises(FileError, match=r"Dataset296 not found in it, nor in the 2 levels below") as error:
        bob.nnunet.preset(recipe, root)
    assert str(root) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(FileError, match="Dataset291, Dataset292, Dataset293, Dataset294 and Dataset295 not"):
        bob.nnunet.preset(CT, tmp_path)
    with pytest.raises(FileError, match="no such folder"):
        bob.nnunet.preset(CT, tmp_path / "nowhere")
    (tmp_path / "Dataset100").mkdir()
    with pytest.raises(FileError, match=r"Dataset100: no folder \*__nnUNet\*ResEnc\* or \*__nnUNetPlans\*"):
        bob.nnunet.preset("vibesegmentator", tmp_path)


def alone():
    """A recipe of one part."""
    return dataclasses.replace(five(), parts=five().parts[:1])


@pytest.mark.parametrize("place", ["", "Dataset291", "a", "a/Dataset291_Tiny"])
def test_weights_are_found_where_archives_leave_them(tmp_path, place, monkeypatch):
    folder = tiny.dataset_folder(tmp_path / place, 291, FIVE[291][0])
    monkeypatch.chdir(folder.parent)
    for given in (tmp_path, folder.parent, "."):
        assert bob.nnunet.preset(alone(), given).models[0].kept.plans.folder.samefile(folder)


def test_two_models_that_could_be_meant_are_refused(tmp_path):
    tiny.dataset_folder(tmp_path, 291, FIVE[291][0], MIRRORING)
    tiny.dataset_folder(tmp_path, 291, FIVE[291][0], "nnUNetTrainer_5epochs")
    with pytest.raises(FileError, match=r"several models of Dataset291\. Leave the one that is meant"):
        bob.nnunet.preset(alone(), tmp_path)
    kept = tiny.dataset_folder(tmp_path, 291, FIVE[291][0])  # the trainer that the program asks for
    assert bob.nnunet.preset(alone(), tmp_path).models[0].kept.plans.folder == kept
    tiny.dataset_folder(tmp_path / "again", 291, FIVE[291][0])
    with pytest.raises(FileError, match="several models of Dataset291"):
        bob.nnunet.preset(alone(), tmp_path)


def test_another_table_of_labels_is_refused(tmp_path):
    tiny.dataset_folder(tmp_path, 291, ("kidney", "spleen"))
    with pytest.raises(MismatchError, match="label 1 is 'kidney', but 'spleen' in this preset's model"):
        bob.nnunet.preset(alone(), tmp_path)
    tiny.dataset_folder(tmp_path / "sides", 291, ("spleen", "kidney_left", "kidney_right"))
    found = recipes.find(CT)
    with pytest.raises(MismatchError, match="label 2 is 'kidney_left', but 'kidney_right'"):
        bob.nnunet.preset(dataclasses.replace(found, parts=found.parts[:1]), tmp_path / "sides")


def test_a_trainer_that_is_not_known_is_refused(tmp_path):
    folder = tiny.dataset_folder(tmp_path, 291, FIVE[291][0], "nnUNetTrainerMystery")
    with pytest.raises(FileError, match="nnUNetTrainerMystery") as error:
        bob.nnunet.preset(alone(), tmp_path)
    assert "\n" not in str(error.value)
    assert bob.nnunet.preset(alone(), tmp_path, trainer=MIRRORING).models[0].kept.plans.folder == folder


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "totalsegmentator",
            {},
            "preset 'totalsegmentator' is not known; choose one of vibesegmentator, total",
        ),
        ("vibesegmentator", {"speed": "fast"}, "'vibesegmentator' has no models for 'fast'"),
        (CT, {"speed": "slow"}, "speed 'slow' is not one of"),
        (CT, {"fill_holes": True}, "fill_holes: a step of vibesegmentator, which totalsegmentator_ct lacks"),
        (CT, {"keep_size": True}, "keep_size: a step of vibesegmentator"),
    ],
)
def test_what_a_preset_does_not_take_is_named(tmp_path, name, options, words):
    with pytest.raises(ConfigError, match=words):
        bob.nnunet.preset(name, tmp_path, **options)


def test_scans_that_do_not_fit_are_refused(total):
    flat, two = (np.zeros(shape, np.float32) for shape in ((8, 8, 1), (8, 8, 8, 2)))
    with pytest.raises(GeometryError, match=r"one slice; totalsegmentator_ct takes volumes"):
        total(bob.Volume(flat, np.eye(4)))
    with pytest.raises(MismatchError, match=r"2 channels, but this model takes 1 \(CT\)"):
        total(bob.Volume(two, np.eye(4)))
    with pytest.raises(ConfigError, match="method: networks of nnU-Net do not take it"):
        total(bob.Volume(flat, np.eye(4)), adapt=True)


def test_every_recipe_writes_a_label_set_of_ours():
    assert tuple(recipes.RECIPES) == PRESETS
    for name, speeds in recipes.RECIPES.items():
        assert set(speeds) <= set(SPEEDS) and "" in speeds
        for recipe in speeds.values():
            assert recipe.names == anatomy.DATASETS[recipe.label_set]
            written = [i for part in recipe.parts for i in part.written.values()]
            assert sorted(written) == sorted(set(recipe.names) - {0}), name
    liver = {name: anatomy.from_dataset(recipes.find(name).label_set).lut[5] for name in PRESETS}
    assert set(liver.values()) == {anatomy.IDS["liver"]}


@pytest.fixture
def registered(monkeypatch):
    """The recipe above under the program's name, for the command line."""
    monkeypatch.setitem(recipes.RECIPES[CT], "fast", five())


def test_the_command_labels_a_folder_and_resumes(registered, total, root, scan, tmp_path, capsys):
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    (scans / "one_0000.nii.gz").symlink_to(scan)
    (scans / "two_0000.nii.gz").write_bytes(scan.read_bytes()[:300])
    words = [*map(str, ("segment", scans, out, "--model", root)), "--preset", CT, "--fast"]
    assert cli.main(words) == 4
    error = capsys.readouterr().err
    assert error.count("segment: bucket") == 5 and "1 of 2 scans labelled" in error
    stored = read_volume(out / "one.nii.gz", kind="label")
    np.testing.assert_array_equal(stored.array, total.predict(scan).volume.array)
    assert read_label_names(out / "one.nii.gz")[9] == "sternum"
    report = json.loads((out / "one.json").read_text())
    assert report["nnunet"]["preset"] == CT and len(report["nnunet"]["parts"]) == 5
    assert [row["subject"] for row in files.read_jsonl(out / "failures.jsonl")] == ["two"]
    (scans / "two_0000.nii.gz").write_bytes(scan.read_bytes())
    assert cli.main([*words, "--existing", "skip"]) == 0
    assert "1 of 2 scans labelled" in capsys.readouterr().err and (out / "summary.csv").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--preset", CT], "--preset totalsegmentator_ct takes one --model, the folder with"),
        (["--preset", CT, "--model", "a", "--model", "b"], "takes one --model"),
        (["--preset", "totalsegmentator", "--model", "a"], "invalid choice: 'totalsegmentator'"),
        (["--preset", CT, "--model", "W", "--overlap", "0.3"], "--overlap goes with networks trained here"),
        (["--preset", CT, "--model", "W", "--no-mirror"], "--no-mirror: a preset never mirrors"),
        (["--preset", CT, "--model", "W", "--fill-holes"], "--fill-holes: a step of vibesegmentator"),
        (["--preset", CT, "--model", "W", "--fast", "--fastest"], "--fast and --fastest are two models"),
        (["--preset", "vibesegmentator", "--model", "W", "--fast"], "has no models for 'fast'"),
        (["--model", "W", "--keep-size"], "--keep-size goes with --preset"),
        (["--preset", "totalsegmentator_mr", "--model", "W"], "Dataset850 and Dataset851 not found in it"),
    ],
)
def test_options_that_do_not_go_together_are_named(root, scan, tmp_path, capsys, words, said):
    words = [str(root) if word == "W" else word for word in words]
    assert cli.main(["segment", str(scan), str(tmp_path / "out.nii.gz"), *words]) in (2, 3)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "speed"), [(CT, "fast"), ("totalsegmentator_mr", "")])
def test_labels_are_those_of_totalsegmentators_program(name, speed, scan, tmp_path):
    """Every voxel, where the program is installed and its nnU-Net adds in float32; networks of its own tables."""
    pytest.importorskip("nnunetv2")
    pytest.importorskip("totalsegmentator")
    recipe = recipes.find(name, speed)
    trainer = recipe.model_folders[0].split("__")[0]
    for part in recipe.parts:
        tiny.dataset_folder(tmp_path, part.dataset, [part.names[i] for i in sorted(part.names) if i], trainer)
    out = tmp_path / "labels.nii.gz"
    task = {CT: "total"}.get(name, "total_mr")
    words = [scan, out, task, trainer, recipe.spacing_mm, *(part.dataset for part in recipe.parts)]
    folders = dict.fromkeys(("nnUNet_results", "nnUNet_raw", "nnUNet_preprocessed"), str(tmp_path))
    subprocess.run(
        [sys.executable, "-m", "tests.inference.nnunet.run_totalsegmentator", *map(str, words)],
        env=os.environ | folders | {"TOTALSEG_WEIGHTS_PATH": str(tmp_path), "TOTALSEG_HOME_DIR": str(tmp_path)},
        cwd=ROOT,
        check=True,
    )  # fmt: skip
    expected = read_volume(out, kind="label").array
    found = bob.nnunet.preset(name, tmp_path, speed=speed).predict(scan).volume.array
    assert len(np.unique(expected)) > 5
    np.testing.assert_array_equal(found, expected)
