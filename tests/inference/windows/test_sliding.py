"""The sliding window against MONAI's outputs, and by what must hold for any network."""

import json
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukbob_jax.inference.windows import grid as grids
from ukbob_jax.inference.windows.slabs import segment
from ukbob_jax.inference.windows.sliding import sliding_window, sliding_window_params
from ukbob_jax.inference.windows.window import Window

KERNEL = (
    ((9 * np.arange(3)[:, None, None] + 3 * np.arange(3)[:, None] + np.arange(3))[..., None] * [1, 2]) % 7 - 3
) / 16
KERNEL = KERNEL[:, :, :, None].astype(np.float32)


def ramp(patch):
    """b x y z 1 -> b x y z 2: depends on where in its window a voxel lies."""
    i, j, k = jnp.meshgrid(*[jnp.arange(s, dtype=patch.dtype) for s in patch.shape[1:4]], indexing="ij")
    r = jnp.broadcast_to(((i + 2 * j + 3 * k) / 128)[None, ..., None], patch.shape)
    return jnp.concatenate([patch * patch + r, patch - r], -1)


def conv(patch):
    """b x y z 1 -> b x y z 2: a 3x3x3 filter, zeros outside the window."""
    return jax.lax.conv_general_dilated(
        patch, KERNEL, (1, 1, 1), "SAME", dimension_numbers=("NXYZC", "XYZIO", "NXYZC")
    )


def pointwise(variables, x):
    """b x y z c -> b x y z 3, voxel by voxel."""
    return jnp.concatenate([x[..., :1] * variables["a"], jnp.sin(x[..., :1]), x[..., :1] ** 2], -1)


def random_volume(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def reference_cases():
    names = [
        f"larger_{mode}_{overlap}"
        for mode in ("constant", "gaussian")
        for overlap in ("0.25", "0.5", "0.625")
    ]
    for kind in ("mixed", "smaller", "equal", "conv", "batch2", "large"):
        names += [f"{kind}_constant", f"{kind}_gaussian"]
    names += ["overlap0_constant", "overlap0.9_gaussian", "overlap_per_axis_gaussian", "roi_minus1_gaussian"]
    return names


NOT_OFFERED = {"sigma0.25_gaussian", "cval_constant", "replicate_gaussian"}  # no recipe sets width or padding


@pytest.fixture(scope="module")
def monai(reference):
    """Cases, outputs, and the script with the input's formula."""
    folder = reference / "sliding_window"
    sys.path[:0] = [str(reference), str(folder)]
    import make_sliding_window

    del sys.path[:2]
    return (
        json.loads((folder / "sliding_window.json").read_text()),
        np.load(folder / "sliding_window_outputs.npz"),
        make_sliding_window,
    )


@pytest.mark.reference
def test_every_reference_case_is_tested(monai):
    assert {name for name in monai[0] if not name.startswith("_")} == set(reference_cases()) | NOT_OFFERED


@pytest.mark.reference
@pytest.mark.parametrize("name", reference_cases())
def test_equals_monai(monai, name):
    cases, outputs, script = monai
    case = cases[name]
    predict = {"ramp": ramp, "conv": conv}[case["predictor"]]
    volumes = script.volume(case["shape"], case["seed"]).transpose(0, 2, 3, 4, 1)
    for volume, expected in zip(volumes, outputs[name].transpose(0, 2, 3, 4, 1)):
        ours = sliding_window(predict, volume, case["roi"], case["overlap"], case["mode"])
        np.testing.assert_allclose(ours, expected, atol=2e-5)  # MONAI's own distance from float64 is 6e-6


@pytest.mark.reference
@pytest.mark.parametrize("name", reference_cases())
def test_windows_equal_monai(monai, name):
    case = monai[0][name]
    grid = grids.windows(case["shape"][2:], case["roi"], case["overlap"])
    assert list(grid.padded) == case["padded_shape"]
    assert len(grid.starts) == case["n_windows"]
    assert sorted(map(tuple, grid.starts.tolist()))[:200] == list(map(tuple, case["window_starts"]))


@pytest.mark.reference
def test_blend_weights_equal_monai(reference):
    maps = np.load(reference / "sliding_window" / "importance_maps.npz")
    tested = [name for name in maps if name.endswith(f"sigma{grids.SIGMA_SCALE}")]
    assert tested
    for name in tested:
        expected, roi = maps[name], name.split("_")[1]
        ours = grids.blend_weights([int(r) for r in roi.split("x")], "gaussian")
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(9, 7, 8), (5, 11, 6)])
@pytest.mark.parametrize("overlap", [0.0, (0.5, 0.25, 0.75)])
@pytest.mark.parametrize("blend", ["gaussian", "constant"])
def test_voxelwise_prediction_is_not_changed(shape, overlap, blend):
    volume, variables = random_volume((*shape, 2)), {"a": jnp.float32(1.5)}
    expected = pointwise(variables, volume)
    ours = sliding_window_params(pointwise, variables, volume, Window((6, 6, 6), overlap, blend))
    np.testing.assert_allclose(ours, expected, atol=2e-6)


@pytest.mark.parametrize("batch", [2, 5, 7, 50])
def test_batch_does_not_change_the_result_and_is_always_full(batch):
    seen = []

    def predict(x):
        seen.append(x.shape)
        return conv(x)

    volume = random_volume((11, 9, 10, 1))
    ours = sliding_window(predict, volume, (6, 5, 4), 0.5, batch=batch)
    assert set(seen) == {(batch, 6, 5, 4, 1)}  # of 3 x 3 x 4 windows
    np.testing.assert_allclose(ours, sliding_window(conv, volume, (6, 5, 4), 0.5, batch=1), atol=1e-6)


@pytest.mark.parametrize(
    "shape, overlap",
    [((17, 9, 8), 0.5), ((9, 17, 8), 0.0), ((8, 9, 19), 0.7), ((4, 4, 4), 0.5), ((6, 5, 23), 0.5)],
)
def test_slabs_give_the_argmax_of_the_logits(shape, overlap):
    volume, variables = random_volume((*shape, 1)), {"a": jnp.float32(0.7)}

    def apply(variables, x):
        return jnp.concatenate([conv(x), ramp(x), variables["a"] * x], -1)

    logits = sliding_window_params(apply, variables, volume, Window((6, 5, 6), overlap))
    ours = segment(apply, variables, volume, Window((6, 5, 6), overlap))
    np.testing.assert_array_equal(ours.labels, jnp.argmax(logits, -1))
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    np.testing.assert_allclose(ours.entropy, -(p * np.log(p)).sum(-1), atol=1e-5)
    np.testing.assert_allclose(ours.confidence, p.max(-1), atol=1e-6)


def test_excluded_classes_are_never_predicted():
    volume = random_volume((9, 8, 7, 1))
    ours = segment(
        lambda _, x: jnp.concatenate([x, x + 5, -x], -1), None, volume, Window((4, 4, 4)), exclude=(1,)
    )
    np.testing.assert_array_equal(ours.labels, np.where(volume[..., 0] >= 0, 0, 2))
    q = 1 / (1 + np.exp(-2 * np.abs(volume[..., 0])))
    np.testing.assert_allclose(ours.confidence, q, atol=1e-6)
    assert np.isfinite(ours.entropy).all()


def test_new_parameters_and_new_volumes_compile_nothing():
    chex.clear_trace_counter()
    apply = chex.assert_max_traces(pointwise, n=2)  # the output's shape, then the loop

    for run, value in ((sliding_window_params, 1.0), (sliding_window_params, 2.0)):
        run(apply, {"a": jnp.float32(value)}, random_volume((8, 8, 9, 1), seed=int(value)), Window((5, 5, 5)))


@pytest.mark.parametrize("shape, batch", [((11, 9, 10), 5), ((4, 9, 3), 50)])
@pytest.mark.parametrize("blend", ["gaussian", "constant"])
def test_a_prediction_that_needs_values_is_called_on_the_host(shape, batch, blend):
    seen = []

    def predict(x):
        seen.append(x.shape)
        return np.array(conv(np.asarray(x)))  # numpy: cannot be traced

    volume, roi = random_volume((*shape, 1)), (6, 5, 4)
    ours = sliding_window(predict, volume, roi, (0.5, 0.25, 0.6), blend, batch)
    assert set(seen) == {(batch, *roi, 1)}
    expected = sliding_window(conv, volume, roi, (0.5, 0.25, 0.6), blend, batch)
    np.testing.assert_allclose(ours, expected, atol=1e-6)  # float32 sums in another order


def test_a_prediction_that_selects_by_value_is_called_on_the_host():
    volume = random_volume((8, 9, 7, 1))
    found = sliding_window(lambda x: x - x[x > 0].min() * 0, volume, (5, 5, 5))
    np.testing.assert_allclose(found, volume, atol=1e-6)  # float32 weights


def test_works_inside_jit():
    volume = random_volume((8, 9, 7, 1))
    jitted = jax.jit(lambda v: sliding_window(conv, v, (5, 5, 5)))
    np.testing.assert_allclose(jitted(volume), sliding_window(conv, volume, (5, 5, 5)), atol=1e-6)


LENGTHS = st.tuples(*[st.integers(1, 40)] * 3)


@given(LENGTHS, LENGTHS, st.floats(0, 0.95))
def test_windows_cover_every_voxel_and_stay_inside(shape, roi, overlap):
    grid = grids.windows(shape, roi, overlap)
    ends = grid.starts + np.array(grid.roi)
    assert (grid.starts >= 0).all() and (ends <= np.array(grid.padded)).all()
    assert len(set(map(tuple, grid.starts.tolist()))) == len(grid.starts)
    assert all(b >= p for b, p in zip(grid.bucket, grid.padded))
    assert len(grids.windows(grid.bucket, roi, overlap).starts) == len(grid.starts)
    for axis in range(3):
        covered = np.zeros(grid.padded[axis], bool)
        for start in set(grid.starts[:, axis].tolist()):
            covered[start : start + grid.roi[axis]] = True
        assert covered.all()
    assert (np.diff(grid.starts[:, grid.axis]) >= 0).all()  # slab by slab


def test_weights_of_a_voxel_add_up_to_one():
    grid = grids.windows((11, 7, 5), (4, 4, 8), 0.5)
    x, y, z = grids.coverage_weights(grid)
    weight = x[:, None, None] * y[:, None] * z
    total = np.zeros(grid.bucket)
    for i, j, k in grid.starts:
        window = (slice(i, i + 4), slice(j, j + 4), slice(k, k + 8))
        total[window] += weight[window]
    expected = np.zeros(grid.bucket)
    expected[:11, :7, 1:6] = 1
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_shapes_of_one_bucket_share_a_program():
    traces = []

    def apply(_, x):
        traces.append(x.shape)
        return conv(x)

    segment(apply, None, random_volume((10, 9, 12, 1)), Window((6, 6, 6)))
    count = len(traces)
    for shape in ((12, 9, 11), (11, 7, 10)):
        volume = random_volume((*shape, 1))
        labels = segment(apply, None, volume, Window((6, 6, 6))).labels
        assert labels.shape == shape and len(traces) == count
        np.testing.assert_array_equal(labels, jnp.argmax(sliding_window(conv, volume, (6, 6, 6)), -1))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"overlap": 1.0}, "overlap 1.0 is outside"),
        ({"blend": "hann"}, "'hann' is not known"),
        ({"roi": (4, 4)}, "need 3 entries"),
        ({"batch": 0}, "batch 0 must be at least 1"),
        ({"volume": np.zeros((8, 8, 8))}, r"is not x y z c"),
        ({"predict": lambda x: x[:, ::2]}, r"predict gave shape \(4, 2, 4, 4, 1\)"),
    ],
)
def test_wrong_settings_are_named(change, message):
    arguments = {
        "predict": lambda x: x,
        "volume": np.zeros((8, 8, 8, 1), np.float32),
        "roi": (4, 4, 4),
    } | change
    with pytest.raises(ValueError, match=message):
        sliding_window(**arguments)
