import json

import numpy as np
import pytest
from scipy import ndimage

from ukbob_jax import anatomy
from ukbob_jax.errors import ValuesError
from ukbob_jax.quality import components


@pytest.mark.reference
@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_counts_equal_the_reference(reference, connectivity):
    shapes = json.loads((reference / "geometry" / "shapes.json").read_text())
    masks = np.load(reference / "geometry" / "shape_masks.npz")
    assert shapes
    for name, shape in shapes.items():
        found = components.count(masks[name], 2, connectivity)
        assert found.count[1] == shape["measured"][f"n_components_{connectivity}"], name
        if connectivity == 26:
            assert found.largest_voxels[1] == max([*shape["measured"]["component_sizes_26"], 0])


def test_counts_every_class_as_scipy_does():
    labels = np.random.default_rng(0).integers(0, 5, (12, 13, 14)).astype(np.uint8)
    found = components.count(labels, 6, 6)
    assert found.count.tolist() == [0, *(ndimage.label(labels == organ)[1] for organ in range(1, 6))]


def test_stray_pieces_go_and_the_largest_stays():
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[2:12, 2:12, 2:12] = 5  # liver, 1000 voxels
    labels[20:25, 20:25, 20:25] = 5  # 125 voxels: below 200
    labels[20:23, 2:5, 2:5] = 66  # muscle: only a single voxel is a speck
    labels[28, 2, 2] = 66
    labels[2, 28, 28] = 8  # an adrenal gland's only voxel
    labels[15, 15, 15] = 255
    expected = labels.copy()
    expected[20:25, 20:25, 20:25] = 0
    expected[28, 2, 2] = 0
    np.testing.assert_array_equal(components.clean(labels), expected)
    np.testing.assert_array_equal(components.clean(labels, factor=0.1), labels)


def test_every_organ_has_a_rule():
    assert set(components.ALLOWED) == set(range(1, 73)) - {anatomy.UNUSED}
    assert all(rule.min_component_voxels > 0 for rule in components.ALLOWED.values())


def test_refuses_another_connectivity():
    with pytest.raises(ValuesError, match="6, 18 or 26"):
        components.count(np.zeros((3, 3, 3), np.uint8), 2, 8)
