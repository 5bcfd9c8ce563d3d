"""What a single scan gives away: default affines, CT without its rescale, and what a network's training says of it."""

import numpy as np
import pytest

from ukbob_jax.volumes import plausibility
from ukbob_jax.volumes.volume import Volume


def ct(air: float = -1000.0, dtype=np.float32) -> np.ndarray:
    """A body of soft tissue with lungs and bone, in HU, `x y z`."""
    rng = np.random.default_rng(0)
    image = np.full((20, 20, 20), air)
    image[3:17, 4:16] = rng.normal(40, 30, (14, 12, 20))
    image[5:9, 6:10, :10] = rng.normal(-800, 30, (4, 4, 10))
    image[12:14, 8:10] = rng.normal(600, 90, (2, 2, 20))
    return image.astype(dtype)


@pytest.mark.parametrize(
    "image, said",
    [
        (ct() + 1024, "it looks like HU + 1024: no value is negative, and the middle of the body is 10"),
        ((ct() + 1024).astype(np.uint16), "it looks like HU + 1024"),
        ((ct() + 1000) / 2000, "it is no CT in HU: its values lie within 0 and "),
        (np.tanh(ct() / 500), "it is no CT in HU"),
        (np.rint((ct() + 1000).clip(0, 1275) / 5), "within 0 and 255, as in 8-bit pictures"),
    ],
)
def test_ct_that_is_not_in_hu_is_told(image, said):
    (told,) = plausibility.hu_doubts(image)
    assert told.startswith("it") and said in told


@pytest.mark.parametrize(
    "image",
    [ct(), ct(0.0), ct()[5:15, 6:14], np.maximum(ct(), 0), ct(dtype=np.int16)],
)
def test_ct_in_hu_and_crops_of_it_are_not(image):
    assert plausibility.hu_doubts(image) == []


@pytest.mark.parametrize(
    "said, hu",
    [
        (("ct", "", ""), True), (("CT_venous", "", ""), True), (("cta", "", ""), True), (("0", "CT", ""), True),
        (("0", "", "HU"), True), (("t1ct", "", ""), False), (("0", "", ""), False), (("ct", "MR", ""), False),
    ],
)  # fmt: skip
def test_what_says_that_a_channel_is_ct(said, hu):
    assert plausibility.holds_hu(*said) is hu
    image = np.stack([ct() + 1024] * 2, axis=-1)
    name, modality, units = said
    assert len(plausibility.value_doubts(image, (name, "mr"), modality, units)) == (
        2 if modality == "CT" or units else hu
    )


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (-1, 1, 1), (1, 1, -1)])
def test_default_affines_are_told_also_after_turning(signs):
    stored = Volume(np.zeros((4, 5, 6), np.int16), np.diag([*map(float, signs), 1.0]))
    turned = stored.to_ras()
    expected = [plausibility.IDENTITY if signs == (1, 1, 1) else plausibility.DEFAULT]
    assert plausibility.doubts(stored.affine) == expected == plausibility.doubts(turned.affine, turned.shape)


def test_measured_affines_are_not_doubted():
    affine = np.eye(4)
    affine[:3, 3] = (-90.0, -126.0, -72.0)  # MNI, 1 mm
    for found in (affine, np.diag([2.0, 2.0, 2.0, 1.0]), np.diag([1.0, 1.0, 3.0, 1.0])):
        assert not plausibility.doubts(found, (181, 217, 181))


@pytest.mark.parametrize(
    "normalize, known",
    [
        ("window:-175:250", True),
        ("window:0:500", False),
        ("window:a:1", False),
        ("window:", False),
        ("zscore", False),
    ],
)
def test_a_window_of_hu_begins_below_zero_and_what_is_no_window_is_none(normalize, known):
    assert plausibility.is_hu_window(normalize) == known


def test_values_are_compared_with_what_training_held():
    lows = np.array([[-1000.0, 3.0], [-990.0, 0.0], [20.0, 1.0]])
    training = plausibility.describe_training(np.ones((3, 3)), np.full((3, 3), 9), lows)
    assert training["hu"] == [True, False]
    stored = np.stack([ct() + 1024, ct() + 1024], axis=-1)
    assert len(plausibility.compare_values(stored, training, "auto")) == 1
    assert len(plausibility.compare_values(stored, {}, "window:-160:240")) == 2
    assert not plausibility.compare_values(stored, {}, "auto")  # a card of earlier versions
    assert not plausibility.compare_values(stored, {"hu": [False, False]}, "window:0:240")
    assert not plausibility.compare_values(np.stack([ct(), ct() + 1024], axis=-1), training, "auto")
