import json

import numpy as np
import pytest

from ukbob_jax.errors import ConfigError
from ukbob_jax.regions import Regions, brats, membership, of_data_set


@pytest.mark.parametrize(
    "numbering, present",
    [
        ("brats", (1, 2, 3)),
        ("brats", (0, 1, 2, 4)),
        ("brats2024", (1, 2, 3, 4)),
        ("brats_ped", (1, 2, 3, 4)),
        ("decathlon", (1, 2, 3)),
    ],
)
def test_a_label_map_is_what_is_painted_from_its_regions(numbering, present):
    regions = brats(numbering, present)
    label = np.random.default_rng(0).choice([0, *(v for v in present if v)], (6, 5, 4)).astype(np.uint8)
    painted = np.zeros_like(label)
    for region, value in zip(
        (regions.mask(label, r) for r in range(len(regions.names))), regions.region_labels
    ):
        painted[region == 1] = value
    np.testing.assert_array_equal(painted, label)
    assert set(regions.labels) == {0, *regions.region_labels}
    assert regions.labels[regions.region_labels[regions.names.index("ET")]] == "enhancing_tumour"


@pytest.mark.parametrize(
    "numbering, expected",
    [
        ("brats", {0: "000", 1: "110", 2: "100", 3: "111", 4: "111"}),
        ("brats2024", {0: "0000", 1: "1100", 2: "1000", 3: "1110", 4: "0001"}),
        ("brats_ped", {0: "0000", 1: "1110", 2: "1100", 3: "1101", 4: "1000"}),
        ("brats_men_rt", {0: "0", 1: "1"}),
        ("decathlon", {0: "000", 1: "100", 2: "110", 3: "111"}),
    ],
)
def test_every_value_is_in_the_regions_that_its_numbering_says(numbering, expected):
    regions = brats(numbering)
    table = membership(regions.values)
    for value, bits in expected.items():
        assert "".join(str(int(b)) for b in table[value]) == bits
        assert "".join(str(regions.mask(np.array([value], np.uint8), r)[0]) for r in range(len(bits))) == bits
    assert table.sum() == sum(bits.count("1") for bits in expected.values())


def test_ignored_voxels_stay_ignored_in_every_region():
    label = np.array([0, 1, 2, 3, 255], np.uint8)
    regions = brats("brats")
    assert regions.mask(label, 1).tolist() == [0, 1, 0, 1, 255]
    assert [int(regions.mask(label, r)[-1]) for r in range(3)] == [255, 255, 255]


def test_a_region_is_annotated_where_all_its_values_are():
    known = np.ones(256, bool)
    known[2] = False
    assert brats("brats").annotated(known).tolist() == [False, True, True]


def test_regions_travel_as_json_and_old_descriptions_are_read():
    regions = brats("brats")
    value = json.loads(json.dumps(regions.to_json()))
    assert Regions.from_json(value, regions.labels) == regions and regions.region_labels == (2, 1, 3)
    old = {"names": ["WT"], "values": [[1, 2]], "paint": [2]}
    assert Regions.from_json(old, {1: "a"}) == Regions(("WT",), ((1, 2),), (2,), {1: "a"})


def test_other_numberings_are_refused():
    with pytest.raises(
        ConfigError,
        match=r"config.regions: 'isles' is unknown; choose one of brats, brats2024, brats_ped, .*decathlon",
    ):
        brats("isles")
    with pytest.raises(
        ConfigError, match=r"label values \[4\] are no part of a tumour in the numbering 'decathlon'"
    ):
        brats("decathlon", {1, 4, 255})
    with pytest.raises(ConfigError, match=r"values 3 and 4.*regions=brats2024.*regions=brats_ped"):
        brats("brats", {1, 2, 3, 4})
    with pytest.raises(ConfigError, match=r"label values \[2\].*'brats_men_rt', which has \[1\]"):
        brats("brats_men_rt", {1, 2})


OWN = {"names": ["whole", "core"], "values": [[1, 2], [2]], "region_labels": [1, 2]}


def test_the_regions_of_a_data_set_are_read_from_its_rows():
    regions = of_data_set({"a": OWN, "b": OWN}, {1: "rim", 2: "core"}, (1, 2, 255))
    assert regions == Regions(
        ("whole", "core"), ((1, 2), (2,)), (1, 2), {0: "background", 1: "rim", 2: "core"}
    )
    for found, present, message in (
        ({"a": OWN, "b": {}}, (1,), "'dataset', but b has no regions"),
        ({"a": {}}, (1,), "but a has no regions"),
        ({"a": OWN}, (1, 3), r"label values \[3\] are in none of the regions whole, core"),
    ):
        with pytest.raises(ConfigError, match=message):
            of_data_set(found, {1: "rim", 2: "core"}, present)
