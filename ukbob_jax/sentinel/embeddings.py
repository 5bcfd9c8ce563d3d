"""What a grader knows of an organ beside its mask: one vector per class, from a file, a number, or the taxonomy.

A grader is called with vectors, so any of these will do, and several can stand side by side (`join`). Vectors that the
grader learns are a field of the networks (`learned_classes`); such a grader knows no class that it was not trained on. The
taxonomy's and the measured ones are known for organs never seen in training as well.
"""

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.errors import FileError, MismatchError, ValuesError
from ukbob_jax.quality.measures import OrganMeasures

SUFFIXES = (".npy", ".npz")


class Embeddings(NamedTuple):
    """Vectors by class.

    Attributes:
        vectors: k e, float32; NaN in the rows of classes that have none.
        source: where they are from, for messages.
    """

    vectors: np.ndarray
    source: str = "the embeddings"

    @property
    def known(self) -> np.ndarray:
        """Classes that have one, k, bool."""
        return np.asarray(np.isfinite(self.vectors).all(-1))

    def of(self, classes: Iterable[int]) -> np.ndarray:
        """The vectors of some classes, n e, float32.

        Raises:
            MismatchError: names every class without one.
        """
        wanted = np.array(list(classes), np.int64)
        inside = (wanted >= 0) & (wanted < len(self.vectors))
        known = inside & self.known[np.where(inside, wanted, 0)]
        if not known.all():
            lacking = ", ".join(
                f"{c} ({anatomy.NAMES.get(c, '?')})" for c in np.unique(wanted[~known]).tolist()
            )
            raise MismatchError(
                f"{self.source}: no embedding of class {lacking}. Give these vectors too, or leave the classes out."
            )
        return self.vectors[wanted]


def load(path: str | os.PathLike, num_classes: int = anatomy.NUM_CLASSES) -> Embeddings:
    """Given vectors, such as CLIP's of the organs' names.

    Args:
        path: `.npy` with an array k e, row c for class c; or `.npz` with an array (e,) or (1, e) per class, called by its
            number, or by its name in the taxonomy.
        num_classes: k; rows beyond the file's have none.
    Raises:
        FileError: missing, damaged, another format, or a name that is no class.
        ValuesError: arrays of different lengths.
    """
    path = pathlib.Path(path)
    if path.suffix not in SUFFIXES:
        raise FileError(
            f"{path}: embeddings are read from {' or '.join(SUFFIXES)}. Convert the file with NumPy."
        )
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            found = dict(content) if path.suffix == ".npz" else dict(enumerate(content))
    except FileNotFoundError:
        raise FileError(f"{path}: no such file.") from None
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        raise FileError(f"{path}: damaged, or no file of NumPy arrays ({error}). Save it again.") from None
    return _from_rows(
        {_class_of(name, path): np.asarray(v) for name, v in found.items()}, num_classes, str(path)
    )


def _class_of(name: str | int, path: pathlib.Path) -> int:
    if str(name).isdigit():
        return int(name)
    if name not in anatomy.IDS:
        raise FileError(f"{path}: {name!r} is no class number and no name of the taxonomy. Rename the array.")
    return anatomy.IDS[str(name)]


def _from_rows(rows: Mapping[int, np.ndarray], num_classes: int, source: str) -> Embeddings:
    shapes = {np.size(row) for row in rows.values()}
    if len(shapes) != 1 or 0 in shapes:
        raise ValuesError(f"{source}: vectors of {sorted(shapes)} numbers; all must be of one length.")
    vectors = np.full((num_classes, shapes.pop()), np.nan, np.float32)
    for label, row in rows.items():
        if label < num_classes:
            vectors[label] = np.asarray(row, np.float32).reshape(-1)
    return Embeddings(vectors, source)


def one_hot(num_classes: int = anatomy.NUM_CLASSES) -> Embeddings:
    """A unit vector per class, k k; background has none."""
    vectors = np.eye(num_classes, dtype=np.float32)
    vectors[0] = np.nan
    return Embeddings(vectors, "one-hot embeddings")


def join(*parts: Embeddings) -> Embeddings:
    """Several side by side, k e1+e2+...; a class has a vector where all have one.

    Raises:
        MismatchError: different numbers of classes.
    """
    if len({len(part.vectors) for part in parts}) != 1:
        counts = ", ".join(f"{part.source}: {len(part.vectors)}" for part in parts)
        raise MismatchError(
            f"embeddings of different numbers of classes ({counts}); load them with one num_classes."
        )
    return Embeddings(np.concatenate([p.vectors for p in parts], -1), " + ".join(p.source for p in parts))


# Where a structure lies and how it looks in an adult, as coordinates that like organs share; nothing is measured by them.
# height: 0 mid-thigh to 1 chin; lateral: 0 midline to 1 flank; front: -1 back to 1 front; log10 of mL; tube: 0 lump to 1
# long and thin; sheet: 0 to 1 thin and wide; parts: 0 one piece to 1 many.
_FEATURES = ("height", "lateral", "front", "log_ml", "tube", "sheet", "parts")
_PLACES: dict[str, tuple[float, ...]] = {
    "spleen": (0.62, 0.6, -0.4, 2.3, 0.1, 0.0, 0.0),
    "kidney": (0.55, 0.4, -0.5, 2.2, 0.2, 0.0, 0.0),
    "gallbladder": (0.56, 0.3, 0.4, 1.5, 0.3, 0.0, 0.0),
    "liver": (0.62, 0.4, 0.2, 3.2, 0.0, 0.0, 0.0),
    "stomach": (0.61, 0.3, 0.4, 2.4, 0.2, 0.0, 0.0),
    "pancreas": (0.56, 0.1, 0.1, 1.9, 0.5, 0.0, 0.0),
    "adrenal_gland": (0.60, 0.2, -0.3, 0.6, 0.3, 0.3, 0.0),
    "lung_upper_lobe": (0.83, 0.5, 0.1, 3.0, 0.0, 0.0, 0.0),
    "lung_lower_lobe": (0.74, 0.5, -0.4, 3.0, 0.0, 0.0, 0.0),
    "lung_middle_lobe": (0.74, 0.4, 0.5, 2.6, 0.0, 0.1, 0.0),
    "esophagus": (0.78, 0.0, -0.2, 1.5, 0.9, 0.0, 0.0),
    "trachea": (0.88, 0.0, 0.0, 1.6, 0.8, 0.0, 0.0),
    "thyroid_gland": (0.96, 0.1, 0.3, 1.2, 0.2, 0.0, 0.3),
    "intestine": (0.45, 0.3, 0.4, 3.0, 0.6, 0.0, 0.3),
    "duodenum": (0.54, 0.2, 0.1, 1.8, 0.6, 0.0, 0.0),
    "urinary_bladder": (0.25, 0.0, 0.4, 2.3, 0.0, 0.0, 0.0),
    "prostate": (0.21, 0.0, 0.2, 1.5, 0.0, 0.0, 0.0),
    "sacrum": (0.31, 0.1, -0.6, 2.3, 0.1, 0.2, 0.0),
    "heart": (0.74, 0.1, 0.4, 2.8, 0.0, 0.0, 0.0),
    "aorta": (0.66, 0.0, -0.3, 2.3, 0.9, 0.0, 0.0),
    "pulmonary_vein": (0.76, 0.2, -0.1, 1.5, 0.5, 0.0, 0.5),
    "brachiocephalic_trunk": (0.88, 0.1, 0.3, 0.9, 0.7, 0.0, 0.0),
    "subclavian_artery": (0.90, 0.4, 0.0, 1.1, 0.9, 0.0, 0.0),
    "common_carotid_artery": (0.95, 0.2, 0.1, 0.9, 1.0, 0.0, 0.0),
    "brachiocephalic_vein": (0.88, 0.2, 0.4, 1.2, 0.8, 0.0, 0.0),
    "atrial_appendage": (0.77, 0.2, 0.3, 0.9, 0.2, 0.0, 0.0),
    "superior_vena_cava": (0.82, 0.1, 0.2, 1.3, 0.7, 0.0, 0.0),
    "inferior_vena_cava": (0.56, 0.1, -0.2, 1.9, 0.9, 0.0, 0.0),
    "portal_vein_and_splenic_vein": (0.58, 0.1, 0.1, 1.5, 0.9, 0.0, 0.0),
    "iliac_artery": (0.33, 0.2, 0.0, 1.3, 1.0, 0.0, 0.0),
    "iliac_vena": (0.32, 0.2, -0.1, 1.5, 0.9, 0.0, 0.0),
    "humerus": (0.84, 1.0, -0.1, 2.2, 0.8, 0.0, 0.0),
    "scapula": (0.86, 0.8, -0.8, 2.1, 0.0, 0.9, 0.0),
    "clavicula": (0.93, 0.5, 0.4, 1.5, 0.9, 0.0, 0.0),
    "femur": (0.12, 0.5, 0.0, 2.6, 0.8, 0.0, 0.0),
    "hip": (0.28, 0.5, 0.0, 2.6, 0.0, 0.6, 0.0),
    "spinal_cord": (0.70, 0.0, -0.6, 1.7, 1.0, 0.0, 0.0),
    "gluteus_maximus": (0.23, 0.5, -0.8, 2.9, 0.0, 0.4, 0.0),
    "gluteus_medius": (0.29, 0.7, -0.4, 2.5, 0.0, 0.5, 0.0),
    "gluteus_minimus": (0.27, 0.7, -0.2, 1.9, 0.0, 0.5, 0.0),
    "autochthon": (0.60, 0.2, -0.8, 2.8, 0.8, 0.0, 0.0),
    "iliopsoas": (0.38, 0.3, -0.1, 2.6, 0.7, 0.0, 0.0),
    "sternum": (0.80, 0.0, 0.9, 1.8, 0.5, 0.5, 0.0),
    "costal_cartilages": (0.70, 0.4, 0.8, 2.1, 0.6, 0.3, 0.8),
    "subcutaneous_fat": (0.45, 0.9, 0.0, 4.2, 0.0, 1.0, 0.5),
    "muscle": (0.50, 0.7, -0.2, 4.0, 0.0, 0.7, 0.7),
    "inner_fat": (0.48, 0.4, 0.2, 3.6, 0.0, 0.3, 0.8),
    "IVD": (0.60, 0.0, -0.4, 2.1, 0.0, 0.7, 1.0),
    "vertebra_body": (0.60, 0.0, -0.4, 2.6, 0.2, 0.0, 1.0),
    "vertebra_posterior_elements": (0.60, 0.1, -0.7, 2.4, 0.3, 0.3, 1.0),
    "spinal_channel": (0.60, 0.0, -0.6, 2.0, 1.0, 0.0, 0.0),
    "bone_other": (0.75, 0.6, -0.1, 2.6, 0.8, 0.1, 1.0),
}
_SPREAD = np.array(
    [0.25, 0.3, 0.45, 0.8, 0.4, 0.3, 0.35], np.float32
)  # about the deviations of the columns above


def taxonomy() -> Embeddings:
    """Group, side, place and form of the 72 structures, k 17: like organs have like vectors, also those never seen.

    Columns: the seven groups (0 or 1), left, right, paired (0 or 1), then place, size and form from a table of rough adult
    values, divided by their spread. Background and the unused class have none.
    """
    rows = {}
    for label, name in anatomy.NAMES.items():
        base = name.removesuffix("_left").removesuffix("_right")
        if base not in _PLACES:
            continue
        groups = [float(label in members) for members in anatomy.GROUPS.values()]
        paired = float(any(label in pair for pair in (*anatomy.PAIRS, *anatomy.LUNG_PAIRS)))
        sides = [float(name.endswith("_left")), float(name.endswith("_right")), paired]
        centred = (np.array(_PLACES[base], np.float32) - [0.6, 0.3, 0, 2, 0.3, 0.2, 0.2]) / _SPREAD
        rows[label] = np.array([*groups, *sides, *centred], np.float32)
    return _from_rows(rows, anatomy.NUM_CLASSES, "the taxonomy's embeddings")


def measured(measures: OrganMeasures, lowest: int = 3) -> Embeddings:
    """Typical place and form of each class in a cohort, k 7, whichever its label set: what SOLF measures, as medians.

    Columns: centre x, y, z from the mean of the subject's organs, logarithm of the volume, sphericity, eccentricity, and
    the share of subjects in which it touches the border; each less its mean over classes, divided by its deviation.

    Args:
        measures: stacked over subjects, n k, of labels that are right for the most part.
        lowest: subjects; classes that fewer have get no vector.
    """
    voxels = np.asarray(measures.voxels)
    seen = voxels > 0
    seen[:, 0] = False
    centres = np.where(seen[..., None], np.asarray(measures.centroid_mm, np.float64), np.nan)
    centres = centres - np.nanmean(centres, 1, keepdims=True)
    columns = [
        *np.moveaxis(centres, -1, 0),
        np.log(np.maximum(np.asarray(measures.volume_mm3, np.float64), 1e-3)),
        np.asarray(measures.sphericity, np.float64),
        np.asarray(measures.eccentricity, np.float64),
        np.asarray(measures.touches_border, np.float64),
    ]
    enough = seen.sum(0) >= lowest
    rows = {}
    for label in np.flatnonzero(enough):
        values = [column[seen[:, label], label] for column in columns]
        middle = [np.median(v[np.isfinite(v)]) if np.isfinite(v).any() else 0.0 for v in values[:-1]]
        rows[int(label)] = np.array([*middle, values[-1].mean()])
    if not rows:
        raise ValuesError(f"measures: no class is in {lowest} subjects or more; give more subjects.")
    table = np.stack(list(rows.values()))
    spread = np.maximum(table.std(0), 1e-6)
    scaled = {label: (row - table.mean(0)) / spread for label, row in rows.items()}
    return _from_rows(scaled, voxels.shape[1], "the measured embeddings")
