"""What every augmentation keeps, and what it does to an image one can compute by hand."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from ukbob_jax import anatomy
from ukbob_jax.data import augment
from ukbob_jax.errors import ConfigError

SHAPE = (10, 10, 12)
CHAIN = ("gamma", "intensity", "bias_field", "noise")
POWERSET = tuple(axes for n in range(4) for axes in itertools.combinations(range(3), n))


def batch(size: int = 3, seed: int = 0, channels: int = 2) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 73, (size, *SHAPE)).astype(np.uint8)
    label[:, 0, 0, :5] = 255
    return {
        "image": jnp.asarray(rng.normal(size=(size, *SHAPE, channels)), jnp.float32),
        "label": jnp.asarray(label),
        "subject": jnp.arange(size, dtype=jnp.int32),
    }


@functools.cache
def always(name: str):
    return jax.jit(augment.compose(functools.partial(augment.AUGMENTATIONS[name], probability=1.0)))


@functools.cache
def never(name: str):
    return jax.jit(augment.compose(functools.partial(augment.AUGMENTATIONS[name], probability=0.0)))


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_keeps_shapes_dtypes_other_fields_and_is_finite(name):
    given = batch()
    found = always(name)(jax.random.key(0), given)
    assert {k: (v.shape, v.dtype) for k, v in found.items()} == {
        k: (v.shape, v.dtype) for k, v in given.items()
    }
    assert np.isfinite(found["image"]).all()
    np.testing.assert_array_equal(found["subject"], given["subject"])
    assert not np.array_equal(found["image"], given["image"])


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_probability_zero_changes_nothing(name):
    given = batch()
    found = never(name)(jax.random.key(0), given)
    for field in given:
        np.testing.assert_array_equal(found[field], given[field])


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_same_key_same_change_other_key_another(name):
    given = batch()
    one, two, other = (always(name)(jax.random.key(seed), given)["image"] for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, two)
    if name != "flip":  # which has no more than one change to make
        assert not np.array_equal(one, other)


@pytest.mark.parametrize("name", augment.INTENSITY)
def test_intensity_changes_leave_labels_alone(name):
    given = batch()
    np.testing.assert_array_equal(always(name)(jax.random.key(1), given)["label"], given["label"])


@pytest.mark.parametrize("name", augment.INTENSITY)
def test_constant_image_stays_finite(name):
    given = {**batch(), "image": jnp.zeros((3, *SHAPE, 2))}
    assert np.isfinite(always(name)(jax.random.key(1), given)["image"]).all()


def test_samples_change_apart_and_do_not_depend_on_their_neighbours():
    given = batch(4)
    same = {**given, "image": jnp.broadcast_to(given["image"][:1], given["image"].shape)}
    run = jax.jit(
        augment.compose(*(functools.partial(augment.INTENSITY[name], probability=1.0) for name in CHAIN))
    )
    found = run(jax.random.key(3), same)["image"]
    assert all(not np.array_equal(found[0], found[row]) for row in range(1, 4))
    fewer = run(jax.random.key(3), {name: value[:2] for name, value in same.items()})["image"]
    # 1e-5: XLA may fuse another batch size in another order
    np.testing.assert_allclose(fewer, found[:2], rtol=1e-5, atol=1e-5)


def test_chance_is_as_asked():
    given = {"image": jnp.zeros((400, 2, 2, 2, 1)), "label": jnp.zeros((400, 2, 2, 2), jnp.uint8)}
    run = augment.compose(functools.partial(augment.noise, probability=0.3))
    changed = (np.asarray(jax.jit(run)(jax.random.key(0), given)["image"]) != 0).any(axis=(1, 2, 3, 4))
    assert changed.mean() == pytest.approx(0.3, abs=0.115)  # 5 sigma of 400 draws


def test_gamma_keeps_order_and_ends():
    given = batch()
    found = np.asarray(always("gamma")(jax.random.key(2), given)["image"])
    image = np.asarray(given["image"])
    for one, two in zip(image.reshape(3, -1, 2), found.reshape(3, -1, 2)):
        for channel in range(2):
            order = np.argsort(one[:, channel])
            assert (np.diff(two[order, channel]) >= -1e-5).all()
            np.testing.assert_allclose(
                [two[:, channel].min(), two[:, channel].max()],
                [one[:, channel].min(), one[:, channel].max()],
                atol=1e-5,
            )


@pytest.mark.parametrize("inverted", [False, True])
def test_bend_is_nnunets_gamma(inverted):
    """Of each channel by a power of its own; mean and standard deviation stay."""
    image = np.random.default_rng(0).gamma(2.0, 1.0, (*SHAPE, 2))
    draws = jnp.zeros(augment.DRAWS).at[1:5].set(jnp.array([0.2, 0.9, 0.5, 0.5]))
    found, _ = augment.bend(
        None, draws, jnp.asarray(image, jnp.float32), None, probability=1.0, inverted=inverted
    )
    for channel, power in enumerate((0.85, 1.25)):  # half of the way from 0.7 to 1, and from 1 to 1.5
        one = -image[..., channel] if inverted else image[..., channel]
        bent = one.min() + np.ptp(one) * ((one - one.min()) / np.ptp(one)) ** power
        bent = (bent - bent.mean()) / bent.std() * one.std() + one.mean()
        np.testing.assert_allclose(found[..., channel], -bent if inverted else bent, atol=1e-4)


def test_contrast_stretches_each_channel_about_its_mean_within_its_range():
    image = np.random.default_rng(0).gamma(2.0, 1.0, (*SHAPE, 2))
    draws = jnp.zeros(augment.DRAWS).at[1:5].set(jnp.array([0.2, 0.9, 0.5, 0.5]))
    found, _ = augment.contrast(None, draws, jnp.asarray(image, jnp.float32), None, probability=1.0)
    for channel, factor in enumerate((0.875, 1.125)):
        one = image[..., channel]
        expected = ((one - one.mean()) * factor + one.mean()).clip(one.min(), one.max())
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)


def test_mirror_turns_every_axis_in_half_of_the_samples_and_keeps_the_ids():
    given = batch(32)
    found = always("mirror")(jax.random.key(0), given)
    seen = set()
    for row in range(32):
        image, label = np.asarray(given["image"][row]), np.asarray(given["label"][row])
        turned = [a for a in POWERSET if np.array_equal(found["image"][row], np.flip(image, a))]
        assert len(turned) == 1
        np.testing.assert_array_equal(found["label"][row], np.flip(label, turned[0]))
        seen.add(turned[0])
    assert len(seen) == 8


@pytest.mark.parametrize("name", augment.PRESETS)
def test_a_preset_is_a_name_like_others(name):
    given = batch(8)
    found = jax.jit(augment.compose(name, "mirror"))(jax.random.key(0), given)
    assert found["image"].shape == given["image"].shape and np.isfinite(found["image"]).all()
    assert not np.array_equal(found["image"], given["image"])


def test_thick_slices_turn_within_their_planes():
    """About the first axis alone, so that every plane keeps its mean."""
    image = np.broadcast_to(np.arange(10, dtype=np.float32)[:, None, None, None], (*SHAPE, 1))
    turn = augment.PRESETS["nnunet_thick"][0]
    found, _ = turn(None, jnp.full(augment.DRAWS, 0.1), jnp.asarray(image), None)
    centre = np.asarray(found)[:, 3:7, 4:8, 0]
    np.testing.assert_allclose(centre, np.broadcast_to(image[:, 3:7, 4:8, 0], centre.shape), atol=1e-4)


def test_intensity_is_affine_per_channel_within_its_limits():
    given = batch(8)
    found = np.asarray(always("intensity")(jax.random.key(2), given)["image"]).reshape(8, -1, 2)
    image = np.asarray(given["image"]).reshape(8, -1, 2)
    for row in range(8):
        for channel in range(2):
            slope, offset = np.polyfit(image[row, :, channel], found[row, :, channel], 1)
            assert abs(slope - 1) <= 0.1501 and abs(offset) <= 0.1501
            np.testing.assert_allclose(
                image[row, :, channel] * slope + offset, found[row, :, channel], atol=1e-5
            )


def test_bias_field_is_smooth_positive_and_shared_by_the_channels():
    x = jnp.linspace(0, 1, SHAPE[0])[:, None, None, None]
    image = jnp.broadcast_to(jnp.concatenate([x, 2 * x], axis=-1), (*SHAPE, 2)) + 0.0
    image = image.at[0].set(0.0)
    given = {"image": image[None], "label": jnp.zeros((1, *SHAPE), jnp.uint8)}
    found = np.asarray(always("bias_field")(jax.random.key(0), given)["image"])[0]
    field = found[1:] / np.asarray(image[1:])
    np.testing.assert_allclose(field[..., 0], field[..., 1], rtol=1e-5)
    assert (field > 0).all() and field.std() > 0.01
    assert max(np.abs(np.diff(np.log(field), axis=axis)).max() for axis in range(3)) < 0.6


def test_contrast_dropout_leaves_at_least_one_channel():
    given = batch(64, channels=4)
    found = np.asarray(always("contrast_dropout")(jax.random.key(0), given)["image"])
    image = np.asarray(given["image"])
    kept = (found == image).all(axis=(1, 2, 3))
    assert (kept | (found == 0).all(axis=(1, 2, 3))).all()
    assert kept.any(axis=1).all() and set(kept.sum(axis=1).tolist()) >= {1, 2, 3}


def test_low_resolution_keeps_constants_and_means_and_lowers_detail():
    constant = {"image": jnp.full((1, *SHAPE, 1), 3.0), "label": jnp.zeros((1, *SHAPE), jnp.uint8)}
    np.testing.assert_allclose(always("low_resolution")(jax.random.key(0), constant)["image"], 3.0, rtol=1e-5)
    given = batch(16)
    found = np.asarray(always("low_resolution")(jax.random.key(1), given)["image"])
    assert found.std() < 0.6 * np.asarray(given["image"]).std()


@pytest.mark.parametrize("n", [8, 10, 32])
def test_coarsening_rows_average(n):
    stack = augment._coarsening(n)
    np.testing.assert_allclose(stack.sum(axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(stack[0], np.eye(n))
    if n % 2 == 0:  # a slice of two voxels: their mean, halfway between neighbours three quarters to one
        ramp = stack[1] @ np.arange(n, dtype=np.float32)
        np.testing.assert_allclose(ramp[2:-2], np.arange(2, n - 2), atol=1e-4)


def test_blur_equals_scipy_inside_and_keeps_constants():
    rng = np.random.default_rng(0)
    image = rng.normal(size=SHAPE).astype(np.float32)
    draws = jnp.full(augment.DRAWS, 0.25)  # sigma: a quarter of the way from 0.5 to 1.5
    found, _ = augment.blur(None, draws, jnp.asarray(image)[..., None], None, probability=1.0)
    expected = ndimage.gaussian_filter(image, 0.75, truncate=12.0, mode="constant")
    weight = ndimage.gaussian_filter(np.ones(SHAPE, np.float32), 0.75, truncate=12.0, mode="constant")
    np.testing.assert_allclose(np.asarray(found)[..., 0], expected / weight, atol=1e-5)
    constant = {"image": jnp.full((1, *SHAPE, 1), 3.0), "label": jnp.zeros((1, *SHAPE), jnp.uint8)}
    np.testing.assert_allclose(always("blur")(jax.random.key(0), constant)["image"], 3.0, rtol=1e-5)


def test_elastic_moves_image_and_label_alike_and_tears_nothing():
    shape, margin = (32, 28, 36), 2  # voxels; more than any shift
    own = np.stack(np.indices(shape), axis=-1).astype(np.float32)  # each voxel says where it is
    label = np.random.default_rng(0).integers(1, 70, shape).astype(np.uint8)
    run = jax.jit(augment.compose(functools.partial(augment.elastic, probability=1.0, strength=1.0)))
    found = run(jax.random.key(0), {"image": jnp.asarray(own[None]), "label": jnp.asarray(label[None])})
    core = (slice(margin, -margin),) * 3
    places, labels = np.asarray(found["image"])[0][core], np.asarray(found["label"])[0][core]
    shifts = np.abs(places - own[core])
    reach = np.array(shape) / augment.ELASTIC_KNOTS * augment.FOLD_FREE
    assert (shifts.max(axis=(0, 1, 2)) <= reach + 1e-4).all() and shifts.max() > 0.6
    clear = (np.abs(places % 1 - 0.5) > 1e-3).all(axis=-1)  # no tie between two voxels
    nearest = np.floor(places[clear] + 0.5).astype(int)
    np.testing.assert_array_equal(labels[clear], label[tuple(nearest.T)])
    jacobian = np.stack([np.stack(np.gradient(places[..., axis]), axis=-1) for axis in range(3)], axis=-2)
    assert np.linalg.det(jacobian).min() > 0  # nothing is folded over


def sphere(centre, radius=3.0) -> np.ndarray:
    grid = np.indices(SHAPE)
    return (sum((g - c) ** 2 for g, c in zip(grid, centre)) < radius**2).astype(np.float32)


def test_affine_moves_image_and_label_alike_and_ignores_what_comes_from_outside():
    ball = sphere((4.5, 4.5, 5.5))
    given = {
        "image": jnp.asarray(np.repeat(ball[None, ..., None], 8, axis=0)),
        "label": jnp.asarray(np.repeat(ball[None].astype(np.uint8) * 7, 8, axis=0)),
    }
    run = augment.compose(functools.partial(augment.affine, probability=1.0, shift=0.2, degrees=30.0))
    found = jax.jit(run)(jax.random.key(0), given)
    image, label = np.asarray(found["image"])[..., 0], np.asarray(found["label"])
    assert set(np.unique(label).tolist()) == {0, 7, 255}
    for row in range(8):
        overlap = (image[row] > 0.5) == (label[row] == 7)
        assert overlap.mean() > 0.97
        assert (image[row][label[row] == 255] < 0.6).all()
        one = np.array(ndimage.center_of_mass(image[row]))
        assert (np.abs(one - [4.5, 4.5, 5.5]) < [3.0, 3.0, 3.5]).all()


def test_affine_equals_scipy_for_the_same_matrix():
    rng = np.random.default_rng(0)
    image = rng.normal(size=SHAPE).astype(np.float32)
    spacing = (2.0, 1.0, 3.0)
    draws = jax.random.uniform(jax.random.key(9), (augment.DRAWS,))
    angles, zoom, shifts = np.split(np.asarray(draws[1:8], np.float64), [3, 4])
    turn = np.asarray(augment._rotation(jnp.deg2rad(jnp.asarray(20 * angles - 10))))
    zoom = 0.9 + 0.2 * zoom[0]
    move = np.array(SHAPE) * (0.1 * shifts - 0.05)
    matrix = np.diag(1 / np.array(spacing)) @ turn @ np.diag(spacing) / zoom
    centre = (np.array(SHAPE) - 1) / 2
    expected = ndimage.affine_transform(
        image, matrix, centre + move - matrix @ centre, order=1, mode="constant"
    )
    found, _ = augment.affine(
        None,
        draws,
        jnp.asarray(image)[..., None],
        jnp.zeros(SHAPE, jnp.uint8),
        probability=1.0,
        spacing_mm=spacing,
    )
    inside = ndimage.binary_erosion(np.ones(SHAPE), iterations=3)  # scipy cuts at the border where JAX fades
    np.testing.assert_allclose(np.asarray(found)[..., 0][inside], expected[inside], atol=1e-4)


def test_rotation_is_a_rotation_and_turns_x_to_y_about_z():
    turn = np.asarray(augment._rotation(jnp.array([0.1, -0.2, 0.3])))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(turn) == pytest.approx(1.0, abs=1e-6)
    quarter = np.asarray(augment._rotation(jnp.array([0.0, 0.0, np.pi / 2])))
    np.testing.assert_allclose(quarter @ [1, 0, 0], [0, 1, 0], atol=1e-6)


def test_rot90_turns_image_and_label_together():
    given = batch(12)
    found = always("rot90")(jax.random.key(0), given)
    seen = set()
    for row in range(12):
        turns = [
            k
            for k in range(1, 4)
            if np.array_equal(found["image"][row], np.rot90(given["image"][row], k, (0, 1)))
        ]
        assert len(turns) == 1
        np.testing.assert_array_equal(found["label"][row], np.rot90(given["label"][row], turns[0], (0, 1)))
        seen.add(turns[0])
    assert seen == {1, 2, 3}


def test_rot90_of_an_oblong_plane_is_refused():
    with pytest.raises(ConfigError, match=r"rot90: crop \(10, 10, 12\) is not square in axes \(0, 2\)"):
        augment.rot90(
            None, jnp.zeros(augment.DRAWS), jnp.zeros((*SHAPE, 1)), jnp.zeros(SHAPE, jnp.uint8), axes=(0, 2)
        )


def test_flip_swaps_the_ids_of_the_two_sides_and_keeps_ignore():
    given = batch()
    found = always("flip")(jax.random.key(0), given)
    np.testing.assert_array_equal(found["image"], given["image"][:, ::-1])
    np.testing.assert_array_equal(found["label"], anatomy.MIRROR[np.asarray(given["label"])[:, ::-1]])
    assert (np.asarray(found["label"]) == 255).sum() == 15
    left, right = anatomy.IDS["kidney_left"], anatomy.IDS["kidney_right"]
    twice = always("flip")(jax.random.key(1), found)
    np.testing.assert_array_equal(twice["label"], given["label"])
    assert ((np.asarray(given["label"]) == left).sum(), left) != (
        (np.asarray(found["label"]) == left).sum(),
        right,
    )


def test_unknown_name_lists_what_there_is():
    with pytest.raises(
        ConfigError, match=r"config.augment: 'gama' is not known; choose from gamma, intensity"
    ):
        augment.compose("gamma", "gama")


def test_default_chain_is_traced_once_and_works_split_over_devices():
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    given = batch(8)
    run = jax.jit(augment.compose(*CHAIN))
    whole = run(jax.random.key(4), given)["image"]
    split = jax.device_put(given, NamedSharding(mesh, PartitionSpec("data")))
    # 1e-5: the compiler orders sums otherwise on a split batch
    np.testing.assert_allclose(run(jax.random.key(4), split)["image"], whole, rtol=1e-5, atol=1e-5)
    run(jax.random.key(5), given)
    assert run._cache_size() == 2


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_a_batch_without_labels_has_its_images_changed_the_same_way(name):
    given = batch()
    labelled = always(name)(jax.random.key(2), given)
    del given["label"]
    alone = always(name)(jax.random.key(2), given)
    assert alone.keys() == given.keys()
    np.testing.assert_allclose(alone["image"], labelled["image"], rtol=1e-6, atol=1e-6)
