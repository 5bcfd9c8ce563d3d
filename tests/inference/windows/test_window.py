"""How windows are laid and blended."""

import dataclasses

import numpy as np
import pytest

from ukbob_jax.inference.windows.window import Window, fractions


@pytest.mark.parametrize(
    "overlap, expected",
    [
        (0, 0.0),
        (0.25, 0.25),
        (np.float32(0.5), 0.5),
        ([0.5, 0, 0.25], (0.5, 0.0, 0.25)),
        (np.array([0.5]), (0.5,)),
    ],
)
def test_an_overlap_is_a_number_or_one_per_axis(overlap, expected):
    found = fractions(overlap)
    assert found == expected and type(found) is type(expected) and hash(found) == hash(expected)


def test_equal_windows_share_a_compiled_program():
    plain = Window((4, 5, 6), (0.5, 0.25, 0.0), "constant", 2)
    other = Window(np.array([4, 5, 6]), np.array([0.5, 0.25, 0.0]), "constant", np.int64(2))
    assert plain == other and hash(plain) == hash(other) and type(other.batch) is int
    assert len({plain, other, Window((4, 5, 6), 0.5), Window((4, 5, 7), 0.5)}) == 3


def test_defaults_are_the_papers_and_fields_stay_as_they_are():
    window = Window([8, 8, 8])
    assert (window.overlap, window.blend, window.batch) == (0.5, "gaussian", 4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        window.batch = 5
    assert dataclasses.replace(window, roi=[4, 4, 4]).roi == (4, 4, 4)
