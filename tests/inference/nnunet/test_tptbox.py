"""The steps of VIBESegmentator's program, against what it recorded and on arrays that show each rule."""

import json

import numpy as np
import pytest
from nibabel import affines, quaternions

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.nnunet import tptbox
from ukbob_jax.volumes.nifti import read_volume
from ukbob_jax.volumes.volume import Volume

MM2 = np.diag([2.0, 2.0, 4.0, 1.0])


@pytest.fixture
def run(reference):
    folder = reference / "nnunet_networks" / "runs" / "mr_plain"
    if not folder.is_dir():
        pytest.skip("no recorded run of TPTBox here")
    return folder


@pytest.fixture
def image(run) -> Volume:
    return read_volume(run / "inputs" / "torso_0000.nii.gz", kind="image")


def test_the_image_that_nnunet_gets_is_theirs(run, image):
    [folder] = (run / "model").iterdir()
    grid = tptbox.read_grid(folder)
    assert grid == tptbox.Grid("LPS", (3.0, 3.0, 3.0))
    rescaled = tptbox.rescale(image.reorient(grid.orientation), grid.spacing_mm)
    found = tptbox.pad(tptbox.tame(rescaled))
    recorded = json.loads((run / "tptbox.json").read_text())
    np.testing.assert_array_equal(found.array, np.load(run / "expected" / "torso_tptbox.npz")["image"])
    np.testing.assert_allclose(found.affine, recorded["padded_image_affine"], rtol=0, atol=1e-12)
    assert found.array.dtype == recorded["padded_image"]["dtype"] == "int16"
    assert tptbox.unpad(found).shape == tuple(recorded["keep_size"]["shape"])


def test_labels_on_the_models_grid_come_back_as_theirs(run, image):
    kept, default, filled = (
        read_volume(run / "expected" / f"torso_tptbox_{name}.nii.gz", kind="label")
        for name in ("keep_size", "default", "fill_holes")
    )
    found = tptbox.back(kept, image)
    np.testing.assert_array_equal(found.array, default.array)
    np.testing.assert_array_equal(tptbox.fill_holes(found.array), filled.array)
    assert tptbox.smallest_unsigned(found.array).dtype == np.uint8


def test_splines_keep_the_type_and_the_first_voxel():
    array = np.zeros((8, 6, 5), np.int16)
    array[4:] = 100
    found = tptbox.rescale(Volume(array, MM2), (1.0, 2.0, 4.0))
    assert found.shape == (16, 6, 5) and found.array.dtype == np.int16
    assert found.array.max() > 100 > found.array[-1, 0, 0] - 1  # a cubic edge overshoots
    np.testing.assert_array_equal(found.array[::2], array)
    np.testing.assert_allclose(found.affine, np.diag([1.0, 2.0, 4.0, 1.0]))


def test_spacings_that_agree_to_a_micrometre_are_left_alone():
    image = Volume(np.zeros((4, 4, 4), np.float32), MM2)
    assert tptbox.rescale(image, (2.0005, 2.0, 4.0)) is image
    assert tptbox.rescale(image, (2.1, 2.0, 4.0)).shape == (4, 4, 4)  # rint(3.8)


def test_only_bright_images_are_scaled():
    bright, dark = (Volume(np.full((2, 2, 2), v, np.int16), MM2) for v in (20000, 10000))
    assert tptbox.tame(dark) is dark
    np.testing.assert_allclose(tptbox.tame(bright).array, 1000)


def test_padding_mirrors_and_is_undone():
    image = Volume(np.arange(8 * 7 * 6).reshape(8, 7, 6), MM2)
    padded = tptbox.pad(image)
    assert padded.shape == (18, 17, 16)
    np.testing.assert_array_equal(padded.array[4, 5:-5, 5:-5], image.array[1])
    restored = tptbox.unpad(padded)
    np.testing.assert_array_equal(restored.array, image.array)
    np.testing.assert_allclose(restored.affine, image.affine)


def test_weights_of_a_tile_have_a_constant_rim():
    weights = tptbox.importance((16, 32, 24))
    assert weights.dtype == np.float32 and weights.max() == 1000
    assert weights[8, 16, 12] == 1000
    rim = weights[0, 0, 0]
    assert rim > 0 and (weights == rim).sum() > weights.size / 4


def test_labels_return_to_turned_and_oblique_grids():
    turn = affines.from_matvec(
        quaternions.quat2mat([0.98, 0.1, 0.15, 0.05]) @ np.diag([2.0, 2.0, 4.0]), [5, 6, 7]
    )
    image = Volume(np.zeros((9, 8, 7), np.int16), turn).reorient("PIR")
    labels = np.random.default_rng(0).integers(0, 5, image.shape).astype(np.uint8)
    own = Volume(labels, image.affine)
    np.testing.assert_array_equal(tptbox.back(own.reorient("LPS"), image).array, labels)


def test_holes_are_filled_by_the_label_around_them_only():
    labels = np.zeros((7, 7, 7), np.uint8)
    labels[1:6, 1:6, 1:6] = 3
    labels[3, 3, 3] = 0
    labels[2, 2, 2] = 1
    found = tptbox.fill_holes(labels)
    assert found[3, 3, 3] == 3 and found[2, 2, 2] == 1 and labels[3, 3, 3] == 0
    labels[3, 3, :4] = 0  # a channel to the outside
    assert tptbox.fill_holes(labels)[3, 3, 3] == 0


@pytest.mark.parametrize(("highest", "dtype"), [(255, np.uint8), (256, np.uint16), (70000, np.uint32)])
def test_labels_take_the_smallest_type(highest, dtype):
    assert tptbox.smallest_unsigned(np.array([[[0, highest]]], np.int64)).dtype == dtype


def describe(folder, **fields):
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0}} | fields))


def test_what_a_folder_says_of_axes_and_spacing(tmp_path):
    describe(tmp_path)
    assert tptbox.read_grid(tmp_path) == tptbox.Grid()
    describe(tmp_path, orientation=["R", "A", "S"], spacing=["3.0", "1.40625", "1.5"])  # z y x
    assert tptbox.read_grid(tmp_path) == tptbox.Grid("RAS", (1.5, 1.40625, 3.0))
    describe(tmp_path, spacing=[9, 9, 9], resolution_range=["1.5", "1.40625", "3.0"])  # x y z
    assert tptbox.read_grid(tmp_path) == tptbox.Grid("", (1.5, 1.40625, 3.0))
    own = {"model_expected_orientation": "LPS", "resolution_range": [1, 2, 3], "labels": {"1": 1}}
    (tmp_path / tptbox.CONFIG).write_text(json.dumps(own))
    assert tptbox.read_grid(tmp_path) == tptbox.Grid("LPS", (1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"orientation": "RRS"}, "orientation is 'RRS'"),
        ({"orientation": 3}, "orientation is 3"),
        ({"spacing": [1, 2]}, r"spacing is \[2, 1\]"),
        ({"resolution_range": [[1, 1, 1], [2, 2, 2]]}, "three positive numbers"),
        ({"resolution_range": [1, 1, -1]}, "three positive numbers"),
    ],
)
def test_other_forms_are_refused_in_a_line(tmp_path, fields, words):
    describe(tmp_path, **fields)
    with pytest.raises(ConfigError, match=words) as error:
        tptbox.read_grid(tmp_path)
    assert "\n" not in str(error.value)


def test_a_table_renumbers_by_numbers_and_not_by_names(tmp_path):
    describe(tmp_path)
    (tmp_path / tptbox.CONFIG).write_text(json.dumps({"labels": {"1": 2, "2": "1", "3": 3, "4": 300}}))
    pairs = tptbox.read_grid(tmp_path).renumber
    assert pairs == ((1, 2), (2, 1), (4, 300))
    found = tptbox.renumber(np.arange(6, dtype=np.uint8), pairs)
    np.testing.assert_array_equal(found, [0, 2, 1, 3, 300, 5])
    np.testing.assert_array_equal(tptbox.renumber(np.zeros(3, np.uint8), ()), 0)
    (tmp_path / tptbox.CONFIG).write_text(json.dumps({"labels": {"1": 1, "2": "Sacrum"}}))
    with pytest.raises(ConfigError, match="renumber 2 to Sacrum"):
        tptbox.read_grid(tmp_path)
