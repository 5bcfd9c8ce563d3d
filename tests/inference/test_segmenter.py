"""From files to labels in the file's own space, with a network whose answer is known: classes are intensity bands."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.models.swin_unetr import SwinUNETR
from ukbob_jax.training import optimizer, state
from ukbob_jax.training.checkpoints import Checkpoints
from ukbob_jax.volumes.nifti import read_label_names, read_volume, write_volume
from ukbob_jax.volumes.volume import Volume

META = {
    "labels": {"0": "background", "1": "liver", "2": "unused", "3": "spleen"},
    "spacing_mm": None,
    "normalize": "window:0:100",
    "contrasts": ["water"],
    "roi": [8, 8, 8],
}


class Bands(nn.Module):
    """0 below 0.3, 1 below 0.6, then 3; class 2 would win everywhere, were it not unused."""

    @nn.compact
    def __call__(self, x, *, train=False):
        scale = self.param("norm1", lambda key: {"scale": jnp.ones(1), "bias": jnp.zeros(1)})
        v = x[..., :1] * scale["scale"].reshape(1, 1, 1, 1, 1) + scale["bias"].reshape(1, 1, 1, 1, 1)
        return 40 * jnp.concatenate([0 * v, v - 0.3, 9 + 0 * v, 2 * v - 0.9], -1)


def bands(image):
    return np.select([image < 30, image < 60], [0, 1], 3).astype(np.uint8)


@pytest.fixture(scope="module")
def segmenter():
    model = Bands()
    return Segmenter(model, model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"], META)


def scan(shape=(11, 9, 10), affine=None, seed=0):
    """Integers, away from the bands' borders."""
    values = np.random.default_rng(seed).choice([5, 12, 45, 52, 80, 95], shape).astype(np.int16)
    return Volume(values, np.diag([2.0, 2, 2, 1]) if affine is None else affine, (1, 1))


def test_labels_come_back_in_the_space_of_the_file(segmenter, tmp_path):
    # axes of the file: posterior, right to left, down; 1.5 x 1 x 3 mm
    affine = np.array([[0, -1.0, 0, 40], [-1.5, 0, 0, 7], [0, 0, -3.0, 90], [0, 0, 0, 1]])
    volume = scan(affine=affine)
    write_volume(tmp_path / "scan.nii.gz", volume)
    ours = segmenter(tmp_path / "scan.nii.gz")
    assert ours.array.dtype == np.uint8 and ours.orientation == volume.orientation == "PLI"
    np.testing.assert_array_equal(ours.affine, volume.affine)
    assert ours.codes == volume.codes
    np.testing.assert_array_equal(ours.array, bands(volume.array))
    np.testing.assert_array_equal(segmenter(volume).array, ours.array)


def test_the_network_sees_its_own_spacing(segmenter):
    coarse = np.zeros((8, 8, 8), np.int16)
    coarse[2:6, 1:7, 3:8] = 80
    fine = Volume(coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2), np.eye(4))
    other = Segmenter(segmenter.model, segmenter.params, {**META, "spacing_mm": [3.0, 3.0, 3.0]})
    # at 3 mm the first voxel of each block of three is seen, and every voxel takes the label nearest to it
    nearest = np.minimum(np.round(np.arange(24) / 3).astype(int), 7)
    np.testing.assert_array_equal(other(fine).array, bands(coarse[np.ix_(nearest, nearest, nearest)]))


def test_report_and_files(segmenter, tmp_path):
    volume = np.full((12, 10, 10), 10, np.int16)
    volume[3:6, 4:6, 4:6], volume[8:, 2:5, 2:5] = 45, 90
    found = segmenter.predict(Volume(volume, np.diag([2.0, 2.0, 5.0, 1])))
    liver, spleen = found.report["structures"]["liver"], found.report["structures"]["spleen"]
    assert (liver["id"], liver["voxels"], liver["volume_ml"]) == (1, 12, pytest.approx(12 * 20 / 1000))
    assert (spleen["id"], spleen["touches_border"], liver["touches_border"]) == (3, True, False)
    assert set(found.report["structures"]) == {"liver", "spleen"}
    # liver voxels have logits 0, 6, 0 (and one excluded)
    p = np.exp([0, 6, 0]) / np.exp([0, 6, 0]).sum()
    assert liver["mean_confidence"] == pytest.approx(p.max(), rel=1e-4)
    assert liver["mean_entropy"] == pytest.approx(-(p * np.log(p)).sum(), rel=1e-3)
    beside = found.save(tmp_path / "labels.nii.gz")
    assert beside == tmp_path / "labels.json" and json.loads(beside.read_text()) == found.report
    assert read_label_names(tmp_path / "labels.nii.gz")[3] == "spleen"
    np.testing.assert_array_equal(
        read_volume(tmp_path / "labels.nii.gz", kind="label").array, found.volume.array
    )


def test_adaptation_is_reported_and_leaves_the_segmenter_as_it_was(segmenter):
    volume = scan()
    before = jax.tree.map(np.array, segmenter.params)
    found = segmenter.predict(volume, adapt={"steps": 2, "learning_rate": 1e-3})
    adaptation = found.report["adaptation"]
    assert adaptation["accepted"] and adaptation["entropy_after"] < adaptation["entropy_before"]
    assert adaptation["parameters"] == 2 and len(adaptation["entropies"]) == 3
    jax.tree.map(np.testing.assert_array_equal, before, segmenter.params)
    assert segmenter.predict(volume).report["adaptation"] is None
    np.testing.assert_array_equal(segmenter(volume, adapt=True).array, bands(volume.array))


def test_contrasts_come_as_files_or_as_one_4d_file(segmenter, tmp_path):
    first, second = scan(seed=1), scan(seed=2)
    paths = [tmp_path / "water.nii", tmp_path / "fat.nii"]
    for path, volume in zip(paths, (first, second)):
        write_volume(path, volume)
    both = Volume(np.stack([first.array, second.array], -1), first.affine)
    write_volume(tmp_path / "both.nii", both)
    two = Segmenter(segmenter.model, segmenter.params, {**META, "contrasts": ["water", "fat"]})
    for given in (paths, tmp_path / "both.nii", [first, second], both):
        ours = two(given)
        assert ours.shape == first.shape and ours.array.ndim == 3
        np.testing.assert_array_equal(ours.array, bands(first.array))
    with pytest.raises(ValueError, match=r"water\.nii: 1 contrasts, but this network takes 2 \(water, fat\)"):
        two(paths[0])
    moved = Volume(second.array, np.diag([2.0, 2, 3, 1]))
    with pytest.raises(ValueError, match="spacing"):
        two([first, moved])


def test_load_restores_the_network_of_a_workdir(tmp_path):
    model = SwinUNETR(1, 4, feature_size=12, depths=(1, 1, 1, 1))
    params = {"head": {"kernel": jnp.arange(6.0).reshape(2, 3)}}  # stands for all of them
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    start = state.start(params, {}, optimizer.build(learning_rate=1e-3, steps=1))
    checkpoints.save(start, {**META, "model": model.config()})
    checkpoints.close()
    ours = Segmenter.load(tmp_path)
    assert ours.model == model and ours.excluded == (2,) and ours.names[3] == "spleen"
    jax.tree.map(np.testing.assert_array_equal, ours.params, params)
    with pytest.raises(ValueError, match="Give the workdir of a training run"):
        Segmenter.load(tmp_path / "elsewhere")
