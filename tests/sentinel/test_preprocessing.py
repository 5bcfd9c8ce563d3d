import numpy as np
import pytest
from PIL import Image

from tests.sentinel import reference as pack
from ukbob_jax.sentinel import preprocessing

SYNTHETIC = ("synthetic_large", "synthetic_thin_at_border", "synthetic_corner_pixel", "synthetic_odd")


@pytest.fixture(scope="module")
def case(reference):
    return pack.facts(reference, "preprocessing.json"), pack.arrays(reference)


@pytest.mark.reference
@pytest.mark.parametrize("name", SYNTHETIC)
def test_prepared_slices_equal_the_released_code(case, name):
    facts, arrays = case
    image, mask = arrays[f"prep_{name}__in_ct"], arrays[f"prep_{name}__in_mask"]
    assert preprocessing.crop_box(mask).tolist() == facts[name]["crop_half_open"]
    found = np.asarray(preprocessing.prepare(image, mask))
    for channel, key in enumerate(("ct", "mask")):
        np.testing.assert_allclose(found[::5, ::5, channel], arrays[f"prep_{name}__{key}"], atol=1e-5, rtol=0)
        assert found[..., channel].mean() == pytest.approx(facts[name][key]["mean"], abs=1e-5)


@pytest.mark.reference
def test_the_crops_of_real_slices_follow_from_their_extents(case):
    for name, fact in case[0].items():
        if "@" in name:
            box = preprocessing.crop_boxes(np.array([fact["mask_bbox_inclusive"]]), fact["slice_shape"])[0]
            assert box.tolist() == fact["crop_half_open"]


@pytest.mark.reference
def test_the_slices_used_are_those_of_the_released_code(case):
    for count, fact in case[0]["slices_used_at_inference"].items():
        assert (
            preprocessing.slices_used(int(count)).tolist()
            == fact["positions_in_the_list_of_non_empty_slices"]
        )


@pytest.mark.parametrize(("length", "size"), [(40, 17), (17, 40), (23, 23)])
def test_resizing_is_pillows(length, size):
    image = np.random.default_rng(0).normal(size=(length, 9)).astype(np.float32)
    want = np.asarray(Image.fromarray(image, mode="F").resize((9, size), Image.Resampling.BILINEAR))
    matrix = preprocessing.resize_matrix(np.array([0]), np.array([length]), length, size)[0]
    np.testing.assert_allclose(matrix @ image, want, atol=1e-5)


def test_many_slices_at_once_are_the_slices_one_by_one():
    rng = np.random.default_rng(1)
    images = rng.normal(0, 200, (3, 30, 41)).astype(np.float32)
    masks = np.zeros((3, 30, 41), bool)
    masks[0, 3:9, 30:], masks[1, 10:12, 5:30], masks[2, 29, 0] = True, True, True
    boxes = np.stack([preprocessing.crop_box(mask, 4) for mask in masks])
    many = preprocessing._prepare(images, masks, boxes, np.float32([-200, 200]), 16)
    for found, image, mask in zip(many, images, masks):
        np.testing.assert_allclose(found, preprocessing.prepare(image, mask, size=16, margin=4), atol=1e-6)


def test_margins_of_training_stay_within_their_bounds():
    mask = np.zeros((300, 300), bool)
    mask[140:161, 120:181] = True
    drawn = np.array([preprocessing.random_margins(np.random.default_rng(i), mask) for i in range(300)])
    assert drawn.min(0).tolist() == [10, 10]
    assert drawn.max(0).tolist() == [118, 98]


def test_a_cube_beyond_the_volume_sees_nothing_there():
    image, mask = np.full((8, 8, 8), 100, np.float32), np.zeros((1, 8, 8, 8), bool)
    mask[0, :4, :4, :4] = True
    box = preprocessing.cube([0, 0, 0], [3, 3, 3], (1, 1, 1), margin_mm=2)
    assert box.side_mm == 8
    window = np.float32([0, 100])
    found = np.asarray(preprocessing.prepare_cubes(image, mask, box.start[None], box.stop[None], window, 8))[
        0
    ]
    assert (found[:2] == [-2, -1]).all()  # outside
    assert (found[2:, 2:, 2:, 0] == 2).all()
    np.testing.assert_array_equal(found[2:, 2:, 2:, 1] == 1, mask[0, :6, :6, :6])


def test_windows_of_mr():
    image = np.concatenate([np.zeros(50), np.arange(1, 1001)])
    low, high = preprocessing.window(image, "MR")
    assert (low, high) == pytest.approx((5.995, 995.005))
    low, high = preprocessing.window(image, "MR", "zscore")
    assert (low + high) / 2 == pytest.approx(500.5, rel=1e-4)
    assert (high - low) / 4 == pytest.approx(np.arange(1, 1001).std(), rel=1e-4)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: preprocessing.prepare(np.zeros((4, 4)), np.zeros((4, 4))), "mask: it is empty"),
        (
            lambda: preprocessing.prepare(np.zeros((4, 4)), np.ones((4, 5))),
            r"slice of shape \(4, 4\) with a mask",
        ),
        (lambda: preprocessing.window(np.ones(3), "PET"), "modality='PET'"),
        (lambda: preprocessing.window(np.zeros(3), "MR"), "no voxel has a finite value other than 0"),
    ],
)
def test_bad_input_is_one_line(call, what):
    with pytest.raises(ValueError, match=what):
        call()
