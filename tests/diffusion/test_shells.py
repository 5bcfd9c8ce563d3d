"""What can be fitted, and one line that says why a series cannot."""

import numpy as np
import pytest

from tests.diffusion import fields
from ukbob_jax.diffusion import library, shells
from ukbob_jax.diffusion.gradients import Gradients
from ukbob_jax.errors import ConfigError, ValuesError


def series(b, g):
    return Gradients(np.asarray(b, float), np.asarray(g, float))


def test_small_weightings_count_as_none_and_shells_are_told_apart():
    b = np.array([5.0, 0, 20, 990, 1000, 1005, 1995, 2000, 2010, 300])
    assert shells.unweighted(b, 50.0).tolist() == [True] * 3 + [False] * 7
    found = shells.shells(b, 50.0)
    assert [count for _, count in found] == [1, 3, 3]
    np.testing.assert_allclose([mean for mean, _ in found], [300, 2995 / 3, 6005 / 3])
    assert shells.shells(np.zeros(3), 50.0) == []


@pytest.mark.parametrize(
    "b, g, message",
    [
        ([300.0] + [1000] * 6, fields.directions(7), r"no volume with b up to 50 s/mm², the lowest is 300"),
        ([0.0] * 7, np.zeros((7, 3)), "no volume with b above 50"),
        ([0.0] + [1000] * 6, np.zeros((7, 3)), "all directions are zero"),
        ([0.0] + [1000] * 5, fields.directions(6), "5 weighted volumes determine 5 of the 6 numbers"),
        (
            [0.0] + [1000] * 10,
            [[0, 0, 0], *fields.directions(5), *-fields.directions(5)],
            "10 weighted volumes determine 5 of the 6 numbers .* differ in more than sign",
        ),
    ],
)
def test_a_series_that_gives_no_tensor_is_refused_in_one_line(b, g, message):
    with pytest.raises(ValuesError, match=message) as caught:
        shells.usable(series(b, g), 50.0, "sub-1_dwi.nii.gz")
    assert str(caught.value).startswith("sub-1_dwi.nii.gz: ") and "\n" not in str(caught.value)


def test_a_trace_image_at_the_end_is_left_out_with_a_warning():
    b, g = [0.0, *[1000] * 7], [[0, 0, 0], *fields.directions(6), [0, 0, 0]]
    with pytest.warns(UserWarning, match="1 volumes with b above 0 have no direction"):
        keep = shells.usable(series(b, g), 50.0, "x")
    assert keep.tolist() == [True] * 7 + [False]


def test_condition_of_known_schemes():
    """Skare et al. 2000: the icosahedron's six directions have 1.58, the first that were used (dual gradient) 2.0."""
    golden = (1 + np.sqrt(5)) / 2
    icosahedron = np.array(
        [(0, 1, golden), (0, -1, golden), (1, golden, 0), (-1, golden, 0), (golden, 0, 1), (golden, 0, -1)]
    )
    dual = np.array([(1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1), (0, 1, 1), (0, 1, -1)])
    found = [shells.condition(g / np.linalg.norm(g, axis=1)[:, None]) for g in (icosahedron, dual)]
    np.testing.assert_allclose(found, [1.5811, 2.0], rtol=1e-4)


def test_a_library_that_is_missing_names_the_extra():
    with pytest.raises(ConfigError, match=r"pip install 'ukbob-jax\[dwi\]'"):
        library.load("dipy_that_is_not_there.reconst")
