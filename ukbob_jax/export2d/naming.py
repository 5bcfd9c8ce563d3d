"""Names of files in the layout of SA-Med2D-20M, and in the one of SAM-Med2D's demo data: made and read.

An image is images/MODALITY_SUB--DATASET--CASE--AXIS_NNNN.png, with 2d_none in place of AXIS_NNNN where the source is 2D; a
mask is masks/IMAGE STEM--CCCC_III.png, with class id and instance. In the demo data the names of images are free, and a
mask is masks/IMAGE STEM_CLASSNAME_III.png.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ukbob_jax.errors import ConfigError, ValuesError
from ukbob_jax.export2d.options import field

SEPARATOR = "--"
PUBLISHED = (  # codes met in the published set
    "ct_00", "ct_cbf", "ct_cbv", "ct_mtt", "ct_tmax", "dermoscopy_00", "endoscopy_00", "fundus_photography",
    "mr_00", "mr_adc", "mr_cbf", "mr_cbv", "mr_cmr", "mr_dwi", "mr_flair", "mr_hbv", "mr_lge", "mr_mprage",
    "mr_mtt", "mr_pd", "mr_rcbf", "mr_rcbv", "mr_t1", "mr_t1c", "mr_t1ce", "mr_t1gd", "mr_t1w", "mr_t2",
    "mr_t2w", "mr_tmax", "mr_ttp", "pet_00", "ultrasound_00", "x_ray",
)  # fmt: skip
# Dixon contrasts are not among them; the form of a code allows them
_MR = {code.removeprefix("mr_"): code for code in PUBLISHED if code.startswith("mr_")} | {
    "fat": "mr_fat", "water": "mr_water", "in_phase": "mr_in", "opposed_phase": "mr_opp", "fa": "mr_fa",
    "t1n": "mr_t1", "t2f": "mr_flair", "dixon": "mr_dixon", "t2star": "mr_t2star", "bold": "mr_bold",
}  # fmt: skip
_CT = {code.removeprefix("ct_"): code for code in PUBLISHED if code.startswith("ct_")}
_OTHERS = {
    "PT": "pet_00", "US": "ultrasound_00", "DX": "x_ray", "CR": "x_ray", "DR": "x_ray", "RG": "x_ray",
    "ES": "endoscopy_00", "OP": "fundus_photography", "DMS": "dermoscopy_00",
}  # fmt: skip
_CODE = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)+")
_SLICE = re.compile(r"(?:([xyz])_(\d{4})|2d_none)")
_INSTANCE = re.compile(r"(\d{4})_(\d{3})")
MAX_SLICES, MAX_INSTANCES = 10_000, 1_000


class ImageName(NamedTuple):
    """What an image's name says. `axis` is "" and `index` 0 where the source is 2D."""

    code: str
    dataset: str
    case: str
    axis: str
    index: int


def code(contrast: str, modality: str, alone: bool, given: Mapping[str, str]) -> str:
    """The modality code of a contrast.

    Args:
        contrast: its name.
        modality: as DICOM spells it, "CT" also where voxels are HU; "": not known.
        alone: the subject has no other contrast, so that the name may say nothing.
        given: contrast -> code, which comes first.
    Raises:
        ConfigError: no code is known, or the one that is given has not the form of a code.
    """
    if contrast in given:
        if not _CODE.fullmatch(given[contrast]):
            raise ConfigError(
                f"{field('codes')}: {given[contrast]!r} is no modality code; it is like mr_t1, ct_00 or x_ray."
            )
        return given[contrast]
    name = contrast.lower()
    if modality in ("MR", "") and name in _MR:
        return _MR[name]
    if modality == "CT" and name in _CT:
        return _CT[name]
    if modality in _OTHERS and alone:
        return _OTHERS[modality]
    if modality in ("MR", "CT") and alone:
        return f"{modality.lower()}_00"
    raise ConfigError(
        f"contrast {contrast!r} of modality {modality or 'unknown'!r} has no modality code. "
        f'Give one as {field("codes")}: "{contrast}=mr_t1".'
    )


def parse_codes(given: Sequence[str]) -> dict[str, str]:
    """Read "contrast=code" words.

    Raises:
        ConfigError: a word without "=".
    """
    found = {}
    for word in given:
        contrast, equals, value = word.partition("=")
        if not equals or not contrast:
            raise ConfigError(f"{field('codes')}: {word!r}; write contrast=code, such as water=mr_00.")
        found[contrast] = value
    return found


def check_part(name: str, what: str) -> str:
    """Return `name` if it can stand between the double hyphens that separate the parts of a file's name.

    Raises:
        ValuesError: naming it.
    """
    if not name or SEPARATOR in name or name.startswith("-") or name.endswith("-") or name != name.strip():
        raise ValuesError(
            f"{what} {name!r}: parts of a file's name are separated by '--', so it must not hold '--' nor begin or end "
            "with '-'. Rename it."
        )
    if "/" in name or "\\" in name:
        raise ValuesError(f"{what} {name!r}: it must not hold a slash. Rename it.")
    return name


def image_stem(name: ImageName) -> str:
    """An image's file name without its ending."""
    place = f"{name.axis}_{name.index:04d}" if name.axis else "2d_none"
    return SEPARATOR.join((name.code, name.dataset, name.case, place))


def demo_class(name: str) -> str:
    """A class as the names of masks in style demo have it: other characters than letters and digits become "_"."""
    return re.sub("[^A-Za-z0-9]+", "_", name)


def mask_stem(style: str, image: str, class_id: str, class_name: str, instance: int) -> str:
    """A mask's file name without its ending."""
    if style == "demo":
        return f"{image}_{demo_class(class_name)}_{instance:03d}"
    return f"{image}{SEPARATOR}{class_id}_{instance:03d}"


def parse_image(name: str) -> ImageName | None:
    """What the file name of an image says; None where it has not the form of the published set."""
    parts = name.removesuffix(".png").split(SEPARATOR)
    if not name.endswith(".png") or len(parts) != 4:
        return None
    place = _SLICE.fullmatch(parts[3])
    if not _CODE.fullmatch(parts[0]) or place is None:
        return None
    try:
        for part in parts[1:3]:
            check_part(part, "")
    except ValuesError:
        return None
    return ImageName(parts[0], parts[1], parts[2], place[1] or "", int(place[2] or 0))


def parse_mask(name: str) -> tuple[str, str, int] | None:
    """Image stem, class id and instance of a mask's file name; None where it has not the form of the published set."""
    stem, separator, last = name.removesuffix(".png").rpartition(SEPARATOR)
    found = _INSTANCE.fullmatch(last)
    if not name.endswith(".png") or not separator or found is None or parse_image(f"{stem}.png") is None:
        return None
    return stem, found[1], int(found[2])
