"""Metrics against MONAI's values, against brute force, and by what must hold."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from ukbob_jax.errors import ValuesError
from ukbob_jax.evaluation import metrics

NUMBERS = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}


def load(path):
    return json.loads(path.read_text())


def number(value):
    return NUMBERS.get(value, value) if isinstance(value, str) else value


def blobs(seed, shape=(14, 12, 10), k=4):
    """A label map of smooth regions."""
    noise = np.random.default_rng(seed).normal(size=(k, *shape))
    return ndimage.gaussian_filter(noise, (0, 2, 2, 2)).argmax(0).astype(np.uint8)


def brute_surface(pred, true, spacing, k, tolerance):
    """All pairs of surface voxels, class by class; surfaces by erosion."""
    rows = []
    for label in range(k):
        points = []
        for labels in (pred, true):
            mask = (labels == label) & (true != 255)
            edge = mask & ~ndimage.binary_erosion(mask)
            points.append(np.argwhere(edge) * np.asarray(spacing))
        sizes = [len(p) for p in points]
        if not all(sizes):
            rows.append((np.nan,) * 4 if not any(sizes) else (np.inf, np.inf, np.inf, 0.0))
            continue
        pairs = cdist(*points)
        both = [pairs.min(1), pairs.min(0)]
        together = np.concatenate(both)
        rows.append(
            (
                max(np.percentile(d, 95) for d in both),
                together.max(),
                together.mean(),
                (together.astype(np.float32) <= np.float32(tolerance)).mean(),
            )
        )
    return np.array(rows).T


@pytest.mark.reference
def test_masks_equal_monai(reference):
    folder = reference / "losses_metrics"
    arrays = np.load(folder / "metric_masks.npz")
    cases = load(folder / "metrics_masks.json")
    assert cases
    for name, case in cases.items():
        pred, true = arrays[f"{name}__pred"], arrays[f"{name}__gt"]
        expected = {key: number(value) for key, value in case["values"].items()}
        absent = not pred.any() and not true.any()
        # MONAI scores 1 for a class in neither map, and has no percentile when one map is empty; ours: NaN and inf
        one_empty = pred.any() != true.any()
        assert metrics.dice(pred, true, 2)[1] == pytest.approx(
            np.nan if absent else expected["dice"], nan_ok=True
        )
        assert metrics.iou(pred, true, 2)[1] == pytest.approx(
            np.nan if absent else expected["iou"], nan_ok=True
        )
        for tolerance in (1, 2, 3):
            ours = metrics.surface(pred, true, case["spacing"], 2, tolerance)
            values = [
                expected["hd95"],
                expected["hd"],
                expected["assd"],
                expected[f"surface_dice_{tolerance}mm"],
            ]
            values[0] = np.inf if one_empty else values[0]
            # MONAI's numbers are float32
            np.testing.assert_allclose([m[1] for m in ours], values, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.reference
def test_aggregation_equals_monai(reference):
    folder = reference / "losses_metrics"
    arrays = np.load(folder / "aggregation_inputs.npz")
    expected = load(folder / "metrics_aggregation.json")
    table = {
        key: [[number(v) for v in row] for row in expected[key]["none"]["value"]] for key in ("dice", "hd95")
    }
    scores = []
    for pred, true, dice, hd95 in zip(arrays["pred"], arrays["gt"], table["dice"], table["hd95"]):
        ours = metrics.dice(pred, true, 4)[1:]
        in_pred, in_true = ([(m == c).any() for c in (1, 2, 3)] for m in (pred, true))
        ours[~np.array(in_true)] = (
            np.nan
        )  # MONAI leaves out what the truth lacks; ours then gives 0 for a guess
        np.testing.assert_allclose(ours, dice, rtol=1e-6)
        scores.append(ours)
        ours = metrics.surface(pred, true, (1.5, 1.5, 3.0), 4).hd95[1:]
        one_empty = np.array(in_pred) != np.array(in_true)
        assert np.isinf(ours[one_empty]).all()
        np.testing.assert_allclose(ours[~one_empty], np.array(hd95)[~one_empty], rtol=1e-6)
    channels = [number(v) for v in expected["dice"]["mean_batch"]["value"]]
    np.testing.assert_allclose(np.nanmean(scores, 0), channels, rtol=1e-6)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["ts_mr_sm_seg", "ts_ct_sm_seg", "tpt_mr_spine_seg"])
def test_real_labels_equal_monai(reference, name):
    nib = pytest.importorskip("nibabel")
    sys.path[:0] = [str(reference), str(reference / "losses_metrics")]
    script = pytest.importorskip("make_losses_metrics")
    del sys.path[:2]
    case = load(reference / "losses_metrics" / "metrics_real_labels.json")[f"{name}.nii.gz"]
    true = np.asanyarray(nib.load(reference / "volumes" / f"{name}.nii.gz").dataobj)
    pred = script.perturbed_labels(true, case["seed"])
    k = int(max(pred.max(), true.max())) + 1
    pred, true = pred.astype(np.uint8), true.astype(np.uint8)
    dice, surface = metrics.dice(pred, true, k), metrics.surface(pred, true, case["spacing"], k, 3.0)
    assert case["labels"]
    for label, values in case["labels"].items():
        values, c = {key: number(v) for key, v in values.items()}, int(label)
        one_empty = (values["pred_voxels"] == 0) != (values["gt_voxels"] == 0)
        assert dice[c] == pytest.approx(values["dice"], rel=1e-6)
        # MONAI places the percentile among n distances in float32: its interpolation is good to n * 6e-8
        assert surface.hd95[c] == pytest.approx(np.inf if one_empty else values["hd95"], rel=1e-4)
        assert surface.assd[c] == pytest.approx(values["assd"], rel=1e-5)
        assert surface.nsd[c] == pytest.approx(values["surface_dice_3mm"], rel=1e-5)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 1000), st.sampled_from([(1.0, 1.0, 1.0), (1.5, 0.7, 3.0), (2.0, 9.0, 0.4)]), st.booleans()
)
def test_surface_equals_all_pairs(seed, spacing, ignore):
    pred, true = blobs(seed), blobs(seed + 1)
    if seed % 3 == 0:
        pred = np.where(np.random.default_rng(seed).random(true.shape) < 0.05, pred, true)  # nearly right
    if ignore:
        true[:4, 3:7] = 255
    expected = brute_surface(pred, true, spacing, 5, 1.5)
    np.testing.assert_allclose(metrics.surface(pred, true, spacing, 5, 1.5), expected, rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_metrics_are_symmetric_and_iou_follows_from_dice(seed):
    pred, true = blobs(seed), blobs(seed + 1)
    d = metrics.dice(pred, true, 6)
    np.testing.assert_array_equal(d, metrics.dice(true, pred, 6))
    np.testing.assert_allclose(metrics.iou(pred, true, 6), d / (2 - d), rtol=1e-12)
    there, back = (metrics.surface(a, b, (1.0, 2.0, 3.0), 6) for a, b in ((pred, true), (true, pred)))
    np.testing.assert_allclose(there, back, rtol=1e-12)
    assert (there.hd95[:4] <= there.hd[:4]).all() and (there.assd[:4] <= there.hd[:4]).all()


def test_distance_scales_with_spacing_and_shift():
    pred, true = np.zeros((2, 20, 9, 9), np.uint8)
    true[4:8, 2:7, 2:7] = 1
    pred[9:13, 2:7, 2:7] = 1
    ours = metrics.surface(pred, true, (2.5, 1.0, 1.0), 2)
    assert ours.hd[1] == 5 * 2.5  # the far face moved by five voxels
    assert metrics.surface(pred, true, (5.0, 2.0, 2.0), 2).assd[1] == pytest.approx(2 * ours.assd[1])


def test_absent_classes_give_the_documented_values():
    pred = np.zeros((6, 6, 6), np.uint8)
    true = pred.copy()
    pred[1, 1, 1], true[3, 3, 3] = 1, 2
    np.testing.assert_array_equal(metrics.dice(pred, true, 4)[1:], [0, 0, np.nan])
    np.testing.assert_array_equal(metrics.sensitivity(pred, true, 4)[1:], [np.nan, 0, np.nan])
    np.testing.assert_array_equal(metrics.specificity(pred, true, 4)[1:], [215 / 216, 1, 1])
    np.testing.assert_array_equal(metrics.volume_error(pred, true, 4)[1:], [np.inf, -1, np.nan])
    ours = metrics.surface(pred, true, (1.0, 1.0, 1.0), 4)
    for distance in ours[:3]:
        np.testing.assert_array_equal(distance[1:], [np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(ours.nsd[1:], [0, 0, np.nan])


def test_ignored_voxels_take_no_part():
    pred, true = blobs(3), blobs(4)
    outside = np.random.default_rng(0).random(true.shape) < 0.3
    masked = np.where(outside, np.uint8(255), true)
    expected = metrics.dice(pred[~outside], true[~outside], 4)
    np.testing.assert_array_equal(metrics.dice(pred, masked, 4), expected)
    scrambled = np.where(outside, np.uint8(9), pred)
    np.testing.assert_array_equal(metrics.dice(scrambled, masked, 4), expected)
    np.testing.assert_array_equal(
        metrics.surface(scrambled, masked, (1, 1, 1), 4), metrics.surface(pred, masked, (1, 1, 1), 4)
    )


def test_jit_equals_numpy():
    pred, true = blobs(5), blobs(6)
    true[0] = 255
    for metric in (metrics.dice, metrics.iou, metrics.sensitivity, metrics.specificity, metrics.volume_error):
        ours = jax.jit(metric, static_argnums=2)(jnp.asarray(pred), jnp.asarray(true), 6)
        np.testing.assert_allclose(ours, metric(pred, true, 6), rtol=1e-6)


@pytest.mark.parametrize("metric", [metrics.dice, lambda p, t, k: metrics.surface(p, t, (1, 1, 1), k)])
def test_wrong_labels_and_shapes_are_named(metric):
    labels = blobs(1)
    with pytest.raises(ValueError, match=r"prediction has label 3, not in 0\.\.2"):
        metric(labels, np.zeros_like(labels), 3)
    with pytest.raises(ValueError, match=r"\(14, 12, 10\).*\(14, 12, 9\)"):
        metric(labels, labels[..., :9], 4)


def test_predicted_labels_that_cannot_be_checked_inside_jit_count_as_wrong():
    pred, true = blobs(5).astype(np.int32), blobs(6).astype(np.int32)
    wild, wrong = pred.copy(), pred.copy()
    wild[:4], wrong[:4] = -1, np.where(true[:4] == 0, 1, 0)
    inside = jax.jit(metrics.confusion, static_argnums=2)(jnp.asarray(wild), jnp.asarray(true), 6)
    np.testing.assert_array_equal(inside, metrics.confusion(wrong, true, 6))
    for first in (jnp.asarray(wild), wild):
        with pytest.raises(ValuesError, match="prediction has label -1"):
            metrics.confusion(first, jnp.asarray(true), 6)


def test_an_unknown_prediction_never_raises_a_score():
    true, pred = np.array([0, 1, 1, 1]), np.array([0, 5, 5, 1])
    dice = jax.jit(metrics.dice, static_argnums=2)(jnp.asarray(pred), jnp.asarray(true), 3)
    np.testing.assert_allclose(dice[1], 0.5)


@pytest.mark.parametrize(
    "spacing, k, tolerance", [((1, 1), 6, 1), ((1, 1, 0), 6, 1), ((1, 1, 1), 256, 1), ((1, 1, 1), 6, [1, 2])]
)
def test_surface_names_arguments_that_cannot_be_used(spacing, k, tolerance):
    with pytest.raises(ValuesError, match=r"surface: .*(spacing|classes)"):
        metrics.surface(blobs(1), blobs(2), spacing, k, tolerance)
