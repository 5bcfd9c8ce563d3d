import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ukbob_jax.models.swin_unetr import windows

sizes = st.tuples(*[st.integers(1, 9)] * 3)
window_sizes = st.tuples(*[st.integers(1, 5)] * 3)


@pytest.fixture(scope="module")
def parts(reference):
    folder = reference / "swin_unetr"
    return json.loads((folder / "swin_parts.json").read_text()), dict(np.load(folder / "swin_parts.npz"))


@pytest.mark.reference
@pytest.mark.parametrize("number", [0, 1, 2])
def test_windows_masks_and_positions_equal_monais(parts, number):
    facts, arrays = parts[0][f"case{number}"], parts[1]
    size, window, shift = (tuple(facts[name]) for name in ("dims", "window", "shift"))
    used, moved = windows.fit(size, window, shift)
    full = windows.padded(size, used)
    assert (list(used), list(moved), list(full)) == (
        facts["window_used"],
        facts["shift_used"],
        facts["padded"],
    )

    ids = windows.shift_region_ids(full, used, moved)
    np.testing.assert_array_equal(ids[:, :, None] != ids[:, None, :], arrays[f"mask{number}"])
    np.testing.assert_array_equal(windows.relative_index(window), arrays[f"relidx{number}"])
    volume = np.arange(np.prod(full) * 2).reshape(1, *full, 2)
    np.testing.assert_array_equal(windows.window_partition(volume, used)[0], arrays[f"partition{number}"])


@settings(max_examples=12, deadline=None)
@given(size=sizes, window=window_sizes, batch=st.integers(1, 2))
def test_join_undoes_cut_and_crop_undoes_pad(size, window, batch):
    x = np.random.default_rng(0).normal(size=(batch, *size, 3)).astype(np.float32)
    used, _ = windows.fit(size, window, window)
    full = windows.padded(size, used)
    tokens = windows.window_partition(windows.pad_to(x, full), used)
    assert tokens.shape == (batch, np.prod(full) // np.prod(used), np.prod(used), 3)
    np.testing.assert_array_equal(windows.crop_to(windows.window_reverse(tokens, used, full), size), x)


@settings(max_examples=12, deadline=None)
@given(size=sizes, window=window_sizes)
def test_tokens_of_a_region_were_neighbours_before_the_roll(size, window):
    used, shift = windows.fit(size, window, tuple(w // 2 for w in window))
    full = windows.padded(size, used)
    ids = windows.shift_region_ids(full, used, shift)
    if ids is None:
        assert not any(shift)
        return
    places = np.moveaxis(np.indices(full), 0, -1)[None]  # 1 x y z 3
    rolled = np.asarray(windows.window_partition(np.roll(places, [-s for s in shift], (1, 2, 3)), used))[
        0
    ]  # n t 3
    apart = np.abs(rolled[:, :, None] - rolled[:, None, :])  # n t t 3
    near = (apart < np.array(used)).all(-1)
    np.testing.assert_array_equal(near, ids[:, :, None] == ids[:, None, :])


def test_an_axis_no_longer_than_its_window_is_one_unshifted_window():
    assert windows.fit((7, 8, 3), (7, 7, 7), (3, 3, 3)) == ((7, 7, 3), (0, 3, 0))
    assert windows.shift_region_ids((7, 7, 7), (7, 7, 7), (0, 0, 0)) is None


def test_cut_is_the_same_inside_jit():
    x = np.arange(2 * 4 * 6 * 2, dtype=np.float32).reshape(1, 4, 6, 2, 2)
    cut = jax.jit(windows.window_partition, static_argnums=1)(x, (2, 3, 1))
    np.testing.assert_array_equal(cut, windows.window_partition(x, (2, 3, 1)))
