"""Scans unlike the others of their set are told once, with how many and which; what real sets have is not."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from ukbob_jax.volumes import plausibility, sets

HU = {"low": [-1000.0], "high": [400.0]}
STORED = {"low": [24.0], "high": [1424.0]}  # HU + 1024
MR = {"low": [3.0], "high": [420.0]}


@dataclasses.dataclass(frozen=True)
class Row:
    id: str
    spacing_mm: Sequence[float] = (2.0, 2.0, 3.0)
    shape: Sequence[int] = (100, 80, 60)
    contrasts: Sequence[str] = ("ct",)
    modality: str = ""
    intensity: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=lambda: HU)
    quality: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def scans(*odd: dict, alike: int = 4, **common) -> list[Row]:
    rows = [Row(f"s{n}", **common) for n in range(alike)]
    return rows + [Row(f"odd{n}", **{**common, **fields}) for n, fields in enumerate(odd)]


@pytest.mark.parametrize(
    "odd",
    [
        {"spacing_mm": (0.2, 0.2, 0.3)},  # cm
        {"spacing_mm": (2000.0, 2000.0, 3000.0)},  # micrometres
        {"spacing_mm": (2.0, 2.0, 0.3)},  # thickness lost: it covers a tenth
    ],
)
def test_voxels_far_from_the_median_are_told(odd):
    (told,) = sets.remarks(scans(odd))
    assert told.startswith("1 of 5 scans (odd0): voxels of ") and "median of the set is 2 x 2 x 3 mm" in told


def test_a_field_of_view_far_from_the_median_is_told():
    (told,) = sets.remarks(scans({"shape": (250, 80, 60)}))
    assert told == (
        "1 of 5 scans (odd0): covering 500 x 160 x 180 mm, the median of the set is 200 x 160 x 180 mm. "
        "Check the unit and the header."
    )


@pytest.mark.parametrize(
    "rows",
    [
        scans({"spacing_mm": (2.0, 2.0, 0.6), "shape": (100, 80, 300)}),  # thin slices
        scans({"shape": (100, 80, 600)}),  # more of the body
        scans({"spacing_mm": (4.0, 4.0, 6.0), "shape": (60, 50, 35)}),  # another scanner
        scans({"spacing_mm": (0.2, 0.2, 0.3)}, alike=1),  # two of which neither is the rule
        scans(*[{"spacing_mm": (s, s, s)} for s in (0.1, 20.0, 0.2, 9.0)], alike=2),  # a diverse set
    ],
)
def test_what_real_sets_have_is_not_told(rows):
    assert not sets.remarks(rows)


def test_modalities_under_one_name_are_told_once():
    rows = scans({"modality": "MR", "intensity": STORED}, {"modality": "MR"}, modality="CT")
    (told,) = sets.remarks(rows)
    assert told == (
        "contrast 'ct' mixes modalities: 4 CT (s0, s1, s2 and 1 more), 2 MR (odd0, odd1). Keep them apart."
    )
    assert not sets.remarks([*scans(modality="MR"), *scans(modality="CT", contrasts=("other",))])


def test_ct_without_its_rescale_among_ct_is_told():
    (told,) = sets.remarks(scans({"intensity": STORED}, {"intensity": {"low": [0.1], "high": [0.9]}}))
    assert told.startswith(
        "contrast 'ct': 4 scans hold negative values as HU do (s0, s1, s2 and 1 more), but 2 of 6"
    )
    (told,) = sets.remarks(scans(intensity=STORED), "window:-160:240")
    assert told.startswith("contrast 'ct': window:-160:240 is of HU, but 4 of 4 scans")
    assert not sets.remarks(scans({"intensity": {"low": [1.0], "high": [90.0]}}))  # a crop of soft tissue
    assert not sets.remarks(scans({"intensity": STORED}, intensity=MR))  # MR has no scale of its own
    assert not sets.remarks(scans({"intensity": {}}))  # rows of earlier versions


def test_doubts_of_single_scans_are_counted():
    doubt = {"doubts": [plausibility.IDENTITY]}
    (told,) = sets.remarks(scans({"quality": doubt}, {"quality": doubt}))
    assert told.startswith("2 of 6 scans (odd0, odd1): its affine is exactly the identity")
    assert not sets.unlike(scans({"quality": doubt}))
    millimetre = scans({"quality": doubt}, spacing_mm=(1.0, 1.0, 1.0))
    assert not sets.remarks(millimetre)  # the others say that 1 mm is right
    assert len(sets.remarks([dataclasses.replace(row, quality=doubt) for row in millimetre])) == 1


def test_a_set_of_nothing_says_nothing():
    assert sets.remarks([]) == [] and not np.any(sets.remarks(scans(alike=1)))
