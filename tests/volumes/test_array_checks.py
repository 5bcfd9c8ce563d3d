"""Arrays of callers are checked as files are: no id changes in silence, no NaN passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ukbob_jax as bob
from ukbob_jax.errors import InputError, ValuesError
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes import array_checks

BAD = np.zeros((6, 6, 6))
BAD[2:4, 2:4, 2:4] = 1.7
NEAR = np.where(BAD > 0, 1.9999999, 0)
GOOD = np.where(BAD > 0, 2, 0)


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("name", ["dice", "iou", "sensitivity", "specificity", "volume_error", "confusion"])
def test_metrics_refuse_fractional_labels_and_round_near_ones(name, make):
    metric = getattr(bob.metrics, name)
    for pair, which in (((BAD, GOOD), "prediction"), ((GOOD, BAD), "truth")):
        with pytest.raises(ValuesError, match=rf"^{which}: label values 1\.7\d* \(8 voxels\) are not whole"):
            metric(*map(make, pair), 3)
    with pytest.warns(UserWarning, match="away from whole numbers"):
        found = metric(make(NEAR), make(GOOD), 3)
    np.testing.assert_array_equal(found, metric(make(GOOD), make(GOOD), 3))


def test_surface_and_store_do_the_same(tmp_path):
    nan = np.where(BAD > 0, np.nan, 0)
    with StoreWriter(tmp_path / "store") as store:

        def write(label):
            store.write("a", np.ones((6, 6, 6, 1), np.int16), np.eye(4), {"manual": label}, source="x")

        for call in (
            lambda label: bob.metrics.surface(label, GOOD, (1, 1, 1), 3),
            write,
        ):
            with pytest.raises(InputError, match=r"1\.7 \(8 voxels\) are not whole numbers"):
                call(BAD)
            with pytest.raises(InputError, match="8 label voxels are NaN or infinite"):
                call(nan)
            with pytest.warns(UserWarning, match="rounded"):
                call(NEAR)


def test_measures_and_losses_take_no_fractions():
    with pytest.raises(ValuesError, match="labels are float64: need integers"):
        bob.quality.measure(BAD, (1, 1, 1), 3)
    for loss in (bob.losses.dice_ce, bob.losses.dice_bce_labels):
        with pytest.raises(ValuesError, match=r"^labels: label values 1\.7\d* \(8 voxels\) are not whole"):
            loss(jnp.zeros((1, 6, 6, 6, 3)), jnp.asarray(BAD)[None])


def test_nan_volumes_are_refused_before_a_window_is_predicted():
    volume = np.ones((8, 8, 8, 1), np.float32)
    volume[0, 0, 0] = np.nan
    for given in (volume, jnp.asarray(volume)):
        with pytest.raises(ValuesError, match=r"^volume: 1 of 512 voxels are NaN or infinite"):
            bob.sliding_window(lambda x: x, given, (8, 8, 8))


def test_integers_are_handed_through_and_nothing_is_looked_at_inside_jit():
    whole = jnp.asarray(GOOD)
    assert array_checks.label_array("x", whole) is whole
    jax.jit(lambda x: array_checks.label_array("x", x))(jnp.asarray(BAD))
    with pytest.raises(ValuesError, match="no label ids"):
        array_checks.label_array("x", np.array(["a"]))
