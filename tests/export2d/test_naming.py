"""Names are made, read back, and refused where their parts could not be told apart; contrasts have their codes."""

import pytest

from ukbob_jax.errors import ConfigError, ValuesError
from ukbob_jax.export2d import naming
from ukbob_jax.export2d.naming import ImageName


def test_names_of_the_published_set():
    name = ImageName("mr_t1", "BraTS2021", "BraTS2021_00218", "z", 141)
    stem = naming.image_stem(name)
    assert stem == "mr_t1--BraTS2021--BraTS2021_00218--z_0141"
    assert naming.parse_image(f"{stem}.png") == name
    mask = naming.mask_stem("sa_med2d", stem, "0011", "tumour", 0)
    assert mask == f"{stem}--0011_000" and naming.parse_mask(f"{mask}.png") == (stem, "0011", 0)
    flat = "x_ray--covid_19_ct_cxr--16660_5_1--2d_none"
    assert naming.parse_image(f"{flat}.png") == ImageName("x_ray", "covid_19_ct_cxr", "16660_5_1", "", 0)
    assert naming.image_stem(ImageName("x_ray", "covid_19_ct_cxr", "16660_5_1", "", 0)) == flat
    assert naming.mask_stem("demo", "amos_0004_75", "", "vena cava", 12) == "amos_0004_75_vena_cava_012"


@pytest.mark.parametrize(
    "name", ["ct_00--S--a--b--z_0001.png", "ct_00--S--a--z_1.png", "ct--S--a--z_0001.png", "ct_00--S---a--z_0001.png",
             "ct_00--S--a--z_0001.jpg"],
)  # fmt: skip
def test_other_names_are_none(name):
    assert naming.parse_image(name) is None


@pytest.mark.parametrize("part", ["a--b", "-a", "a-", "", " a", "a/b"])
def test_parts_that_would_not_come_back_are_refused(part):
    with pytest.raises(ValuesError, match="Rename it"):
        naming.check_part(part, "subject")


@pytest.mark.parametrize(
    "contrast, modality, alone, code",
    [
        ("water", "MR", False, "mr_water"), ("in_phase", "", False, "mr_in"), ("FLAIR", "MR", False, "mr_flair"),
        ("t1n", "", False, "mr_t1"), ("0", "CT", True, "ct_00"), ("0", "MR", True, "mr_00"), ("0", "PT", True, "pet_00"),
        ("image", "DX", True, "x_ray"), ("odd", "", False, "mr_t2"),
    ],
)  # fmt: skip
def test_contrasts_have_codes(contrast, modality, alone, code):
    assert naming.code(contrast, modality, alone, {"odd": "mr_t2"}) == code


def test_a_contrast_without_a_code_is_refused():
    with pytest.raises(ConfigError, match="contrast '0' of modality 'unknown' has no modality code"):
        naming.code("0", "", True, {})
