import functools
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ukbob_jax.errors import GeometryError, MismatchError, ValuesError
from ukbob_jax.quality import OrganMeasures, measure, stack
from ukbob_jax.quality.measures import FEATURES

CLASSES = 254  # one for all maps here, so that one program serves them
ANISO = (1.5, 1.5, 3.0)


def ball(radius: int, spacing=(1.0, 1.0, 1.0)) -> np.ndarray:
    half = [int(np.ceil(radius / s)) + 1 for s in spacing]
    grid = np.meshgrid(*(np.arange(-h, h + 1) * s for h, s in zip(half, spacing)), indexing="ij")
    return (sum(g**2 for g in grid) <= radius**2).astype(np.uint8)


def random_map(seed: int, shape=(20, 17, 23), classes: int = 9) -> np.ndarray:
    """Blocks of random labels with specks, so that cells with many labels occur."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, [-(-n // 4) for n in shape])
    labels = np.kron(coarse, np.ones((4, 4, 4), int))[: shape[0], : shape[1], : shape[2]]
    return np.where(rng.random(shape) < 0.1, rng.integers(0, classes, shape), labels).astype(np.uint8)


def slow_measures(labels: np.ndarray, spacing: tuple, organ: int) -> dict:
    """One organ at a time with other people's tools."""
    skimage = pytest.importorskip("skimage.measure")
    mask = labels == organ
    vertices, faces, _, _ = skimage.marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5, spacing=spacing)
    points = np.argwhere(mask) * np.array(spacing)
    least, _, greatest = np.linalg.eigvalsh(np.cov(points.T, bias=True))
    volume, area = mask.sum() * np.prod(spacing), skimage.mesh_surface_area(vertices, faces)
    return {
        "voxels": mask.sum(),
        "volume_mm3": volume,
        "surface_mm2": area,
        "sphericity": np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / area,
        "eccentricity": np.sqrt(1 - max(least, 0) / greatest),
        "centroid_mm": points.mean(0),
    }


@pytest.mark.reference
def test_reference_organs(reference):
    nibabel = pytest.importorskip("nibabel")
    organs = json.loads((reference / "geometry" / "organs.json").read_text())
    for name, expected in organs.items():
        file, _, spacing = name.partition("@")
        image = nibabel.load(reference / "volumes" / file)
        spacing = [float(s) for s in (spacing.split(",") if spacing else image.header.get_zooms()[:3])]
        check_reference(measure(np.asanyarray(image.dataobj).astype(np.uint8), spacing, CLASSES), expected)


@pytest.mark.reference
def test_reference_shapes(reference):
    shapes = json.loads((reference / "geometry" / "shapes.json").read_text())
    masks = np.load(reference / "geometry" / "shape_masks.npz")
    for name, shape in shapes.items():
        spacing = shape["measured"]["spacing"]
        check_reference(measure(masks[name], spacing, CLASSES), {"1": shape["measured"]})


def check_reference(found: OrganMeasures, expected: dict) -> None:
    """Counts are exact; the reference's mesh is float32, so areas agree to 1e-6; the rest to float64 rounding."""
    for organ, value in expected.items():
        row = OrganMeasures(*(field[int(organ)] for field in found))
        assert row.voxels == value["voxels"]
        np.testing.assert_allclose(row.volume_mm3, value["volume_mm3"], rtol=1e-12)
        np.testing.assert_allclose(row.surface_mm2, value["surface_area_mm2"], rtol=1e-6)
        if not row.voxels:
            assert [row.sphericity, row.eccentricity] == [0, 0]
            continue
        np.testing.assert_allclose(row.sphericity, value["sphericity"], rtol=1e-6)
        np.testing.assert_allclose(row.centroid_mm, value["centroid_mm"], rtol=1e-12)
        assert np.stack([row.first, row.last]).tolist() == value["bbox"]
        assert row.touches_border == value["touches_border"]
        if row.voxels < 4:
            assert np.isnan(row.eccentricity)
        else:
            np.testing.assert_allclose(row.eccentricity, value["eccentricity"], rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("seed, spacing", [(0, (1.0, 1.0, 1.0)), (1, (2.232, 2.232, 3.0))])
def test_equals_other_tools_organ_by_organ(seed, spacing):
    labels = random_map(seed)
    found = measure(labels, spacing, CLASSES)
    for organ in range(9):
        for name, expected in slow_measures(labels, spacing, organ).items():
            np.testing.assert_allclose(getattr(found, name)[organ], expected, rtol=2e-6, err_msg=name)
    np.testing.assert_array_equal(found.voxels, np.bincount(labels.ravel(), minlength=CLASSES))
    np.testing.assert_allclose(found.body_fraction[1:].sum(), 1, rtol=1e-12)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 999), st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_turning_and_mirroring_changes_nothing(seed, axes, flips):
    labels, spacing = random_map(seed, (9, 8, 10)), np.array([1.0, 1.4, 3.1])
    turned = np.flip(labels.transpose(axes), [a for a in range(3) if flips[a]])
    a, b = measure(labels, spacing, CLASSES), measure(turned, spacing[list(axes)], CLASSES)
    for name in ("voxels", "volume_mm3", "surface_mm2", *FEATURES, "touches_border"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-7, err_msg=name)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 999), st.tuples(*[st.integers(0, 9)] * 3))
def test_moving_an_organ_moves_its_centre_only(seed, shift):
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[:12, :12, :12] = random_map(seed, (12, 12, 12))
    moved = np.roll(labels, shift, (0, 1, 2))
    a, b = measure(labels, ANISO, CLASSES), measure(moved, ANISO, CLASSES)
    for name in ("voxels", "surface_mm2", *FEATURES):
        np.testing.assert_allclose(
            getattr(a, name)[1:], getattr(b, name)[1:], rtol=1e-9, atol=1e-7, err_msg=name
        )
    np.testing.assert_allclose(
        (b.centroid_mm - a.centroid_mm)[1:9], [np.multiply(shift, ANISO)] * 8, rtol=1e-9, atol=1e-9
    )


def test_jit_equals_eager_and_a_batch_equals_its_members():
    labels = np.stack([random_map(seed) for seed in range(2)])
    spacing = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 3.0]], np.float32)
    eager = [measure(one, s, CLASSES) for one, s in zip(labels, spacing)]
    inside = jax.jit(functools.partial(measure, num_classes=CLASSES))(labels[0], spacing[0])
    batch = jax.jit(jax.vmap(functools.partial(measure, num_classes=CLASSES)))(labels, spacing)
    for name, field in zip(OrganMeasures._fields, eager[0]):
        expected = np.stack([field, getattr(eager[1], name)])
        np.testing.assert_allclose(
            getattr(inside, name), field, rtol=3e-6, atol=1e-5, err_msg=name
        )  # float32
        np.testing.assert_allclose(getattr(batch, name), expected, rtol=3e-6, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("how", ["jit", "shard_map"])
def test_subjects_are_shared_out_over_devices(how):
    labels = np.stack([random_map(seed, (9, 8, 10)) for seed in range(8)])
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.P("data"))
    batch = jax.vmap(lambda one: measure(one, ANISO, CLASSES))
    if how == "shard_map":
        batch = jax.shard_map(batch, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"))
    found = jax.jit(batch)(jax.device_put(labels, split))
    assert found.surface_mm2.sharding.is_equivalent_to(split, 2)
    expected = stack([measure(one, ANISO, CLASSES) for one in labels])
    for name, field in expected._asdict().items():
        np.testing.assert_allclose(getattr(found, name), field, rtol=3e-6, atol=1e-5, err_msg=name)  # float32


def test_measures_the_same_where_64_bits_are_switched_on():
    labels = random_map(5, (9, 8, 10))
    expected = measure(labels, ANISO, CLASSES)
    with jax.enable_x64(True):
        found = measure(labels, ANISO, CLASSES)
        inside = jax.jit(lambda one: measure(one, ANISO, CLASSES))(labels)
    for name, field in expected._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), field, err_msg=name)
        np.testing.assert_allclose(getattr(inside, name), field, rtol=3e-6, atol=1e-5, err_msg=name)


def test_a_second_map_of_like_shape_compiles_nothing():
    from ukbob_jax.quality.label_counts import _label_counts

    measure(random_map(0, (20, 20, 20)), ANISO, CLASSES)
    before = _label_counts._cache_size()
    measure(random_map(1, (31, 12, 40)), ANISO, CLASSES)
    assert _label_counts._cache_size() == before


def test_balls_tend_to_their_limits():
    small, large = (measure(ball(r), (1, 1, 1), CLASSES) for r in (6, 24))
    assert large.eccentricity[1] < 1e-6
    # A mesh through voxel faces stays about 9 % larger than the ball, at any radius.
    assert 0.9 < small.sphericity[1] < 0.95 and 0.9 < large.sphericity[1] < 0.95
    np.testing.assert_allclose(large.volume_mm3[1], 4 / 3 * np.pi * 24**3, rtol=0.005)


def test_a_cube_reads_as_a_cube():
    labels = np.zeros((50, 50, 50), np.uint8)
    labels[5:45, 5:45, 5:45] = 1
    found = measure(labels, (1, 1, 1), CLASSES)
    np.testing.assert_allclose(found.sphericity[1], (np.pi / 6) ** (1 / 3), rtol=0.02)  # bevelled edges
    assert found.eccentricity[1] == 0


@pytest.mark.parametrize("k", [2, 3])
def test_an_ellipsoid_has_the_eccentricity_of_its_axes(k):
    found = measure(ball(10 * k, (k, k, 1)), (1, 1, 1), CLASSES)
    np.testing.assert_allclose(found.eccentricity[1], np.sqrt(1 - 1 / k**2), rtol=0.005)


def test_anisotropic_voxels_do_not_fake_eccentricity():
    found = measure(ball(20, ANISO), ANISO, CLASSES)
    assert found.eccentricity[1] < 0.1
    # The released filter's covariance in voxels would read as far from round:
    assert measure(ball(20, ANISO), (1, 1, 1), CLASSES).eccentricity[1] > 0.8


def test_surface_is_closed_at_the_border():
    whole = measure(np.ones((8, 9, 10), np.uint8), (1, 1, 1), CLASSES)
    assert whole.touches_border[1]
    framed = measure(np.pad(np.ones((8, 9, 10), np.uint8), 3), (1, 1, 1), CLASSES)
    np.testing.assert_allclose(whole.surface_mm2[1], framed.surface_mm2[1])
    assert not framed.touches_border[1]


def test_absent_and_tiny_organs_get_the_documented_values():
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[0, 0, 0], labels[3, 3, 1:4], labels[5, 1:5, 5] = 1, 2, 3
    found = measure(labels, (1, 1, 1), CLASSES)
    assert [f[4] for f in found[:6]] == [0] * 6
    assert np.isnan(found.centroid_mm[4]).all() and found.first[4].tolist() == [-1] * 3
    assert np.isnan(found.eccentricity[1:3]).all()  # 1 and 3 voxels
    assert found.eccentricity[3] == 1  # a line of 4


def test_sums_do_not_overflow_on_the_longest_axis():
    labels = np.zeros((3, 5, 1024), np.uint8)
    labels[:, :, 1:] = 1  # the largest sums of z there can be, in rows that do not cancel
    found = measure(labels, (1, 1, 1), CLASSES)
    np.testing.assert_allclose(found.centroid_mm[1], [1, 2, 512], rtol=1e-12)
    np.testing.assert_allclose(found.eccentricity[1], np.sqrt(1 - (3**2 - 1) / (1023**2 - 1)), rtol=1e-12)


def test_ignored_voxels_belong_to_nothing():
    labels = random_map(3)
    ignored = np.where(labels == 2, 255, labels).astype(np.uint8)
    a, b = measure(labels, ANISO, CLASSES), measure(ignored, ANISO, CLASSES)
    assert b.voxels[2] == 0
    np.testing.assert_array_equal(a.surface_mm2[3:9], b.surface_mm2[3:9])
    np.testing.assert_allclose(b.body_fraction[3:9], a.voxels[3:9] / a.voxels[[1, 3, 4, 5, 6, 7, 8]].sum())


def test_a_body_mask_replaces_the_union_of_labels():
    labels = random_map(4)
    body = np.zeros_like(labels)
    body[:10] = 7
    found = measure(labels, ANISO, CLASSES, body=body)
    np.testing.assert_allclose(found.body_fraction, found.voxels / (body > 0).sum())


def test_the_share_of_an_empty_body_is_undefined():
    labels = random_map(4)
    found = measure(labels, ANISO, CLASSES, body=np.zeros_like(labels))
    assert np.isnan(found.body_fraction[:9]).all() and not found.body_fraction[9:].any()
    alone = measure(np.zeros_like(labels), ANISO, CLASSES)  # nothing but background
    assert np.isfinite(alone.body_fraction).all()


@pytest.mark.parametrize(
    "labels, spacing, error, words",
    [
        (np.full((3, 3, 3), 9, np.uint8), ANISO, ValuesError, "label 9 is not in 0..4"),
        (np.full((3, 3, 3), -1), ANISO, ValuesError, "run from -1"),
        (np.ones((3, 3, 3)), ANISO, ValuesError, "float64"),
        (np.ones((3, 3), np.uint8), ANISO, GeometryError, "x y z"),
        (np.ones((3, 3, 1025), np.uint8), ANISO, GeometryError, "1 to 1024"),
        (np.ones((3, 3, 3), np.uint8), (1, 0, 1), GeometryError, "positive"),
        (np.ones((3, 3, 3), np.uint8), (1, 1), GeometryError, "three"),
    ],
)
def test_refuses_what_it_cannot_measure(labels, spacing, error, words):
    with pytest.raises(error, match=words):
        measure(labels, spacing, 5)


def test_refuses_a_body_on_another_grid():
    with pytest.raises(MismatchError, match="one grid"):
        measure(np.ones((3, 3, 3), np.uint8), ANISO, 5, body=np.ones((3, 3, 4)))
