import json

import numpy as np
import pytest

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError
from ukbob_jax.regions import Regions, brats


@pytest.mark.parametrize(
    "numbering, present", [("brats", (1, 2, 3)), ("brats", (0, 1, 2, 4)), ("decathlon", (1, 2, 3))]
)
def test_a_label_map_is_what_is_painted_from_its_regions(numbering, present):
    regions = brats(numbering, present)
    label = np.random.default_rng(0).choice([0, *(v for v in present if v)], (6, 5, 4)).astype(np.uint8)
    painted = np.zeros_like(label)
    for mask, value in zip(np.moveaxis(regions.masks(label), -1, 0), regions.paint):
        painted[mask] = value
    np.testing.assert_array_equal(painted, label)
    np.testing.assert_array_equal(regions.masks(label), anatomy.brats_regions(label, numbering))
    assert (
        set(regions.labels) == {0, *regions.paint} and regions.labels[regions.paint[2]] == "enhancing_tumour"
    )


def test_regions_nest_and_travel_as_json():
    regions = brats("brats")
    table = regions.table
    assert np.all(table[:, 2] <= table[:, 1]) and np.all(table[:, 1] <= table[:, 0])
    assert regions.paint == (2, 1, 3)
    assert Regions.from_json(json.loads(json.dumps(regions.to_json())), regions.labels) == regions


def test_other_numberings_are_refused():
    with pytest.raises(
        ConfigError, match=r"config.regions: 'isles' is unknown; choose one of brats, decathlon"
    ):
        brats("isles")
    with pytest.raises(
        ConfigError, match=r"label values \[4\] are no part of a tumour in the numbering 'decathlon'"
    ):
        brats("decathlon", {1, 4, 255})
