"""Adaptation against gradients of the whole scan, against MONAI-side entropies, and its guards at work."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ukbob_jax.inference.adaptation.etta import etta

ROI = (4, 4, 4)
NORMS = ("norm1/bias", "norm1/scale")


def volume(shape=(8, 4, 8), channels=2, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, channels)).astype(np.float32)


@pytest.fixture(scope="module")
def pointwise(networks):
    """(model, params): voxel-wise, so that windows are exact parts of the scan."""
    model = networks[0]()
    return model, model.init(jax.random.key(1), jnp.zeros((1, *ROI, 2)))["params"]


def mean_entropy(model, params, x, weight=None):
    """By the definition, over all voxels at once."""
    p = jax.nn.softmax(model.apply({"params": params}, jnp.asarray(x)[None])[0])
    h = -jnp.sum(p * jnp.log(p), -1)
    return jnp.mean(h) if weight is None else jnp.sum(h * weight) / jnp.sum(weight)


def whole_scan_step(model, params, x, learning_rate, weight=None):
    """One step of plain gradient descent on the norm's parameters, without windows."""
    gradient = jax.grad(lambda norm: mean_entropy(model, {**params, "norm1": norm}, x, weight))(
        params["norm1"]
    )
    return {**params, "norm1": jax.tree.map(lambda p, g: p - learning_rate * g, params["norm1"], gradient)}


def assert_trees_close(ours, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), dict(ours), dict(expected))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_step_over_windows_is_a_step_over_the_whole_scan(pointwise, batch):
    model, params = pointwise
    x = volume()
    ours = etta(model, params, x, roi=ROI, learning_rate=0.5, optimizer="sgd", batch=batch)
    expected = whole_scan_step(model, params, x, 0.5)
    assert_trees_close(ours.params, expected, atol=1e-6)
    assert ours.accepted and ours.selected == NORMS
    assert ours.entropy_before == pytest.approx(float(mean_entropy(model, params, x)), rel=1e-5)
    assert ours.entropy_after == pytest.approx(float(mean_entropy(model, expected, x)), rel=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_all_windows_sampled_are_the_whole_scan(pointwise, batch):
    model, params = pointwise
    options = dict(roi=ROI, learning_rate=0.5, optimizer="sgd", batch=batch, steps=2, max_drift=None)
    whole = etta(model, params, volume(), **options)
    for windows in (4, 9):  # of 4
        ours = etta(model, params, volume(), windows=windows, seed=1, **options)
        assert_trees_close(ours.params, whole.params, atol=1e-6)
        assert ours.entropies == pytest.approx((whole.entropies[0], whole.entropies[2]), abs=1e-6)
        assert ours.class_fractions_before == pytest.approx(whole.class_fractions_before)


def test_a_sampled_step_is_that_of_its_windows_and_in_the_mean_that_of_the_scan(pointwise):
    model, params = pointwise
    x = volume()
    options = dict(roi=ROI, learning_rate=0.5, optimizer="sgd", max_drift=None, must_fall=False)
    parts = [x[a : a + 4, :, b : b + 4] for a in (0, 4) for b in (0, 4)]
    expected = [whole_scan_step(model, params, part, 0.5)["norm1"]["scale"] for part in parts]
    met = {}
    for seed in range(40):
        ours = etta(model, params, x, windows=1, seed=seed, **options).params["norm1"]["scale"]
        off = [np.abs(ours - scale).max() for scale in expected]
        assert min(off) < 1e-6
        met[int(np.argmin(off))] = ours
    assert sorted(met) == [0, 1, 2, 3]
    whole = whole_scan_step(model, params, x, 0.5)["norm1"]["scale"]
    np.testing.assert_allclose(np.mean(list(met.values()), axis=0), whole, atol=1e-6)
    # without replacement: four steps of one window at no rate to speak of add up to four of the whole scan
    tiny = {**options, "learning_rate": 1e-3, "steps": 4}
    dealt, whole = etta(model, params, x, windows=1, **tiny), etta(model, params, x, **tiny)
    moved = np.abs(whole.params["norm1"]["scale"] - params["norm1"]["scale"]).max()
    assert_trees_close(dealt.params["norm1"], whole.params["norm1"], atol=0.02 * moved)
    assert len(dealt.entropies) == 2 and dealt.entropy_before == pytest.approx(whole.entropy_before)


def test_the_draw_is_fixed_by_its_seed_and_compiles_nothing(networks, pointwise):
    traces = []
    model = networks[0](on_trace=lambda: traces.append(1))
    options = dict(roi=ROI, steps=3, windows=2, learning_rate=0.1, max_drift=None)
    first, other = (etta(model, pointwise[1], volume(), seed=seed, **options) for seed in (0, 5))
    count = len(traces)
    again = etta(model, pointwise[1], volume(), **options)
    assert len(traces) == count > 0
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    assert (first.params["norm1"]["scale"] != other.params["norm1"]["scale"]).any()


@pytest.mark.parametrize("shape, overlap", [((7, 3, 10), 0.0), ((9, 6, 5), 0.5)])
def test_every_voxel_counts_once_also_with_padding_and_overlap(pointwise, shape, overlap):
    model, params = pointwise
    x = volume(shape)
    ours = etta(model, params, x, roi=ROI, learning_rate=0.5, optimizer="sgd", overlap=overlap, batch=2)
    assert_trees_close(ours.params, whole_scan_step(model, params, x, 0.5), atol=1e-6)


def test_background_can_count_less(pointwise):
    model, params = pointwise
    x = volume()
    p = jax.nn.softmax(model.apply({"params": params}, x[None])[0])[..., 0]
    ours = etta(model, params, x, roi=ROI, learning_rate=0.5, optimizer="sgd", background_weight=0.2)
    assert_trees_close(ours.params, whole_scan_step(model, params, x, 0.5, 1 - 0.8 * p), atol=1e-6)


def test_uncertain_voxels_can_be_left_out(pointwise):
    model, params = pointwise
    x = volume()
    p = jax.nn.softmax(model.apply({"params": params}, x[None])[0])
    h = -jnp.sum(p * jnp.log(p), -1)
    ceiling = float(jnp.median(h)) / np.log(3)
    sure = (h < ceiling * np.log(3)).astype(jnp.float32)
    options = dict(roi=ROI, learning_rate=0.1, optimizer="sgd", max_drift=None)
    ours = etta(model, params, x, ceiling=ceiling, **options)
    # the step is taken with what was sure before it; a voxel at the median may round to either side
    assert_trees_close(ours.params, whole_scan_step(model, params, x, 0.1, sure), atol=2e-4)
    plain = etta(model, params, x, **options)
    assert np.abs(ours.params["norm1"]["scale"] - plain.params["norm1"]["scale"]).max() > 1e-3


def test_adam_steps_equal_a_loop(pointwise):
    model, params = pointwise
    x = volume()
    ours = etta(model, params, x, roi=ROI, steps=3, learning_rate=0.02)
    norm, tx = params["norm1"], optax.adam(0.02)
    state, entropies = tx.init(norm), []
    loss = jax.jit(jax.value_and_grad(lambda norm: mean_entropy(model, {**params, "norm1": norm}, x)))
    for _ in range(3):
        value, gradient = loss(norm)
        entropies.append(float(value))
        updates, state = tx.update(gradient, state)
        norm = optax.apply_updates(norm, updates)
    assert_trees_close(ours.params["norm1"], norm, atol=1e-5)
    np.testing.assert_allclose(ours.entropies[:3], entropies, rtol=1e-5)
    assert ours.entropies == tuple(sorted(ours.entropies, reverse=True))
    assert ours.entropy_after == ours.entropies[-1] and ours.skipped == 0


def test_source_parameters_and_batch_statistics_stay(networks):
    model = networks[1]()
    variables = model.init(jax.random.key(0), jnp.zeros((1, *ROI, 2)))
    before = jax.tree.map(np.array, variables)
    state = {"batch_stats": variables["batch_stats"]}
    arguments = dict(roi=ROI, steps=2, learning_rate=0.05, model_state=state, overlap=0.5)
    first = etta(model, variables["params"], volume(), **arguments)
    etta(model, variables["params"], volume(seed=1), **arguments)
    again = etta(model, variables["params"], volume(), **arguments)
    jax.tree.map(np.testing.assert_array_equal, variables, before)
    jax.tree.map(
        np.testing.assert_array_equal, first.params, again.params
    )  # nothing is carried between scans
    assert first.accepted and (first.params["norm1"]["scale"] != before["params"]["norm1"]["scale"]).any()
    for frozen in ("stem", "out"):
        jax.tree.map(np.testing.assert_array_equal, first.params[frozen], before["params"][frozen])


def test_regions_are_adapted_by_binary_entropy(pointwise):
    model, params = pointwise
    x = volume()

    def loss(params):
        p = jax.nn.sigmoid(model.apply({"params": params}, x[None]))
        return -jnp.mean(jnp.sum(p * jnp.log(p) + (1 - p) * jnp.log(1 - p), -1))

    ours = etta(model, params, x, roi=ROI, learning_rate=0.05, activation="sigmoid", max_drift=None)
    assert ours.accepted
    assert ours.entropy_before == pytest.approx(float(loss(params)), rel=1e-5)
    assert ours.entropy_after == pytest.approx(float(loss(ours.params)), rel=1e-5)


def test_no_learning_rate_changes_nothing_and_is_not_accepted(pointwise):
    model, params = pointwise
    ours = etta(model, params, volume(), roi=ROI, steps=2, learning_rate=0.0)
    assert not ours.accepted and ours.params is params and ours.reason == "entropy did not fall"
    assert ours.entropy_after == ours.entropy_before and ours.drift == 0


def test_risen_entropy_is_refused_unless_told(pointwise):
    model, params = pointwise
    uphill = dict(roi=ROI, steps=3, learning_rate=-5.0, optimizer="sgd", max_drift=None)
    ours = etta(model, params, volume(), **uphill)
    assert not ours.accepted and ours.params is params and ours.reason == "entropy did not fall"
    assert ours.entropies == tuple(sorted(ours.entropies))
    assert ours.entropy_after == ours.entropies[1] > ours.entropy_before  # the lowest of the steps
    off = etta(model, params, volume(), must_fall=False, **uphill)
    assert off.accepted and off.entropy_after == off.entropies[-1]
    assert float(mean_entropy(model, off.params, volume())) == pytest.approx(off.entropy_after, rel=1e-5)


def test_collapse_to_background_is_refused_unless_told(pointwise):
    model, params = pointwise
    # only the output's bias may move, far: the most frequent class takes everything
    params = {**params, "out": {**params["out"], "bias": jnp.array([0.3, 0.0, 0.0])}}
    arguments = dict(roi=ROI, steps=30, learning_rate=0.5, select="out/bias$")
    ours = etta(model, params, volume(), **arguments)
    assert ours.entropy_after < ours.entropy_before
    assert ours.class_fractions_before[0] < 0.6 and ours.class_fractions_after[0] == pytest.approx(1)
    assert not ours.accepted and ours.params is params
    assert ours.reason == "predicted classes drifted by 1, more than 0.5"
    assert etta(model, params, volume(), max_drift=None, **arguments).accepted


def test_non_finite_steps_are_left_out_unless_told(pointwise):
    model, params = pointwise
    x = volume()
    x[2, 2, 2] = np.nan
    ours = etta(model, params, x, roi=ROI, steps=2)
    assert not ours.accepted and ours.params is params
    assert ours.skipped == 2 and ours.reason == "entropy is not finite"
    off = etta(model, params, x, roi=ROI, skip_nonfinite=False, must_fall=False, max_drift=None)
    assert off.accepted and np.isnan(off.params["norm1"]["scale"]).all() and off.skipped == 0


def test_scans_of_one_shape_compile_once(networks, pointwise):
    traces = []
    model = networks[0](on_trace=lambda: traces.append(1))
    params = pointwise[1]
    etta(model, params, volume(), roi=ROI, steps=2)
    count = len(traces)
    assert count > 0
    other = jax.tree.map(lambda p: p * 1.1, params)
    for shape in ((8, 4, 8), (7, 4, 5)):  # of one bucket
        etta(model, other, volume(shape, seed=3), roi=ROI, steps=2, learning_rate=0.3, max_drift=None)
    assert len(traces) == count


@pytest.mark.parametrize(
    "change, message",
    [
        ({"optimizer": "lion"}, "'lion' is not known. Use one of adam, sgd"),
        ({"activation": "relu"}, "'relu' is not known"),
        ({"steps": -1}, "steps -1 is negative"),
        ({"ceiling": 1.5}, "ceiling 1.5 is outside 0 to 1"),
        ({"background_weight": -1}, "background_weight -1.0 must be 0 or more"),
        ({"background_weight": np.nan}, "background_weight nan must be 0 or more"),
        ({"exclude": (0, 1, 2)}, "exclude: 3 of 3 classes; leave at least one"),
        ({"windows": 0}, "windows 0 must be at least 1"),
        (
            {"momentum": 0.9},
            "etta: unknown option 'momentum'; there are overlap, batch, activation, exclude, steps",
        ),
    ],
)
def test_wrong_settings_are_named(pointwise, change, message):
    with pytest.raises(ValueError, match=message):
        etta(*pointwise, volume(), roi=ROI, **change)
