import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ukbob_jax.quality.surface import area_table, triangles

SPACINGS = st.tuples(*[st.floats(0.2, 9.0)] * 3)


def corner_mask(pattern: int) -> np.ndarray:
    return np.array([pattern >> i & 1 for i in range(8)], np.float32).reshape(2, 2, 2)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.232, 2.232, 3.0), (0.7, 5.0, 1.3)])
def test_every_cell_has_the_area_of_scikit_image(spacing):
    measure = pytest.importorskip("skimage.measure")
    table = area_table(np.array(spacing))
    for pattern in range(1, 255):
        vertices, faces, _, _ = measure.marching_cubes(corner_mask(pattern), 0.5, spacing=spacing)
        expected = measure.mesh_surface_area(vertices, faces)  # float32 vertices: 1e-6
        np.testing.assert_allclose(table[pattern], expected, rtol=2e-6, err_msg=f"{pattern:08b}")


def test_uniform_cells_have_no_surface():
    assert area_table(np.ones(3))[[0, 255]].tolist() == [0, 0]


def test_flat_cuts_have_the_area_of_the_cut():
    table = area_table(np.array([2.0, 3.0, 5.0]))
    for patterns, expected in (
        ((0b00001111, 0b11110000), 15),
        ((0b00110011, 0b11001100), 10),
        ((0x55, 0xAA), 6),
    ):
        np.testing.assert_allclose(table[list(patterns)], expected)


@settings(max_examples=20, deadline=None)
@given(SPACINGS, st.permutations(range(3)), st.tuples(*[st.booleans()] * 3), st.integers(0, 255))
def test_area_is_unchanged_by_turning_and_mirroring_the_cell(spacing, axes, flips, pattern):
    moved = np.transpose(corner_mask(pattern), axes)
    moved = np.flip(moved, [a for a in range(3) if flips[a]]).ravel()
    image = int(sum(int(inside) << i for i, inside in enumerate(moved)))
    turned = area_table(np.array([spacing[a] for a in axes]))[image]
    np.testing.assert_allclose(turned, area_table(np.array(spacing))[pattern], rtol=1e-12)


def test_triangles_end_on_cut_edges_or_in_the_middle():
    for pattern, drawn in enumerate(triangles()):
        inside = corner_mask(pattern)
        for vertex in drawn.reshape(-1, 3)[np.abs(drawn.reshape(-1, 3)).sum(1) > 0]:
            if not np.array_equal(vertex, [0.5] * 3):
                ends = [tuple(int(v) for v in end) for end in (np.floor(vertex), np.ceil(vertex))]
                assert inside[ends[0]] != inside[ends[1]]
