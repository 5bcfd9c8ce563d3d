"""Label tables of public models, and the check of a model folder's dataset.json against them.

Sources: README and `VibeSeg/vibeseg.py` (VIBESegmentator, TPTBox), `map_to_binary.py` (TotalSegmentator).
"""

import os
import pathlib
from collections.abc import Mapping

from ukbob_jax import anatomy
from ukbob_jax.errors import MismatchError
from ukbob_jax.volumes import dataset_json

# Our name of a class -> other names that its makers give it; VIBESegmentator's 20 is unused on MR, the ribs on CT.
_OTHER_NAMES = {
    "ribs": ("rib", "unused", "unused/rib_(ct_only)"),
    "hip_left": ("pelvis_left",),
    "hip_right": ("pelvis_right",),
    "muscle": ("muscle_other",),
}


def part_of(label_set: str, first: int, last: int) -> dict[int, str]:
    """Id to name of a model that has a stretch of a label set, renumbered from 1; 0 is the background.

    Args:
        label_set: a key of `anatomy.DATASETS`.
        first: id in the label set that is the model's 1.
        last: the model's highest, included.
    """
    names = anatomy.DATASETS[label_set]
    return {0: names[0], **{i - first + 1: names[i] for i in range(first, last + 1)}}


def check(folder: str | os.PathLike, expected: Mapping[int, str]) -> None:
    """Refuse a model folder whose dataset.json names other classes than expected.

    Names are compared without regard to case, blanks and hyphens; a class that is named by its number alone ("5")
    is known by the number.

    Args:
        folder: with dataset.json.
        expected: id to name, background included.

    Raises:
        MismatchError: names the first difference.
        FileError: there is no dataset.json, or it cannot be read.
    """
    dataset = dataset_json.read(pathlib.Path(folder) / dataset_json.NAME)
    where = pathlib.Path(folder) / dataset_json.NAME
    if dataset.regions is not None:
        raise MismatchError(
            f"{where}: its labels are regions, not the classes of this preset. Choose its model."
        )
    for i in sorted({*dataset.labels, *expected}):
        found, wanted = dataset.labels.get(i), expected.get(i)
        if found is None or wanted is None or not _same(found, wanted, i):
            raise MismatchError(
                f"{where}: label {i} is {_said(found)}, but {_said(wanted)} in this preset's model. Give the folder "
                "of that model."
            )


def ours(name: str) -> str | None:
    """Our name of a class that a model folder names; None: it is no structure of `anatomy`.

    Case, blanks and hyphens do not count. A name of the ribs is none: on MR its id is unused.
    """
    return next((known for known in anatomy.IDS if _plain(name) in _spellings(known)), None)


def _same(found: str, wanted: str, number: int) -> bool:
    return _plain(found) in (*_spellings(wanted), str(number))


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _spellings(name: str) -> tuple[str, ...]:
    return (name.lower(), *_OTHER_NAMES.get(name, ()))


def _said(name: str | None) -> str:
    return "missing" if name is None else repr(name)
