"""Slices are turned as elsewhere in the package, come back exactly, and have the grey values that were asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ukbob_jax.export2d import slicing
from ukbob_jax.volumes.slices import PLANES, slice_for_display


@pytest.mark.parametrize("plane, axis", list(zip(PLANES, "xyz")))
def test_slices_are_turned_for_display(plane, axis):
    volume = np.random.default_rng(0).integers(0, 9, (4, 5, 6))
    stack = slicing.stack(volume, axis)
    for index in range(volume.shape["xyz".index(axis)]):
        np.testing.assert_array_equal(stack[index], slice_for_display(volume, plane, index))
    np.testing.assert_array_equal(slicing.unstack(stack, axis), volume)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 5)] * 3),
    axis=st.sampled_from("xyz"),
    pixels=st.sampled_from(["raw", "isotropic"]),
)
def test_labels_come_back_where_a_pixel_was_nearest(shape, spacing, axis, pixels):
    labels = np.random.default_rng(1).integers(1, 9, shape).astype(np.uint8)
    plane = slicing.plane(axis, shape, spacing, pixels)
    slices = slicing.cut(labels, plane, 0)
    assert slices.shape == (plane.slices, *plane.shape)
    back, lost = slicing.uncut(slices, plane)
    assert back.shape == shape
    np.testing.assert_array_equal(back[back > 0], labels[back > 0])
    assert (lost == 0) == bool((back > 0).all())
    assert lost == 0 or pixels == "isotropic"


def test_isotropic_pixels_are_square_and_of_the_finer_spacing():
    plane = slicing.plane("x", (3, 10, 21), (9.0, 3.0, 1.5), "isotropic")
    assert (plane.shape, plane.pixel_mm) == ((21, 19), 1.5)
    assert slicing.plane("x", (3, 10, 21), (9.0, 3.0, 1.5), "raw").shape == (21, 10)
    ramp = np.broadcast_to(np.arange(10.0)[None, :, None], (3, 10, 21))  # from back to front
    np.testing.assert_allclose(slicing.cut(ramp, plane, 1)[0, 0], np.arange(19) / 2, rtol=1e-6)


def test_grey_values():
    values = np.array([-50, 0, 100, 200, 400], np.int16)
    assert slicing.grey(values, 0, 200).tolist() == [0, 0, 128, 255, 255]
    assert slicing.grey(values, 7, 7).tolist() == [0] * 5
    slices = np.array([[[0, 1], [2, 4]], [[3, 3], [3, 3]]], np.int16)
    assert slicing.grey(slices, *slicing.slice_range(slices)).tolist() == [
        [[0, 64], [128, 255]],
        [[0, 0], [0, 0]],
    ]
