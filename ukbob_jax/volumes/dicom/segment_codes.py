"""How DICOM calls a structure: SNOMED CT's concept where pydicom's dictionary has the same structure, else our own code."""

from typing import NamedTuple

from ukbob_jax import anatomy
from ukbob_jax.volumes.dicom.library import library

SCHEME = "99UKBOB"  # coding scheme of structures without a concept: private schemes begin with 99
SIDES = {"_left": "Left", "_right": "Right"}
_ORGANS = "Organ"  # category of `anatomy.GROUPS`' organs; of all others, "AnatomicalStructure"

# our name without its side -> keyword in `pydicom.sr.codedict.codes.SCT`
CONCEPTS = {
    "spleen": "Spleen",
    "kidney": "Kidney",
    "gallbladder": "Gallbladder",
    "liver": "Liver",
    "stomach": "Stomach",
    "pancreas": "Pancreas",
    "adrenal_gland": "AdrenalGland",
    "lung_upper_lobe": "UpperLobeOfLung",
    "lung_lower_lobe": "LowerLobeOfLung",
    "lung_middle_lobe": "MiddleLobeOfRightLung",
    "esophagus": "Esophagus",
    "trachea": "Trachea",
    "thyroid_gland": "Thyroid",
    "duodenum": "Duodenum",
    "urinary_bladder": "Bladder",
    "prostate": "Prostate",
    "sacrum": "Sacrum",
    "heart": "Heart",
    "aorta": "Aorta",
    "pulmonary_vein": "PulmonaryVein",
    "brachiocephalic_trunk": "BrachiocephalicTrunk",
    "subclavian_artery": "SubclavianArtery",
    "common_carotid_artery": "CommonCarotidArtery",
    "brachiocephalic_vein": "BrachiocephalicVein",
    "superior_vena_cava": "SuperiorVenaCava",
    "inferior_vena_cava": "InferiorVenaCava",
    "iliac_artery": "IliacArtery",
    "iliac_vena": "IliacVein",
    "humerus": "Humerus",
    "scapula": "Scapula",
    "clavicula": "Clavicle",
    "femur": "Femur",
    "spinal_cord": "SpinalCord",
    "sternum": "Sternum",
    "costal_cartilages": "CostalCartilage",
    "muscle": "Muscle",
}


class Coded(NamedTuple):
    """A structure in codes, each (value, scheme, meaning).

    Attributes:
        category: of the structure.
        kind: the structure itself, without its side.
        side: left or right; None: neither, or within `kind`.
    """

    category: tuple[str, str, str]
    kind: tuple[str, str, str]
    side: tuple[str, str, str] | None


def coded(label: int, name: str) -> Coded:
    """The codes of a structure.

    Args:
        label: its id, part of the code of a structure that has no concept.
        name: as in `anatomy`; other names get a code of `SCHEME`.
    Raises:
        ConfigError: pydicom is not installed.
    """
    library()
    from pydicom.sr.codedict import codes

    def concept(keyword: str) -> tuple[str, str, str]:
        found = getattr(codes.SCT, keyword)
        return found.value, found.scheme_designator, found.meaning

    ending = next((ending for ending in SIDES if name.endswith(ending)), "")
    keyword = CONCEPTS.get(name.removesuffix(ending))
    organ = anatomy.IDS.get(name) in anatomy.GROUPS["organs"]
    category = concept(_ORGANS if organ else "AnatomicalStructure")
    if keyword is None:
        return Coded(category, (f"label-{label}", SCHEME, name[:64] or str(label)), None)
    side = concept(SIDES[ending]) if ending and "Right" not in keyword else None
    return Coded(category, concept(keyword), side)
