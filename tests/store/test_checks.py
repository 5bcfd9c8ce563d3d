import numpy as np
import pytest

from ukbob_jax.errors import GeometryError, MismatchError, ValuesError
from ukbob_jax.store import checks
from ukbob_jax.store.row import Subject

IMAGE = np.zeros((4, 4, 4, 2), np.float32)


@pytest.mark.parametrize("affine", [np.eye(3), np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_an_affine_that_maps_nothing_is_refused(affine):
    with pytest.raises(GeometryError, match=r"^s1: affine .* is not an invertible 4 by 4 matrix"):
        checks.check_affine(affine, "s1")


@pytest.mark.parametrize(
    "image, contrasts, error, message",
    [
        (IMAGE[..., 0], (), GeometryError, "expected real values x y z c"),
        (IMAGE[:0], (), GeometryError, "none empty"),
        (IMAGE.astype(complex), (), GeometryError, "expected real values"),
        (np.broadcast_to(IMAGE[:, :, :1], (4, 4, 40000, 2)), (), GeometryError, "an axis has at most"),
        (IMAGE, ("fat",), MismatchError, r"2 channels but contrasts \['fat'\]"),
        (IMAGE, ("fat", "a/b"), ValuesError, "s1: contrast 'a/b'"),
    ],
)
def test_an_image_that_cannot_be_stored_is_refused(image, contrasts, error, message):
    with pytest.raises(error, match=message):
        checks.check_image(image, contrasts, "s1")
    checks.check_image(IMAGE, ("fat", "water"), "s1")


def test_a_label_is_stored_as_bytes_or_refused():
    label = np.array([[[0, 1, 255]]])
    stored = checks.check_label(label, "auto", (1, 1, 3), "s1")
    assert stored.dtype == np.uint8 and stored.tolist() == label.tolist()
    with pytest.raises(MismatchError, match=r"label 'auto' is \(1, 1, 3\), its image \(1, 3, 1\)"):
        checks.check_label(label, "auto", (1, 3, 1), "s1")
    for value in (256, -1, 0.5):
        with pytest.raises(ValuesError, match=r"not integers 0\.\.255|0\.5 \(3 voxels\) are not whole"):
            checks.check_label(np.full((1, 1, 3), value), "auto", (1, 1, 3), "s1")


def test_a_mask_holds_0_and_1():
    """nnssl stores -1 outside the non-zero region, which becomes 255 in bytes."""
    mask = np.array([[[0, 1, 1]]])
    assert checks.check_label(mask, "mask/anatomy", (1, 1, 3), "s1").tolist() == mask.tolist()
    for value in (-1, 2, 255):
        with pytest.raises(ValuesError, match=r"mask 'mask/anatomy' has values .*; expected 0 and 1"):
            checks.check_label(np.array([[[0, 1, value]]]), "mask/anatomy", (1, 1, 3), "s1")


def test_attributes_that_could_name_a_person_are_refused():
    assert checks.check_attributes({"sex": "F"}, "s1") == {"sex": "F"}
    with pytest.raises(ValuesError, match="s1: attribute 'birth_date' may not be stored; allowed: age_years"):
        checks.check_attributes({"birth_date": "x"}, "s1")


@pytest.mark.parametrize("finding", [float("nan"), {1, 2}])
def test_findings_that_are_no_json_are_refused_with_their_names(finding):
    with pytest.raises(ValuesError, match=r"^s1: cannot be stored as JSON .*'seam'"):
        checks.check_json(Subject("s1", quality={"seam": finding}))
