"""The 72-structure taxonomy of TotalVibeSegmentator, and its maps to other label sets.

Ids are those of all its whole-body models, from 80 and 85 to 87 up to 99 (sagittal) and the current 100: 0
background, 1 to 72 structures, 20 reserved: never used in MR, the ribs in CT (`vibesegmentator_ct`). Left and right do
NOT come in one order: kidneys, adrenals, subclavian and carotid arteries list the right side first, every other pair
the left side. Take ids from `IDS`, never count them.
"""

from typing import NamedTuple

import numpy as np

from ukbob_jax.errors import ConfigError

NUM_CLASSES = 73  # background and 72 structures: the channels of a network
IGNORE = 255  # voxels that take no part in any loss or metric
UNUSED = 20

# id (the position), name, group, colour of overlays
_CLASSES = (
    ("background", "none", "#000000"),  # 0
    ("spleen", "organs", "#8f4fb0"),  # 1
    ("kidney_right", "organs", "#3aa655"),  # 2
    ("kidney_left", "organs", "#74c96b"),  # 3
    ("gallbladder", "organs", "#2ad7f6"),  # 4
    ("liver", "organs", "#a0522d"),  # 5
    ("stomach", "organs", "#f4a261"),  # 6
    ("pancreas", "organs", "#312cf6"),  # 7
    ("adrenal_gland_right", "organs", "#56f933"),  # 8
    ("adrenal_gland_left", "organs", "#dd27e7"),  # 9
    ("lung_upper_lobe_left", "lungs", "#397baf"),  # 10
    ("lung_lower_lobe_left", "lungs", "#689b95"),  # 11
    ("lung_upper_lobe_right", "lungs", "#4ff5e2"),  # 12
    ("lung_middle_lobe_right", "lungs", "#9ac1e3"),  # 13
    ("lung_lower_lobe_right", "lungs", "#9aded9"),  # 14
    ("esophagus", "organs", "#ef3099"),  # 15
    ("trachea", "organs", "#955076"),  # 16
    ("thyroid_gland", "organs", "#889317"),  # 17
    ("intestine", "organs", "#e9c46a"),  # 18
    ("duodenum", "organs", "#271aa7"),  # 19
    ("unused", "none", "#404040"),  # 20
    ("urinary_bladder", "organs", "#f2f230"),  # 21
    ("prostate", "organs", "#f9759b"),  # 22
    ("sacrum", "spine", "#4ef77c"),  # 23
    ("heart", "organs", "#e0313f"),  # 24
    ("aorta", "vessels", "#ff5a36"),  # 25
    ("pulmonary_vein", "vessels", "#f677e2"),  # 26
    ("brachiocephalic_trunk", "vessels", "#a2044e"),  # 27
    ("subclavian_artery_right", "vessels", "#a466fe"),  # 28
    ("subclavian_artery_left", "vessels", "#0a3c81"),  # 29
    ("common_carotid_artery_right", "vessels", "#2198fb"),  # 30
    ("common_carotid_artery_left", "vessels", "#ab0791"),  # 31
    ("brachiocephalic_vein_left", "vessels", "#105afc"),  # 32
    ("brachiocephalic_vein_right", "vessels", "#aa04ff"),  # 33
    ("atrial_appendage_left", "organs", "#aef24f"),  # 34
    ("superior_vena_cava", "vessels", "#fa0c6b"),  # 35
    ("inferior_vena_cava", "vessels", "#2f5fd0"),  # 36
    ("portal_vein_and_splenic_vein", "vessels", "#8907af"),  # 37
    ("iliac_artery_left", "vessels", "#2d2588"),  # 38
    ("iliac_artery_right", "vessels", "#28bafe"),  # 39
    ("iliac_vena_left", "vessels", "#98071e"),  # 40
    ("iliac_vena_right", "vessels", "#831766"),  # 41
    ("humerus_left", "bones", "#baa796"),  # 42
    ("humerus_right", "bones", "#a87f54"),  # 43
    ("scapula_left", "bones", "#a4a76f"),  # 44
    ("scapula_right", "bones", "#f8e6d6"),  # 45
    ("clavicula_left", "bones", "#bdc55d"),  # 46
    ("clavicula_right", "bones", "#fafea6"),  # 47
    ("femur_left", "bones", "#e8c3a1"),  # 48
    ("femur_right", "bones", "#c5c59e"),  # 49
    ("hip_left", "bones", "#aa9d4d"),  # 50
    ("hip_right", "bones", "#ccc77d"),  # 51
    ("spinal_cord", "spine", "#fff27a"),  # 52
    ("gluteus_maximus_left", "muscles", "#67272c"),  # 53
    ("gluteus_maximus_right", "muscles", "#e6a1b5"),  # 54
    ("gluteus_medius_left", "muscles", "#8a6765"),  # 55
    ("gluteus_medius_right", "muscles", "#f09282"),  # 56
    ("gluteus_minimus_left", "muscles", "#de6542"),  # 57
    ("gluteus_minimus_right", "muscles", "#d83f60"),  # 58
    ("autochthon_left", "muscles", "#bc6c78"),  # 59
    ("autochthon_right", "muscles", "#99394f"),  # 60
    ("iliopsoas_left", "muscles", "#f26f72"),  # 61
    ("iliopsoas_right", "muscles", "#8e5242"),  # 62
    ("sternum", "bones", "#fcffd6"),  # 63
    ("costal_cartilages", "bones", "#c1a679"),  # 64
    ("subcutaneous_fat", "tissues", "#f0e2a8"),  # 65
    ("muscle", "tissues", "#b5524a"),  # 66
    ("inner_fat", "tissues", "#d9b26f"),  # 67
    ("IVD", "spine", "#348057"),  # 68
    ("vertebra_body", "spine", "#49f2b0"),  # 69
    ("vertebra_posterior_elements", "spine", "#abecb6"),  # 70
    ("spinal_channel", "spine", "#50bc9b"),  # 71
    ("bone_other", "bones", "#e9de7e"),  # 72
)

NAMES: dict[int, str] = {i: name for i, (name, _, _) in enumerate(_CLASSES)}
IDS: dict[str, int] = {name: i for i, name in NAMES.items()}
COLORS: np.ndarray = np.array([list(bytes.fromhex(color[1:])) for _, _, color in _CLASSES], np.uint8)  # k rgb
GROUPS: dict[str, tuple[int, ...]] = {
    group: tuple(i for i, row in enumerate(_CLASSES) if row[1] == group)
    for group in ("organs", "lungs", "vessels", "bones", "spine", "muscles", "tissues")
}

# 17 pairs (lower id first) that a mirror image swaps exactly
PAIRS: tuple[tuple[int, int], ...] = tuple(
    sorted(
        (min(i, IDS[mirrored]), max(i, IDS[mirrored]))
        for i, name in NAMES.items()
        if (mirrored := name.removesuffix("left") + "right") in IDS and not name.startswith("lung_")
    )
)
# The lobes correspond upper to upper and lower to lower, but the right middle lobe has no partner: never exact
LUNG_PAIRS: tuple[tuple[int, int], ...] = ((10, 12), (11, 14))
MALE_ONLY: tuple[int, ...] = (IDS["prostate"],)  # absent in women
# Structures that lie on one side, or are not symmetric: with these no left-right flip is anatomically valid
ONE_SIDED: tuple[int, ...] = tuple(
    IDS[name]
    for name in [
        "spleen",
        "gallbladder",
        "liver",
        "stomach",
        "pancreas",
        "lung_middle_lobe_right",
        "duodenum",
        "heart",
        "aorta",
        "brachiocephalic_trunk",
        "atrial_appendage_left",
        "superior_vena_cava",
        "inferior_vena_cava",
        "portal_vein_and_splenic_vein",
    ]
)


def _mirror() -> np.ndarray:
    lut = np.arange(256, dtype=np.uint8)
    for low, high in PAIRS:
        lut[[low, high]] = high, low
    return lut


# uint8[256], label -> label of the mirror image; identity outside PAIRS, lungs included
MIRROR: np.ndarray = _mirror()


# -- other label sets, spelled with our names wherever a class is the same structure ------------------------------

_VERTEBRAE = tuple(
    f"vertebrae_{level}"
    for level in [f"L{i}" for i in range(5, 0, -1)]
    + [f"T{i}" for i in range(12, 0, -1)]
    + [f"C{i}" for i in range(7, 0, -1)]
)
_RIBS = tuple(f"rib_{side}_{i}" for side in ("left", "right") for i in range(1, 13))


def _from(first: str, last: str) -> tuple[str, ...]:
    """Our names from one id to another, both included."""
    return tuple(NAMES[i] for i in range(IDS[first], IDS[last] + 1))


_OTHER_CLASSES: dict[str, tuple[str, ...]] = {
    "btcv": (  # Synapse "Beyond the Cranial Vault" abdomen, 13 organs
        *_from("spleen", "gallbladder"),
        *("esophagus", "liver", "stomach", "aorta"),
        *("inferior_vena_cava", "portal_vein_and_splenic_vein", "pancreas"),
        *_from("adrenal_gland_right", "adrenal_gland_left"),
    ),
    "amos": (  # AMOS22, 15 organs
        *_from("spleen", "gallbladder"),
        *("esophagus", "liver", "stomach", "aorta", "inferior_vena_cava", "pancreas"),
        *_from("adrenal_gland_right", "adrenal_gland_left"),
        *("duodenum", "urinary_bladder", "prostate_or_uterus"),
    ),
    "totalsegmentator_ct": (  # TotalSegmentator v2, task "total", 117 classes
        *_from("spleen", "thyroid_gland"),
        *("small_bowel", "duodenum", "colon", "urinary_bladder", "prostate"),
        *("kidney_cyst_left", "kidney_cyst_right", "sacrum", "vertebrae_S1", *_VERTEBRAE),
        *_from("heart", "spinal_cord"),
        *_from("gluteus_maximus_left", "iliopsoas_right"),
        *("brain", "skull", *_RIBS),
        *_from("sternum", "costal_cartilages"),
    ),
    "totalsegmentator_mr": (  # TotalSegmentator v2, task "total_mr", 50 classes
        *_from("spleen", "adrenal_gland_left"),
        *("lung_left", "lung_right", "esophagus", "small_bowel", "duodenum", "colon"),
        *("urinary_bladder", "prostate", "sacrum", "vertebrae", "intervertebral_discs", "spinal_cord"),
        *("heart", "aorta", "inferior_vena_cava", "portal_vein_and_splenic_vein"),
        *_from("iliac_artery_left", "hip_right"),
        *_from("gluteus_maximus_left", "iliopsoas_right"),
        "brain",
    ),
    "vibesegmentator_ct": (  # its model 100 on CT: ours, and 20 for the ribs
        *_from("spleen", NAMES[UNUSED - 1]),
        "ribs",
        *_from(NAMES[UNUSED + 1], "bone_other"),
    ),
}
DATASETS: dict[str, dict[int, str]] = {
    dataset: {0: "background", **dict(enumerate(names, start=1))} for dataset, names in _OTHER_CLASSES.items()
}

# Structures cut differently: (our classes) and (their classes) that together are the same tissue
_REGROUPED: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "btcv": {},
    "amos": {"prostate_or_uterus": (("prostate",), ("prostate_or_uterus",))},
    "totalsegmentator_ct": {
        "intestine": (("intestine",), ("small_bowel", "colon")),
        "vertebrae": (("vertebra_body", "vertebra_posterior_elements"), _VERTEBRAE),
        "sacrum": (("sacrum",), ("sacrum", "vertebrae_S1")),
        "kidney_right": (("kidney_right",), ("kidney_right", "kidney_cyst_right")),
        "kidney_left": (("kidney_left",), ("kidney_left", "kidney_cyst_left")),
        "bone_other": (("bone_other",), _RIBS),
    },
    "totalsegmentator_mr": {
        "intestine": (("intestine",), ("small_bowel", "colon")),
        "vertebrae": (("vertebra_body", "vertebra_posterior_elements"), ("vertebrae",)),
        "IVD": (("IVD",), ("intervertebral_discs",)),
        "lung_left": (_from("lung_upper_lobe_left", "lung_lower_lobe_left"), ("lung_left",)),
        "lung_right": (_from("lung_upper_lobe_right", "lung_lower_lobe_right"), ("lung_right",)),
    },
    "vibesegmentator_ct": {"bone_other": (("bone_other",), ("ribs", "bone_other"))},
}
# Their class is wider than ours, so it cannot be read back: AMOS labels the uterus of women under the same id
_WIDER = {("amos", "prostate_or_uterus")}


class LabelMap(NamedTuple):
    """How the ids of one label set read in another. Every source id is in exactly one of the lists.

    A voxel of an `ambiguous` id is some structure of the target, but which one is unknown: it becomes `IGNORE`.
    A voxel of an `unmapped` id is nothing the target names: it becomes background.
    """

    lut: np.ndarray  # uint8[256]; ids outside the source are IGNORE
    mapped: dict[int, int]  # source id -> target id, background left out
    merged: dict[int, tuple[int, ...]]  # target id -> the source ids that become one there
    ambiguous: tuple[int, ...]  # source ids whose counterpart is several target ids
    unmapped: tuple[int, ...]  # source ids without a counterpart
    unreached: tuple[int, ...]  # target ids that no source id becomes


class CommonClasses(NamedTuple):
    """The finest classes that both label sets can express: where they can be compared."""

    names: tuple[str, ...]  # k, background first
    ours: np.ndarray  # uint8[256], our id -> common class
    theirs: np.ndarray  # uint8[256], their id -> common class
    left_out_ours: tuple[int, ...]  # ids that become background
    left_out_theirs: tuple[int, ...]


def _ids(dataset: str) -> dict[str, int]:
    if dataset not in DATASETS:
        raise ConfigError(f"label set {dataset!r} is not known; choose one of {', '.join(DATASETS)}.")
    return {name: i for i, name in DATASETS[dataset].items()}


def _rows(dataset: str) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Common class -> (our ids, their ids), in the order of our ids."""
    theirs = _ids(dataset)
    regrouped = _REGROUPED[dataset]
    taken = {name for ours, _ in regrouped.values() for name in ours}
    rows = {name: ((name,), (name,)) for name in IDS if name in theirs and name not in taken}
    rows = {**rows, **regrouped}
    del rows["background"]
    by_id = {name: (tuple(IDS[n] for n in a), tuple(theirs[n] for n in b)) for name, (a, b) in rows.items()}
    return dict(sorted(by_id.items(), key=lambda row: row[1][0]))


def _finish(
    mapped: dict[int, int], ambiguous: list[int], source: dict[int, str], target: dict[int, str]
) -> LabelMap:
    lut = np.full(256, IGNORE, np.uint8)
    lut[list(source)] = 0
    lut[ambiguous] = IGNORE
    lut[list(mapped)] = list(mapped.values())
    reached = sorted(set(mapped.values()))
    sources = {t: tuple(s for s in mapped if mapped[s] == t) for t in reached}
    return LabelMap(
        lut=lut,
        mapped=mapped,
        merged={t: ids for t, ids in sources.items() if len(ids) > 1},
        ambiguous=tuple(sorted(ambiguous)),
        unmapped=tuple(i for i in source if i and i not in mapped and i not in ambiguous),
        unreached=tuple(i for i in target if i and i not in reached),
    )


def to_dataset(dataset: str) -> LabelMap:
    """Map from our ids to those of `dataset`, a key of `DATASETS`.

    Raises:
        ConfigError: the label set is not known.
    """
    theirs = _ids(dataset)
    mapped, ambiguous = {}, []
    for our_ids, their_ids in _rows(dataset).values():
        for i in our_ids:
            if len(their_ids) == 1:
                mapped[i] = their_ids[0]
            elif NAMES[i] in theirs:  # the whole organ takes the name; its parts (cysts, S1) stay empty
                mapped[i] = theirs[NAMES[i]]
            else:
                ambiguous.append(i)
    ours = {i: name for i, name in NAMES.items() if i != UNUSED}
    return _finish(mapped, ambiguous, ours, DATASETS[dataset])


def from_dataset(dataset: str) -> LabelMap:
    """Map from the ids of `dataset`, a key of `DATASETS`, to ours.

    Raises:
        ConfigError: the label set is not known.
    """
    mapped, ambiguous = {}, []
    for name, (our_ids, their_ids) in _rows(dataset).items():
        if len(our_ids) == 1 and (dataset, name) not in _WIDER:
            mapped.update(dict.fromkeys(their_ids, our_ids[0]))
        else:
            ambiguous.extend(their_ids)
    ours = {i: name for i, name in NAMES.items() if i != UNUSED}
    return _finish(mapped, ambiguous, DATASETS[dataset], ours)


def common_classes(dataset: str) -> CommonClasses:
    """Classes on which our labels and those of `dataset` can be compared, e.g. whole lungs or whole vertebrae.

    AMOS's `prostate_or_uterus` can only be compared in men. `IGNORE` stays `IGNORE` in both tables.

    Raises:
        ConfigError: the label set is not known.
    """
    rows = _rows(dataset)
    tables = np.zeros((2, 256), np.uint8)  # ours and theirs, id
    tables[:, IGNORE] = IGNORE
    for k, sides in enumerate(rows.values(), start=1):
        for table, ids in zip(tables, sides):
            table[list(ids)] = k
    ours, theirs = tables
    return CommonClasses(
        names=("background", *rows),
        ours=ours,
        theirs=theirs,
        left_out_ours=tuple(i for i in NAMES if i not in (0, UNUSED) and ours[i] == 0),
        left_out_theirs=tuple(i for i in DATASETS[dataset] if i and theirs[i] == 0),
    )


# -- brain tumours: nested regions, nothing in common with the body's structures ----------------------------------

# Region -> label values. BraTS: 1 necrotic core, 2 oedema, enhancing tumour 4 until 2020 and 3 since 2023.
# 2024 after treatment: 4 is the resection cavity (RC), no part of the tumour. 2024 children (arXiv 2404.15009): 1
# enhancing, 2 non-enhancing, 3 cystic component (CC), 4 oedema. 2024 meningioma before radiotherapy: 1 gross volume.
# The Medical Segmentation Decathlon renumbered them: 1 oedema, 2 non-enhancing core, 3 enhancing tumour.
BRATS_REGIONS: dict[str, dict[str, tuple[int, ...]]] = {
    "brats": {"WT": (1, 2, 3, 4), "TC": (1, 3, 4), "ET": (3, 4)},
    "brats2024": {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,), "RC": (4,)},
    "brats_ped": {"WT": (1, 2, 3, 4), "TC": (1, 2, 3), "ET": (1,), "CC": (3,)},
    "brats_men_rt": {"GTV": (1,)},
    "decathlon": {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)},
}


def to_names(names: dict[int, str]) -> np.ndarray:
    """Lookup, uint8[256], from our ids to a network's classes of the same names; organs it has not become background.

    Args:
        names: class of the network -> name, as in `NAMES`.
    """
    lookup = np.zeros(256, np.uint8)
    lookup[IGNORE] = IGNORE
    for label, name in names.items():
        lookup[IDS.get(name, 0)] = label if name in IDS else 0
    return lookup
