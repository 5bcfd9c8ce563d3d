import itertools

import cc3d
import numpy as np
import pytest

from ukbob_jax import anatomy, phantom
from ukbob_jax.anatomy import IDS
from ukbob_jax.errors import ConfigError

ONE_PIECE = [
    *("spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas", "duodenum"),
    *("urinary_bladder", "prostate", "sacrum", "heart", "aorta", "inferior_vena_cava", "sternum"),
    *("femur_left", "femur_right", "hip_left", "humerus_right", "scapula_left", "gluteus_maximus_left"),
    *("autochthon_right", "iliopsoas_left", "lung_upper_lobe_left", "lung_lower_lobe_right", "intestine"),
]


def center_mm(label, name):
    """World coordinates of the centre of a structure."""
    index = np.argwhere(label == IDS[name]).mean(axis=0)
    return (phantom.affine(label.shape) @ [*index, 1])[:3]


def test_shapes_and_types(man):
    image, label = man
    assert image.shape == (96, 96, 96, 4) and image.dtype == np.float32
    assert label.shape == (96, 96, 96) and label.dtype == np.uint8


@pytest.mark.parametrize("shape", [(96, 96, 96), (64, 32, 128)])
def test_nearly_every_structure_is_there(shape):
    ids = set(np.unique(phantom.label_map(3, shape, sex="M")).tolist())
    assert len(ids - {0}) >= 65
    assert ids <= set(anatomy.NAMES) - {anatomy.UNUSED}


def test_same_seed_same_subject():
    a, b = (phantom.subject(11, (40, 24, 64)) for _ in range(2))
    assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])
    assert np.array_equal(phantom.label_map(11, (40, 24, 64)), a[1])


def test_other_seed_other_subject(cohort):
    differences = [np.mean(a != b) for a, b in itertools.pairwise(cohort)]
    assert min(differences) > 0.03


def test_right_is_right(man):
    label = man[1]
    assert center_mm(label, "liver")[0] > 20 and center_mm(label, "gallbladder")[0] > 20
    assert center_mm(label, "spleen")[0] < -40 and center_mm(label, "heart")[0] < 0
    assert center_mm(label, "stomach")[0] < 0
    assert center_mm(label, "inferior_vena_cava")[0] > center_mm(label, "aorta")[0]


def test_every_pair_is_on_its_side(cohort):
    for label in cohort[:8]:
        for pair in anatomy.PAIRS:
            x = {anatomy.NAMES[i].rsplit("_", 1)[1]: center_mm(label, anatomy.NAMES[i])[0] for i in pair}
            assert x["left"] < x["right"]


def test_front_and_top_are_where_they_belong(man):
    label = man[1]
    assert center_mm(label, "sternum")[1] > center_mm(label, "heart")[1] > center_mm(label, "spinal_cord")[1]
    order = ["thyroid_gland", "heart", "liver", "kidney_right", "urinary_bladder", "femur_right"]
    heights = [center_mm(label, name)[2] for name in order]
    assert heights == sorted(heights, reverse=True)
    assert center_mm(label, "lung_upper_lobe_right")[2] > center_mm(label, "lung_lower_lobe_right")[2]


@pytest.mark.parametrize("name", ONE_PIECE)
def test_single_organs_hang_together(man, name):
    mask = man[1] == IDS[name]
    pieces = cc3d.connected_components(mask, connectivity=26)
    assert np.bincount(pieces.ravel())[1:].max() > 0.95 * mask.sum()


def test_only_men_have_a_prostate():
    for sex, present in (("F", False), ("M", True)):
        assert (phantom.label_map(4, (64, 32, 128), sex=sex) == IDS["prostate"]).any() == present


def test_the_legs_are_apart_at_the_knees(cohort):
    for label in cohort[:8]:
        trunk = slice(12, 36)  # without the arms
        legs = cc3d.connected_components(label[trunk, :, 4] > 0, connectivity=8)
        assert np.sum(np.bincount(legs.ravel())[1:] > 12) == 2


def test_organs_lie_inside_the_skin(man):
    label = man[1]
    inside = ~np.isin(label, (0, IDS["subcutaneous_fat"], IDS["muscle"]))
    neighbours = [np.roll(label, shift, axis) for axis in (0, 1) for shift in (1, -1)]
    bare = inside & np.any([n == 0 for n in neighbours], axis=0)
    bare[[0, -1]] = bare[:, [0, -1]] = False  # arms and belly may leave the field of view
    assert bare.sum() < 0.002 * inside.sum()


def test_volumes_vary_like_a_population(cohort):
    volumes = np.stack([np.bincount(label.ravel(), minlength=73) for label in cohort])
    names = ["liver", "kidney_left", "heart", "lung_upper_lobe_right", "femur_left", "hip_right", "stomach"]
    names += ["gluteus_maximus_left", "autochthon_left", "sacrum", "intestine", "aorta", "iliopsoas_right"]
    spread = {n: volumes[:, IDS[n]].std() / volumes[:, IDS[n]].mean() for n in names}
    assert all(0.05 < s < 0.30 for s in spread.values()), spread


def test_volumes_are_those_of_people(cohort):
    voxel_ml = np.prod(phantom.spacing_mm(cohort[0].shape)) / 1000
    means = np.mean([np.bincount(label.ravel(), minlength=73) for label in cohort], axis=0) * voxel_ml
    for name, low, high in [
        ("liver", 1100, 2200),
        ("spleen", 80, 300),
        ("kidney_left", 90, 220),
        ("heart", 350, 800),
        ("lung_upper_lobe_right", 500, 1600),
        ("urinary_bladder", 50, 400),
        ("aorta", 100, 350),
        ("subcutaneous_fat", 6000, 30000),
    ]:
        assert low < means[IDS[name]] < high, name


def test_the_grid_does_not_change_the_subject():
    coarse, fine = (phantom.label_map(2, shape) for shape in ((48, 32, 80), (96, 64, 120)))
    for name in ("liver", "heart", "lung_upper_lobe_left", "femur_left", "muscle"):
        a, b = (np.mean(label == IDS[name]) for label in (coarse, fine))
        assert a == pytest.approx(b, rel=0.06)
        assert np.allclose(center_mm(coarse, name), center_mm(fine, name), atol=4)


def test_unknown_sex_is_refused():
    with pytest.raises(ConfigError, match="'F', 'M'"):
        phantom.subject(1, (16, 16, 16), sex="male")
