"""From files to labels in the file's own space, with a network whose answer is known: classes are intensity bands."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest

from tests.inference.networks import CARD, Bands, bands, card_of, scan
from ukbob_jax import anatomy
from ukbob_jax.errors import MismatchError, ValuesError
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.inference.windows import memory
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.quality.limits import Limits
from ukbob_jax.training import optimizer, state
from ukbob_jax.training.checkpoints import Checkpoints
from ukbob_jax.volumes import plausibility
from ukbob_jax.volumes.nifti import read_label_names, read_volume, write_volume
from ukbob_jax.volumes.volume import Volume


@pytest.fixture(scope="module")
def segmenter():
    model = Bands()
    return Segmenter(model, model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"], CARD)


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
    other = Segmenter(
        segmenter.model, segmenter.params, dataclasses.replace(CARD, spacing_mm=(3.0, 3.0, 3.0))
    )
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
    found = segmenter.predict(volume, method={"steps": 2, "learning_rate": 1e-3})
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
    two = Segmenter(segmenter.model, segmenter.params, dataclasses.replace(CARD, contrasts=("water", "fat")))
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
    checkpoints.save(start, card_of(model))
    checkpoints.close()
    ours = Segmenter.load(tmp_path)
    assert ours.model == model and ours.card.excluded == (2,) and ours.card.labels[3] == "spleen"
    jax.tree.map(np.testing.assert_array_equal, ours.params, params)
    with pytest.raises(ValueError, match="Give the workdir of a training run"):
        Segmenter.load(tmp_path / "elsewhere")


def test_fragments_and_their_largest_share(segmenter):
    volume = np.full((12, 10, 10), 10, np.int16)
    volume[1:3, 1:3, 1:3], volume[8:9, 8:9, 8:9], volume[5:7, 5:7, 5:7] = 45, 45, 90
    structures = segmenter.predict(Volume(volume, np.eye(4))).report["structures"]
    assert (structures["liver"]["fragments"], structures["liver"]["largest_share"]) == (2, 8 / 9)
    assert (structures["spleen"]["fragments"], structures["spleen"]["largest_share"]) == (1, 1.0)


def test_solf_judges_by_stored_limits(segmenter):
    limits = fitted([1, 5])
    found = segmenter.predict(scan(), limits=limits).report["structures"]
    assert found["liver"]["flagged"] and set(found["liver"]["outside"]) <= {
        "body_fraction",
        "sphericity",
        "eccentricity",
    }
    assert len(found["liver"]["outside"]) >= 2
    wide = limits._replace(low=np.full_like(limits.low, -np.inf), high=np.full_like(limits.high, np.inf))
    assert not segmenter.predict(scan(), limits=wide).report["structures"]["liver"]["flagged"]
    with pytest.raises(ValueError, match="1 structures that this network does not label, such as heart"):
        segmenter.predict(scan(), limits=fitted([1, 5, 24]))


def fitted(organs):
    """Limits that no label keeps to."""
    shape = (1, anatomy.NUM_CLASSES, 3)
    count = np.zeros(shape[:2], np.int64)
    count[0, organs] = 20
    return Limits(np.full(shape, 2.0), np.full(shape, 3.0), count, ("",), {"min_outside": 2}, {})


def test_impossible_organs_are_removed_on_request(segmenter):
    volume = np.full((24, 24, 24), 10, np.int16)
    volume[2:20, 2:20, 2:20], volume[22, 22, 22] = 45, 90  # a liver of 373 mL, and one voxel of heart
    large = Volume(volume, np.diag([4.0, 4, 4, 1]))
    names = {0: "background", 1: "liver", 2: "unused", 3: "heart"}
    other = Segmenter(segmenter.model, segmenter.params, dataclasses.replace(CARD, labels=names))
    plain, gated = (other.predict(large, gate=gate) for gate in (False, True))
    assert plain.report["structures"]["heart"]["voxels"] == 1 and "removed" not in plain.report
    assert gated.report["removed"] == {"heart": 1} and gated.report["body_parts"] == ["abdomen"]
    assert gated.volume.array[22, 22, 22] == 0 and (gated.volume.array == 1).sum() == 18**3


def test_several_networks_are_averaged(segmenter):
    volume = scan()
    shifted = {"norm1": {"scale": jnp.ones(1), "bias": jnp.full(1, -0.4)}}
    other = Segmenter(segmenter.model, shifted, CARD)
    both = Segmenter(segmenter.model, segmenter.params, CARD, others=[other]).predict(volume)
    x = volume.array / 100
    logits = [40 * np.stack([0 * x, v - 0.3, 2 * v - 0.9], -1) for v in (x, x - 0.4)]
    p = np.mean([np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in logits], 0)
    np.testing.assert_array_equal(both.volume.array, np.array([0, 1, 3])[p.argmax(-1)])
    assert both.report["mean_confidence"] == pytest.approx(p.max(-1).mean(), rel=1e-4)
    assert (both.volume.array != segmenter(volume).array).any()
    with pytest.raises(ValueError, match="differ in normalize: window:0:100 and zscore"):
        Segmenter(
            segmenter.model,
            segmenter.params,
            CARD,
            others=[Segmenter(segmenter.model, shifted, dataclasses.replace(CARD, normalize="zscore"))],
        )


def test_the_digest_changes_with_whatever_predicts(segmenter):
    model, params = segmenter.model, segmenter.params
    same = Segmenter(model, jax.tree.map(np.array, params), dataclasses.replace(CARD, provenance={"step": 7}))
    assert same.digest == segmenter.digest and len(same.digest) == 16
    moved = Segmenter(
        model, {"norm1": {**params["norm1"], "bias": np.nextafter(params["norm1"]["bias"], 1)}}, CARD
    )
    state = Segmenter(model, params, CARD, {"batch_stats": {"mean": np.zeros(1)}})
    other_state = Segmenter(model, params, CARD, {"batch_stats": {"mean": np.ones(1)}})
    spaced = Segmenter(model, params, dataclasses.replace(CARD, spacing_mm=(3.0, 3.0, 3.0)))
    two = Segmenter(model, params, CARD, others=[same])
    two_others = Segmenter(model, params, CARD, others=[moved])
    wide = [Segmenter(SwinUNETR(1, 4, dtype=dtype), params, CARD) for dtype in (jnp.float32, jnp.bfloat16)]
    networks = [segmenter, moved, state, other_state, spaced, two, two_others, *wide]
    assert len({network.digest for network in networks}) == len(networks)


def test_a_scan_that_cannot_fit_is_refused_with_what_could_help(segmenter, monkeypatch):
    plans = []
    tight = Segmenter(segmenter.model, segmenter.params, CARD, announce=plans.append)
    tight.predict(scan(), batch=4)
    assert (
        len(plans) == 1 and plans[0].windows == 8 and "bucket 12 x 12 x 12: 8 windows, about" in str(plans[0])
    )
    tight.predict(scan((12, 12, 11)), batch=4)
    assert len(plans) == 1  # of the same bucket: nothing new is compiled
    monkeypatch.setattr(memory, "available", lambda device: plans[0].total - 1)
    with pytest.raises(
        ValueError, match=r"about \d+ MB .* are free\. Smaller: a batch of 1 window needs \d+ MB"
    ) as refused:
        tight.predict(scan((20, 9, 10)), batch=4)
    assert refused.value.exit_code == 2
    monkeypatch.setattr(memory, "available", lambda device: None)  # the device does not say
    tight.predict(scan((20, 9, 10)), batch=4)


def test_methods_share_one_interface(segmenter):
    assert segmenter.predict(scan(), method="tta").report["adaptation"] is None
    tent = segmenter.predict(scan(), method={"method": "tent", "learning_rate": 1e-3}).report["adaptation"]
    assert tent["method"] == "tent" and tent["entropy_after"] < tent["entropy_before"]
    for wrong, message in (
        ("magic", "'magic' is not one of off, etta, tent, bn, tta"),
        ({"method": "tta", "steps": 1}, "'tta' takes no options; got steps"),
        (
            {"method": "tent", "steps": 1},
            "method 'tent': unknown option 'steps'; there are overlap, batch, learning_rate",
        ),
        ("bn", "needs a network with batch norm"),
    ):
        with pytest.raises(ValueError, match=message):
            segmenter.predict(scan(), method=wrong)


def test_bfloat16_is_a_choice_at_load(tmp_path):
    model = SwinUNETR(1, 4, feature_size=12, depths=(1, 1, 1, 1))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    start = state.start({"a": jnp.zeros(1)}, {}, optimizer.build(learning_rate=1e-3, steps=1))
    checkpoints.save(start, card_of(model))
    checkpoints.close()
    assert Segmenter.load(tmp_path).model.dtype == jnp.float32
    assert Segmenter.load(tmp_path, dtype="bfloat16").model.dtype == jnp.bfloat16
    assert len(Segmenter.load([tmp_path, tmp_path]).members) == 2


TRAINED = plausibility.describe_training(np.array([[2.0, 2, 3], [2.2, 2.2, 4.5]]), np.full((2, 3), 100))


@pytest.mark.parametrize(
    ("affine", "said"),
    [
        (np.eye(4), "its affine is exactly the identity"),
        (
            np.diag([20.0, 20, 3, 1]),
            "its voxels are 20 x 20 x 3 mm, those of training 2 x 2 x 3 mm to 2.2 x 2.2 x 4.5",
        ),
        (np.diag([0.2, 0.2, 0.3, 1]), "its voxels are 0.2 x 0.2 x 0.3 mm"),
    ],
)
def test_a_scan_unlike_those_of_training_is_refused_unless_accepted(segmenter, affine, said):
    known = Segmenter(segmenter.model, segmenter.params, dataclasses.replace(CARD, training=TRAINED))
    with pytest.raises(MismatchError, match=f"{said}.*accept_unusual=True"):
        known.predict(scan(affine=affine))
    accepted = known.predict(scan(affine=affine), accept_unusual=True)
    assert said in accepted.report["unusual"][0]
    plain = segmenter.predict(scan(affine=affine))  # its card does not know the training set
    assert "unusual" not in plain.report
    np.testing.assert_array_equal(accepted.volume.array, plain.volume.array)


def test_ct_without_its_rescale_is_refused_by_a_network_of_hu_unless_accepted(segmenter):
    known = Segmenter(segmenter.model, segmenter.params, dataclasses.replace(CARD, training={"hu": [True]}))
    stored = dataclasses.replace(scan(), array=np.where(scan().array > 0, 1040, 24).astype(np.int16))
    with pytest.raises(MismatchError, match=r"it looks like HU \+ 1024.*accept_unusual=True"):
        known.predict(stored)
    assert "HU + 1024" in known.predict(stored, accept_unusual=True).report["unusual"][0]
    assert "unusual" not in segmenter.predict(stored).report


def test_crops_and_other_scanners_are_not_unusual(segmenter):
    known = Segmenter(segmenter.model, segmenter.params, dataclasses.replace(CARD, training=TRAINED))
    for affine in (np.diag([1.0, 1, 1.5, 1]), np.diag([4.0, 4, 9, 1]), np.diag([-2.0, 2, 3, 1])):
        assert "unusual" not in known.predict(scan((5, 6, 7), affine)).report


def test_voxels_that_are_no_numbers_count_as_zero_where_asked(segmenter, tmp_path):
    values = scan().array.astype(np.float32)
    values[:2] = np.nan
    path = tmp_path / "s.nii"
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2, 2, 1])), path)
    with pytest.raises(ValuesError, match='nan="zero"'):
        segmenter.predict(path)
    with pytest.warns(UserWarning, match="set to zero"):
        found = segmenter.predict(path, nan="zero")
    np.testing.assert_array_equal(found.volume.array, bands(np.nan_to_num(values)))
