"""What must hold for any scan: organs do not see each other, nor where they lie; and what is refused."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from ukbob_jax import radiomics
from ukbob_jax.errors import GeometryError, MismatchError, ValuesError
from ukbob_jax.radiomics import diameters, glrlm, mesh, neighbours, regions, shape

SPACING = (1.0, 1.5, 2.5)
MIRRORED = {"original_shape_MeshVolume", "original_shape_SurfaceArea", "original_shape_Sphericity"}


def blobs(seed=0, size=(20, 18, 16)):
    """Four organs that touch, one of them of few voxels, in a smooth image with noise."""
    rng = np.random.default_rng(seed)
    grid = np.indices(size)
    image = grid[0] * 5.0 + 20 * np.sin(grid[1]) + rng.normal(0, 20, size)
    sites = rng.uniform(3, 13, (4, 3))
    distance = np.stack([((grid - site[:, None, None, None]) ** 2).sum(0) for site in sites])
    labels = np.where(distance.min(0) < 30, distance.argmin(0) + 1, 0).astype(np.uint8)
    labels[labels == 4] = 0
    labels[17:19, 2:4, 2:5] = 4
    return image.astype(np.float32), labels


@pytest.fixture(scope="module")
def scan():
    return blobs()


@pytest.fixture(scope="module")
def found(scan):
    return radiomics.features(*scan, SPACING)


def same(found, wanted, rtol=1e-9, skip=()):
    for name, values in wanted.items():
        if name not in skip:
            np.testing.assert_allclose(found[name], values, rtol=rtol, atol=1e-9, err_msg=name)


def test_an_entry_per_class_and_nan_where_it_is_absent(found):
    assert len(found) == 107 and all(v.shape == (73,) and v.dtype == np.float64 for v in found.values())
    for values in found.values():
        assert np.isfinite(values[1:5]).all() and np.isnan(np.delete(values, [1, 2, 3, 4])).all()


def test_classes_are_in_the_order_asked_for(scan, found):
    asked = radiomics.features(*scan, SPACING, classes=(3, 9, 1), families=("glcm", "firstorder"))
    assert all(name.startswith(("original_glcm", "original_firstorder")) for name in asked)
    for name, values in asked.items():
        np.testing.assert_array_equal(values, found[name][[3, 9, 1]], err_msg=name)


def test_permuted_labels_permute_the_rows(scan, found):
    image, labels = scan
    moved = np.array([0, 3, 1, 40, 2])
    again = radiomics.features(image, moved[labels].astype(np.int32), SPACING)
    for name, values in found.items():
        np.testing.assert_allclose(again[name][moved[1:]], values[1:5], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("organ", [1, 2, 3, 4])
def test_other_organs_change_nothing(scan, found, organ):
    image, labels = scan
    alone = radiomics.features(np.where(labels == organ, image, 1e6), labels == organ, SPACING, classes=(1,))
    same(alone, {name: values[[organ]] for name, values in found.items()})


def test_translation_changes_nothing(scan, found):
    image, labels = (np.pad(a, ((3, 9), (1, 0), (6, 2))) for a in scan)
    same(radiomics.features(image, labels, SPACING), found)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrors_change_the_mesh_alone(scan, found, axis):
    """pyradiomics' mesh has one corner that differs from the others (`mesh.SPECIAL`)."""
    flipped = [np.flip(a, axis) for a in scan]
    skip = MIRRORED | {"original_shape_SurfaceVolumeRatio"}
    same(radiomics.features(*flipped, SPACING), found, skip=skip)


def test_axes_in_another_order(scan, found):
    image, labels = (a.transpose(2, 0, 1) for a in scan)
    turned = radiomics.features(image, labels, (SPACING[2], SPACING[0], SPACING[1]))
    planes = {"original_shape_Maximum2DDiameter" + name for name in ("Slice", "Row", "Column")}
    same(turned, found, skip=MIRRORED | planes | {"original_shape_SurfaceVolumeRatio"})
    np.testing.assert_allclose(
        turned["original_shape_Maximum2DDiameterRow"], found["original_shape_Maximum2DDiameterSlice"]
    )


def test_every_kind_of_number_is_measured_alike(scan):
    image, labels = np.rint(scan[0]), scan[1]
    options = {"families": ("firstorder", "glszm"), "bin_width": 10.0}
    wanted = radiomics.features(image, labels, SPACING, **options)
    for kind in (np.int16, np.float64, ">i4"):
        same(radiomics.features(image.astype(kind), labels.astype(np.int64), SPACING, **options), wanted)


def test_an_organ_of_one_level_has_the_values_of_a_flat_region(scan):
    image, labels = np.full_like(scan[0], 7.0), scan[1]
    flat = {name: values[1] for name, values in radiomics.features(image, labels, SPACING).items()}
    expected = {"glcm_MCC": 1, "glcm_Correlation": 1, "glcm_Imc2": 0, "glcm_Contrast": 0, "ngtdm_Coarseness": 1e6,
                "ngtdm_Contrast": 0, "ngtdm_Busyness": 0, "firstorder_Uniformity": 1, "firstorder_Skewness": 0,
                "glszm_GrayLevelNonUniformityNormalized": 1}  # fmt: skip
    for name, value in expected.items():
        assert flat[f"original_{name}"] == pytest.approx(value, abs=1e-12), name


def test_diameters_are_those_of_all_pairs(scan):
    image, labels = scan
    measured = regions.collect(image, labels, SPACING, np.array([1, 2, 3, 4]), 1)
    organ, half = diameters.vertices(measured)
    plane, space = diameters.diameters(measured)
    for k in range(4):
        points = half[:, organ == k] * np.array(SPACING)[:, None] / 2
        assert space[k] == pytest.approx(pdist(points.T).max(), rel=1e-12)
        for axis in range(3):
            layers = [points[:, points[axis] == value].T for value in np.unique(points[axis])]
            assert plane[k, axis] == pytest.approx(
                max(pdist(p).max() for p in layers if len(p) > 1), rel=1e-12
            )


def test_the_mesh_of_a_box_is_a_box_with_cut_edges():
    labels = np.zeros((9, 8, 7), np.uint8)
    labels[2:7, 2:6, 2:5] = 1
    measured = regions.collect(labels, labels, SPACING, np.array([1]), 1)
    area, volume = shape.surface_and_volume(measured)
    a, b, c = (n * s for n, s in zip((4, 3, 2), SPACING))  # between the first and last centres
    x, y, z = SPACING
    flat = 2 * ((a * b) + (a * c) + (b * c))
    edges = 4 * (a * np.hypot(y, z) / 2 + b * np.hypot(x, z) / 2 + c * np.hypot(x, y) / 2)
    corners = 8 * np.sqrt((x * y) ** 2 + (x * z) ** 2 + (y * z) ** 2) / 8
    np.testing.assert_allclose(area, flat + edges + corners)
    inside = a * b * c + (a * b * z + a * c * y + b * c * x) + 4 * (a * y * z + b * x * z + c * x * y) / 8
    np.testing.assert_allclose(volume, inside + 8 * x * y * z / 48)


@pytest.mark.parametrize("seed", [0, 1])
def test_ibsi_takes_a_closed_mesh(seed):
    """Its volume does not depend on the origin, nor on mirrors; pyradiomics' does where faces are ambiguous."""
    labels = (np.random.default_rng(seed).random((9, 8, 7)) < 0.5).astype(np.uint8)
    volumes = {}
    for closed in (False, True):
        for moved in (0, 5):
            measured = regions.collect(labels, labels, SPACING, np.array([1]), 1)
            measured = dataclasses.replace(measured, first=measured.first - moved)
            _, volumes[closed, moved] = shape.surface_and_volume(measured, closed)
    np.testing.assert_allclose(volumes[True, 0], volumes[True, 5])
    assert seed == 0 or abs(volumes[False, 0] - volumes[False, 5]) > 1
    options = {"classes": (1,), "families": ("shape",), "definition": "ibsi"}
    wanted = radiomics.features(labels, labels, SPACING, **options)
    for axis in range(3):
        mirrored = np.flip(labels, axis)
        same(radiomics.features(mirrored, mirrored, SPACING, **options), wanted)


def test_a_cell_and_its_inverse_share_a_surface():
    tables = mesh.tables(np.array(SPACING))
    np.testing.assert_array_equal(tables.area, tables.area[::-1])
    np.testing.assert_allclose(tables.volume, -tables.volume[::-1], atol=1e-12)
    np.testing.assert_allclose(tables.normal, -tables.normal[::-1], atol=1e-12)


def test_a_single_voxel_has_no_features(scan, found):
    image, labels = scan[0], scan[1].copy()
    labels[0, 0, 0] = 9
    with pytest.warns(UserWarning, match="NaN: 9"):
        again = radiomics.features(image, labels, SPACING)
    same(again, found)
    with pytest.raises(ValuesError, match="one voxel"):
        radiomics.features(image, labels == 9, SPACING)


def test_ignored_voxels_belong_to_no_organ(scan, found):
    image, labels = scan[0], scan[1].copy()
    labels[labels == 2] = 255
    again = radiomics.features(image, labels, SPACING)
    same({n: v[[1, 3, 4]] for n, v in again.items()}, {n: v[[1, 3, 4]] for n, v in found.items()})
    assert all(v.shape == (73,) and np.isnan(v[2]) for v in again.values())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": np.zeros((4, 4, 4), np.uint8)}, ValuesError, "no voxel of any class"),
        ({"labels": np.ones((4, 4, 5), np.uint8)}, MismatchError, "one x y z grid"),
        ({"labels": np.ones((4, 4, 4))}, ValuesError, "labels are float64"),
        ({"labels": np.full((4, 4, 4), -1)}, ValuesError, "label -1 is negative"),
        ({"image": np.full((4, 4, 4), np.nan)}, ValuesError, "NaN or infinite in 64 voxels"),
        ({"image": np.ones((4, 4, 4), complex)}, ValuesError, "magnitude"),
        ({"spacing_mm": (1, 0, 1)}, GeometryError, "three positive numbers"),
        ({"bin_width": 0}, ValuesError, "bin_width=0"),
        ({"bin_width": 1e-9, "image": np.arange(64.0).reshape(4, 4, 4)}, ValuesError, "bin_width=1e-09"),
        ({"bin_count": 0}, ValuesError, "bin_count=0"),
        ({"definition": "mine"}, ValuesError, "definition='mine'"),
        ({"families": ("texture",)}, ValuesError, "families="),
        ({"distances": (0,)}, ValuesError, "distances="),
        ({"distances": 1}, ValuesError, "distances=1"),
        ({"distances": (1.5,)}, ValuesError, "distances="),
        ({"alpha": -1}, ValuesError, "alpha=-1"),
        ({"alpha": 0.5}, ValuesError, "alpha=0.5"),
        ({"alpha": 10**12}, ValuesError, "alpha=1000000000000"),
        ({"voxel_shift": np.nan}, ValuesError, "voxel_shift=nan"),
        ({"normalise_scale": 0}, ValuesError, "normalise_scale=0"),
        ({"normalise_scale": -100.0}, ValuesError, "normalise_scale=-100"),
        ({"normalise_scale": np.nan}, ValuesError, "normalise_scale=nan"),
        ({"definition": "mine", "families": ("shape",)}, ValuesError, "definition='mine'"),
        ({"image": np.full((4, 4, 4), "1")}, ValuesError, "need numbers"),
        ({"weighting": "far"}, ValuesError, "weighting='far'"),
        ({"weighting": "manhattan", "merge": True}, ValuesError, "merge=True"),
        ({"classes": (0, 1)}, ValuesError, "classes="),
        ({"classes": 1}, ValuesError, "classes=1: give different label ids in a list"),
        ({"classes": ("liver",)}, ValuesError, "classes="),
        ({"classes": (7,)}, ValuesError, "no voxel of any class"),
        ({"normalise_scale": 100.0, "image": np.ones((4, 4, 4))}, ValuesError, "cannot be normalised"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(change, error, message):
    given = {
        "image": np.arange(64.0).reshape(4, 4, 4),
        "labels": np.ones((4, 4, 4), np.uint8),
        "spacing_mm": SPACING,
    }
    with pytest.raises(error, match=message) as caught:
        radiomics.features(**{**given, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("count", "correlation"), [(1, 1.0), (2, np.nan)])
def test_voxels_without_neighbours_have_the_values_of_pyradiomics(count, correlation):
    image, labels = np.arange(125.0).reshape(5, 5, 5), np.zeros((5, 5, 5), np.uint8)
    labels[0, 0, 0] = labels[4, 4, 3] = 1
    found = radiomics.features(
        image, labels, SPACING, bin_count=count, families=("glcm", "gldm"), classes=(1,)
    )
    assert found.pop("original_glcm_MCC").item() == pytest.approx(correlation, nan_ok=True)
    assert all(np.isnan(value) for name, value in found.items() if "glcm" in name)
    assert found["original_gldm_SmallDependenceEmphasis"] == 1


def test_whole_numbers_of_any_kind_are_options(scan, found):
    again = radiomics.features(
        *scan, SPACING, distances=(1.0,), alpha=np.float32(0), families=("glcm", "gldm")
    )
    same(found, again)


def test_runs_across_an_organ_of_one_plane_count_only_for_ibsi(scan):
    image, labels = scan[0], np.zeros_like(scan[1])
    labels[4:9, 3:9, 7] = 1
    plane = radiomics.features(image, labels, SPACING, classes=(1,), families=("glrlm",))
    ibsi = radiomics.features(
        image, labels, SPACING, classes=(1,), families=("glrlm",), definition="ibsi", bin_count=8
    )
    count8 = radiomics.features(image, labels, SPACING, classes=(1,), families=("glrlm",), bin_count=8)
    name = "original_glrlm_ShortRunEmphasis"  # 4 directions in the plane, 9 across with a value of 1
    np.testing.assert_allclose(ibsi[name], (4 * count8[name] + 9) / 13, rtol=1e-12)
    assert np.isfinite(plane[name]).all()


@pytest.mark.parametrize("few", [2, 512])
def test_directions_in_which_a_line_holds_two_voxels(monkeypatch, few):
    monkeypatch.setattr(glrlm, "_FEW", few)
    labels = np.zeros((7, 7, 7), np.uint8)
    for number, places in enumerate(
        ([(0, 0, 0), (4, 4, 4)], [(1, 0, 0), (1, 0, 5), (1, 1, 6)], [(6, 5, 0), (5, 6, 3)]), 1
    ):
        labels[tuple(zip(*places))] = number
    measured = regions.collect(labels, labels, SPACING, np.array([1, 2, 3]), 1)
    steps = neighbours.offsets((1,))
    found = glrlm.hold_two(measured, steps, np.zeros((13, 3), bool))
    lines = [{tuple(step) for step in steps[column].tolist()} for column in found.T]
    assert lines == [{(1, 1, 1)}, {(0, 0, 1), (0, 1, 1)}, set()]


@pytest.mark.parametrize("scale", [1, 1 / 3])  # float32 holds the values, or does not
def test_values_are_sorted_within_organs(scan, scale):
    image, labels = scan[0].astype(np.float64) * scale, scan[1]
    image[labels > 0] -= image[labels > 0].mean()
    image[labels == 2] = np.where(image[labels == 2] < 0, -0.0, image[labels == 2])
    measured = regions.collect(image, labels, SPACING, np.array([1, 2, 3, 4]), 1)
    assert measured.by_value.dtype == np.float64
    wanted = np.concatenate([np.sort(image[labels == i]) for i in (1, 2, 3, 4)])
    np.testing.assert_array_equal(measured.by_value, wanted)


def test_labels_beyond_any_table_are_found(scan, found):
    image, labels = scan
    far = np.array([0, 7, 10**9, 3, 10**9 + 1])
    options = {"classes": (10**9, 3, 10**9 + 1), "families": ("firstorder", "shape")}
    asked = radiomics.features(image, far[labels], SPACING, **options)
    same(asked, {name: found[name][[2, 3, 4]] for name in asked})


def test_shape_looks_at_no_intensity(scan, found):
    blank = radiomics.features(np.full_like(scan[0], np.nan), scan[1], SPACING, families=("shape",))
    same(blank, {name: found[name] for name in blank})


def test_more_levels_than_memory_holds_are_refused(scan, monkeypatch):
    monkeypatch.setattr(neighbours, "MOST_ENTRIES", 10_000)
    for family in ("glcm", "glrlm"):
        with pytest.raises(ValuesError, match="grey levels in one organ"):
            radiomics.features(*scan, SPACING, bin_width=1.0, families=(family,))


def test_the_number_of_grey_levels_compiles_nothing_anew(scan):
    """Filtered images of a mask have from one to hundreds of levels."""
    image, labels = scan
    programs = []
    for count in (1, 5, 40, 200):
        radiomics.features(image, labels, SPACING, bin_count=count, families=("glcm", "glrlm"))
        programs.append(neighbours._count._cache_size() + glrlm._runs._cache_size())
    assert len(set(programs)) == 1
