"""Labels of slabs against those of whole logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.inference.windows.predictors import conv, ramp, random_volume
from ukbob_jax.inference.windows.slabs import segment
from ukbob_jax.inference.windows.sliding import sliding_window, sliding_window_params
from ukbob_jax.inference.windows.window import Window


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


def test_later_regions_overwrite_earlier_ones():
    volume = np.float32([-2, 1, 3]).reshape(3, 1, 1, 1)
    ours = segment(
        lambda _, x: jnp.concatenate([x, x - 2], -1), None, volume, Window((3, 1, 1)), region_labels=(2, 7)
    )
    assert ours.labels.ravel().tolist() == [0, 2, 7]
    np.testing.assert_allclose(ours.confidence.ravel(), 1 / (1 + np.exp([-2.0, -1, -1])), rtol=1e-5)
