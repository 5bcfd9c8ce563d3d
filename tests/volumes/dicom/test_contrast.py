import pytest

from ukbob_jax.phantom import CONTRASTS
from ukbob_jax.volumes.dicom import contrast as contrasts_of
from ukbob_jax.volumes.dicom.contrast import recognise


def test_names_and_order_are_the_phantoms():
    assert contrasts_of.CONTRASTS == CONTRASTS


@pytest.mark.parametrize(
    "description, image_type, expected",
    [
        ("Dixon_noBH_F", ["DERIVED", "PRIMARY", "DIXON", "FAT"], ("fat", False)),
        ("Dixon_BH_17s_opp", [], ("opposed_phase", False)),
        ("Dixon_BH_17s_in", ["M"], ("in_phase", False)),
        ("Dixon_noBH_W", ["DIXON", "FAT"], ("water", True)),
        ("", ["DERIVED", "PRIMARY", "DIXON", "WATER"], ("water", False)),
        ("localizer", ["ORIGINAL", "PRIMARY"], ("", False)),
        ("Dixon_F_scout", [], ("", False)),
    ],
)
def test_contrast_is_recognised(description, image_type, expected):
    assert recognise(description, image_type) == expected
