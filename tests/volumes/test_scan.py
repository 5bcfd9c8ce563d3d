import numpy as np
import pytest

import ukbob_jax as bob
from tests.volumes.test_volume import noise, straight
from ukbob_jax.errors import ConfigError, GeometryError, MismatchError, ValuesError
from ukbob_jax.volumes.case import Case
from ukbob_jax.volumes.scan import merge_masks, read_case

SHAPE = (5, 4, 3)
FLIP = np.diag([-1.0, 1, 1, 1])


def save(path, array, affine=None):
    bob.write_volume(path, bob.Volume(array, straight() if affine is None else affine))
    return path


def flipped_affine() -> np.ndarray:
    """The grid of `straight()` stored from right to left."""
    affine = straight() @ FLIP
    affine[:3, 3] = (straight() @ [SHAPE[0] - 1, 0, 0, 1])[:3]
    return affine


def test_files_of_one_case_become_channels_and_labels_in_ras(tmp_path):
    water, fat, seg = noise(SHAPE, 1), noise(SHAPE, 2), noise(SHAPE, 3, np.uint8) % 73
    case = Case(
        "a",
        (save(tmp_path / "water.nii.gz", water), save(tmp_path / "fat.nii.gz", fat[::-1], flipped_affine())),
        {"manual": save(tmp_path / "seg.nii.gz", seg)},
    )
    scan = read_case(case, num_classes=73)
    np.testing.assert_array_equal(scan.image.array, np.stack([water, fat], -1))
    np.testing.assert_array_equal(scan.labels["manual"].array, seg)
    assert scan.image.orientation == "RAS" and scan.annotated == {"manual": None}


def test_one_file_may_hold_all_channels(tmp_path):
    array = noise((*SHAPE, 4))
    scan = read_case(Case("a", (save(tmp_path / "a.nii.gz", array),), {}))
    np.testing.assert_array_equal(scan.image.array, array)
    assert scan.labels == {}


def test_files_without_orientation_are_read_only_when_asked(tmp_path):
    def unknown(name, array):
        bob.write_volume(tmp_path / name, bob.Volume(array, np.diag([2.0, 2, 2, 1]), (0, 0)))
        return tmp_path / name

    case = Case(
        "a", (unknown("a.nii", noise(SHAPE)),), {"manual": unknown("s.nii", np.ones(SHAPE, np.uint8))}
    )
    with pytest.raises(GeometryError, match="orientation unknown"):
        read_case(case)
    with pytest.warns(UserWarning, match="taken as RAS"):
        assert read_case(case, assume_ras=True).labels["manual"].orientation == "RAS"


def test_files_on_different_grids_are_refused(tmp_path):
    image, moved = save(tmp_path / "a.nii", noise(SHAPE)), straight(origin=(-9.0, 5.0, 20.0))
    with pytest.raises(MismatchError, match=r"b\.nii.*1 mm away from .*a\.nii"):
        read_case(Case("a", (image, save(tmp_path / "b.nii", noise(SHAPE), moved)), {}))
    with pytest.raises(MismatchError, match=r"c\.nii"):
        seg = save(tmp_path / "c.nii", np.zeros(SHAPE, np.uint8), moved)
        read_case(Case("a", (image,), {"manual": seg}))


def masks(folder):
    """liver and spleen overlap in one voxel; the spleen is stored right to left, with 255 inside."""
    liver, spleen = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    liver[:2], spleen[1:3, 0, 0] = 1, 255
    save(folder / "liver.nii.gz", liver)
    save(folder / "spleen.nii.gz", spleen[::-1], flipped_affine())
    save(folder / "unknown.nii.gz", np.ones(SHAPE, np.uint8))
    return folder


def test_organ_masks_are_merged_by_name(tmp_path):
    organs = {"liver": 5, "spleen": 1, "rib_1": 70, "heart": 24}
    with (
        pytest.warns(UserWarning, match="1 voxels lie in several masks"),
        pytest.warns(UserWarning, match="1 of 3 masks are left out, as no class has their name: unknown"),
    ):
        label, annotated = merge_masks(masks(tmp_path), organs)
    want = np.zeros(SHAPE, np.uint8)
    want[:2] = 5
    want[1:3, 0, 0] = 1
    np.testing.assert_array_equal(label.array, want)
    assert annotated == (1, 5)


def test_an_organ_of_several_masks_is_annotated_only_with_all_of_them(tmp_path):
    masks(tmp_path)
    organs = {"liver": 5, "liver_tumour": 5, "spleen": 1}
    (tmp_path / "unknown.nii.gz").unlink()
    with pytest.warns(UserWarning, match="several masks"):
        assert merge_masks(tmp_path, organs)[1] == (1,)


def test_a_case_may_hold_a_folder_of_masks(tmp_path):
    (tmp_path / "segmentations").mkdir()
    case = Case(
        "s", (save(tmp_path / "ct.nii.gz", noise(SHAPE)),), {"manual": masks(tmp_path / "segmentations")}
    )
    with pytest.warns(UserWarning, match="2 of 3 masks are left out"):
        scan = read_case(case, organs={"liver": 5})
    assert scan.annotated == {"manual": (5,)} and set(np.unique(scan.labels["manual"].array)) == {0, 5}
    with pytest.raises(ConfigError, match="pass organs"):
        read_case(case)


def test_masks_that_cannot_be_merged_are_refused(tmp_path):
    masks(tmp_path)
    with pytest.raises(MismatchError, match="none of its 3 masks"):
        merge_masks(tmp_path, {"brain": 3})
    save(tmp_path / "liver.nii.gz", noise(SHAPE, 4, np.uint8))
    with (
        pytest.warns(UserWarning, match="2 of 3 masks are left out"),
        pytest.raises(ValuesError, match="one value beside 0"),
    ):
        merge_masks(tmp_path, {"liver": 5})
