"""Sizes and intensities of structures, beside scipy's and numpy's on each mask."""

import csv

import numpy as np
import pytest
from scipy import ndimage

from ukbob_jax.inference.outputs import statistics
from ukbob_jax.volumes.volume import Volume

NAMES = {0: "background", 2: "liver", 5: "spleen", 7: "nowhere"}


@pytest.fixture
def scan():
    rng = np.random.default_rng(0)
    affine = np.diag([0.8, 1.5, 3.0, 1.0])
    affine[:3, :3] = affine[:3, :3] @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    labels = np.zeros((9, 8, 7), np.uint8)
    labels[2:6, 1:5, 1:4] = 2
    labels[6:, 5:, 4:] = 5
    image = rng.integers(-1000, 1000, (9, 8, 7, 2)).astype(np.int16)
    return Volume(labels, affine), image


def test_every_number_is_that_of_an_independent_tool(scan):
    labels, image = scan
    found = statistics.measure(labels, image, NAMES, ("water", "fat"))
    assert list(found) == ["liver", "spleen", "nowhere"]
    for i, name in ((2, "liver"), (5, "spleen")):
        one, inside = found[name], labels.array == i
        assert one["n_voxels"] == inside.sum() and one["id"] == i
        assert one["volume"] == pytest.approx(inside.sum() * 0.8 * 1.5 * 3.0, rel=1e-12)
        assert one["volume_ml"] == pytest.approx(one["volume"] / 1000, rel=1e-12)
        for c, contrast in enumerate(("water", "fat")):
            given, values = one["intensities"][contrast], image[..., c].astype(np.float64)
            expected = {
                "mean": ndimage.mean(values, labels.array, i),
                "sd": ndimage.standard_deviation(values, labels.array, i),
                "median": ndimage.median(values, labels.array, i),
                "min": values[inside].min(),
                "max": values[inside].max(),
                **{f"p{q:02d}": np.quantile(values[inside], q / 100) for q in statistics.PERCENTILES},
            }
            assert given == pytest.approx(expected, rel=1e-12) and set(given) == set(expected)
        assert one["intensity"] == one["intensities"]["water"]["mean"]
    assert (found["liver"]["touches_border"], found["spleen"]["touches_border"]) == (False, True)


def test_a_structure_that_is_absent_has_a_volume_of_0_and_no_intensity(scan):
    one = statistics.measure(*scan, NAMES, ("water", "fat"))["nowhere"]
    assert one["n_voxels"] == one["volume"] == one["volume_ml"] == 0 and one["intensity"] is None
    assert set(one["intensities"]["fat"].values()) == {None} and not one["touches_border"]


def test_turning_the_scan_changes_nothing(scan):
    labels, image = scan
    turned = labels.reorient("SPL")
    moved = Volume(image, labels.affine).reorient("SPL").array
    first, second = (
        statistics.measure(v, i, NAMES, ("a", "b")) for v, i in ((labels, image), (turned, moved))
    )
    for name in first:
        assert first[name]["intensities"] == second[name]["intensities"]
        assert first[name]["volume"] == pytest.approx(second[name]["volume"], rel=1e-12)


def test_the_table_has_a_row_per_structure_and_contrast(scan, tmp_path):
    found = statistics.measure(*scan, NAMES, ("water", "fat"))
    statistics.write_table(tmp_path / "s.csv", {"a": found, "b": found})
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text().splitlines()))
    assert len(rows) == 2 * 3 * 2 and tuple(rows[0]) == statistics.COLUMNS
    assert float(rows[1]["median"]) == found["liver"]["intensities"]["fat"]["median"]
    assert rows[4]["structure"] == "nowhere" and rows[4]["mean"] == "" and float(rows[4]["volume_mm3"]) == 0
