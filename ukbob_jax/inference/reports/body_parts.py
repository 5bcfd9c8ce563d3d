"""Structures that cannot be in a scan because the part of the body they lie in is not there.

Each part of the body is recognised by large organs that hardly any network confuses. Where none of a part's organs
reaches a fraction of its usual volume, the part is outside the field of view, and labels of it are false positives: a
heart in a scan of the pelvis.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ukbob_jax import anatomy

PRESENT = 0.15  # fraction of an organ's usual volume that shows its part of the body to be in the scan; ours

# part of the body: organs that show it is there -> usual volume of an adult, mL; rounded, ours
ANCHORS: dict[str, dict[str, float]] = {
    "neck": {"thyroid_gland": 15, "scapula_left": 80, "scapula_right": 80, "clavicula_left": 30, "clavicula_right": 30},
    "chest": {
        "heart": 600, "lung_upper_lobe_left": 900, "lung_lower_lobe_left": 800,
        "lung_upper_lobe_right": 800, "lung_lower_lobe_right": 900, "sternum": 60,
    },
    "abdomen": {"liver": 1500, "spleen": 200, "kidney_left": 150, "kidney_right": 150, "stomach": 300},
    "pelvis": {
        "hip_left": 350, "hip_right": 350, "sacrum": 200, "gluteus_maximus_left": 800, "gluteus_maximus_right": 800,
    },
    "thigh": {"femur_left": 400, "femur_right": 400},
}  # fmt: skip

# structure -> parts it lies in; a structure without an entry runs through the body, or is tissue
_PLACES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("thyroid_gland", "clavicula_left", "clavicula_right"), ("neck", "chest")),
    **dict.fromkeys(("humerus_left", "humerus_right", "scapula_left", "scapula_right"), ("neck", "chest")),
    **dict.fromkeys(
        ("brachiocephalic_trunk", "brachiocephalic_vein_left", "brachiocephalic_vein_right", "trachea"),
        ("neck", "chest"),
    ),
    **dict.fromkeys(
        tuple(f"{a}_artery_{side}" for a in ("subclavian", "common_carotid") for side in ("left", "right")),
        ("neck", "chest"),
    ),
    **dict.fromkeys(
        ("heart", "atrial_appendage_left", "pulmonary_vein", "superior_vena_cava", "sternum"),
        ("chest",),
    ),
    **dict.fromkeys(tuple(name for name in anatomy.IDS if name.startswith("lung_")), ("chest",)),
    **dict.fromkeys(("esophagus", "costal_cartilages"), ("neck", "chest", "abdomen")),
    **dict.fromkeys(
        (
            "liver", "spleen", "kidney_left", "kidney_right", "stomach", "pancreas", "gallbladder", "duodenum",
            "adrenal_gland_left", "adrenal_gland_right", "portal_vein_and_splenic_vein",
        ),
        ("abdomen",),
    ),
    **dict.fromkeys(("intestine", "iliopsoas_left", "iliopsoas_right"), ("abdomen", "pelvis")),
    **dict.fromkeys(
        tuple(f"iliac_{kind}_{side}" for kind in ("artery", "vena") for side in ("left", "right")),
        ("abdomen", "pelvis"),
    ),
    **dict.fromkeys(("urinary_bladder", "prostate", "sacrum", "hip_left", "hip_right"), ("pelvis",)),
    **dict.fromkeys(
        tuple(f"gluteus_{size}_{side}" for size in ("maximus", "medius", "minimus") for side in ("left", "right")),
        ("pelvis",),
    ),
    **dict.fromkeys(("femur_left", "femur_right"), ("pelvis", "thigh")),
}  # fmt: skip


class FieldOfView(NamedTuple):
    """The parts of the body in a scan, and its label map without structures of other parts."""

    labels: np.ndarray  # x y z, uint8
    present: tuple[str, ...]  # parts of the body
    removed: dict[str, int]  # structure -> voxels that became background


def remove_out_of_view(
    labels: np.ndarray, voxel_ml: float, names: Mapping[int, str], sex: str = ""
) -> FieldOfView:
    """Set structures whose part of the body is not in the scan to background.

    Where no part is recognised at all, nothing is removed: the scan shows too little to judge by.

    Args:
        labels: `x y z`.
        voxel_ml: volume of a voxel.
        names: class -> name, spelled as in `anatomy`; classes with other names are left alone.
        sex: "F" also removes the prostate.
    """
    voxels = np.bincount(labels.ravel(), minlength=256)
    ml = {name: voxels[i] * voxel_ml for i, name in names.items()}
    present = tuple(
        part
        for part, anchors in ANCHORS.items()
        if any(ml.get(name, 0) >= PRESENT * usual for name, usual in anchors.items())
    )
    wrong = {
        i
        for i, name in names.items()
        if present and name in _PLACES and not set(_PLACES[name]) & set(present)
    }
    if sex == "F":
        wrong |= {i for i, name in names.items() if anatomy.IDS.get(name) in anatomy.MALE_ONLY}
    lookup = np.arange(256, dtype=labels.dtype)
    lookup[sorted(wrong)] = 0
    removed = {names[i]: int(voxels[i]) for i in sorted(wrong) if voxels[i]}
    return FieldOfView(lookup[labels] if removed else labels, present, removed)
