"""Can a scan be what its header says, and is it like those a network was trained on?

| what | told by check, inspect and ingest | refused by `segment` and `predict`, unless unusual scans are accepted |
|---|---|---|
| affine as a program leaves it that was given none: 1 mm, origin 0 | yes | where training has no such spacing |
| spacing along an axis, mm | in a set, see `sets.py` | more than `SPACING_FACTOR` below or above the range of training |
| width or depth of the field of view, x y | in a set | more than `EXTENT_FACTOR` times the largest of training |
| CT as HU + 1024, 0 to 1 or 0 to 255 | where the data says CT, or in a set of HU | where training held HU |

Crops pass: a smaller field of view is never refused, nor a longer one along z, which differs with how much of the
body is scanned. Where the training set is not known, nothing is refused. What is told of a set is in `sets.py`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.volumes import affine as affines
from ukbob_jax.volumes import intensity

SPACING_FACTOR = 3.0  # shifted scanners differ by up to 2; a lost header or cm for mm by more
EXTENT_FACTOR = 2.0  # people's widths differ by less
SAME_SPACING = 0.1  # of a mm: spacings this near to 1 mm agree with an identity affine
IDENTITY = "its affine is exactly the identity, as np.eye(4) leaves it: 1 mm voxels and an orientation that nobody measured"
DEFAULT = "its affine is a default, 1 mm voxels at origin 0, as a program leaves it that was given none"

CT_NAMES = ("ct", "cta", "cect", "ncct", "cbct")  # contrasts that hold HU
BODY = 500.0  # in HU + 1024 the body without lungs and air lies above it
WATER = (900.0, 1250.0)  # in HU + 1024 the middle of the body does: fat to contrast agent
LEAST_BODY = 0.05  # share of the voxels
SAMPLE = 2**18  # voxels that are looked at
SHOWN_IDS = 8  # in a message


def doubts(affine: np.ndarray, shape: Sequence[int] = ()) -> list[str]:
    """Return what is doubtful about an affine `4 4` by itself.

    Args:
        affine: of the file, or of the scan in RAS.
        shape: voxels x y z of the scan in RAS, where an axis may have been turned.
    """
    if np.array_equal(affine, np.eye(4)):
        return [IDENTITY]
    if not np.array_equal(np.abs(affine), np.eye(4)) and not _turned_default(affine, shape):
        return []
    return [DEFAULT]


def _turned_default(affine: np.ndarray, shape: Sequence[int]) -> bool:
    """Whether turning axes of 1 mm at origin 0 to RAS gave this affine: origins are 0, or minus the axis's length."""
    ends = np.array(shape[:3], np.float64) - 1
    if len(ends) != 3 or not np.array_equal(affine[:3, :3], np.eye(3)):
        return False
    return bool(((affine[:3, 3] == 0) | (affine[:3, 3] == -ends)).all())


def holds_hu(contrast: str, modality: str = "", units: str = "") -> bool:
    """Whether the data set, or the name of the contrast, says that a channel is CT in HU."""
    if modality or units:
        return modality == "CT" or units == "HU"
    return contrast.lower().replace("-", "_").replace(" ", "_").split("_")[0] in CT_NAMES


def hu_doubts(channel: np.ndarray) -> list[str]:
    """Return why a channel `x y z` of a CT does not hold HU; empty: it may."""
    step = max(1, int((channel.size / SAMPLE) ** (1 / 3)))
    seen = np.asarray(channel[::step, ::step, ::step], np.float64)
    low, high = seen.min(), seen.max()
    if low >= -1 and high <= 1:
        return [f"it is no CT in HU: its values lie within {low:.4g} and {high:.4g}, scaled"]
    if low < 0:
        return []
    if low == 0 and high == 255:
        return ["it is no CT in HU: its values lie within 0 and 255, as in 8-bit pictures"]
    body = seen[seen > BODY]
    if body.size >= LEAST_BODY * seen.size and WATER[0] <= np.median(body) <= WATER[1]:
        return [
            f"it looks like HU + 1024: no value is negative, and the middle of the body is {np.median(body):.4g}"
        ]
    return []


def value_doubts(image: np.ndarray, contrasts: Sequence[str], modality: str, units: str) -> list[str]:
    """Return what is doubtful about the values of a scan `x y z c` whose channels are said to be CT."""
    names = list(contrasts) or [str(channel) for channel in range(image.shape[-1])]
    chosen = [c for c, name in enumerate(names[: image.shape[-1]]) if holds_hu(name, modality, units)]
    return [told for c in chosen for told in hu_doubts(image[..., c])]


def holds_negative(statistics: Mapping[str, Sequence[float]], channel: int) -> bool:
    """Whether a channel reaches as far below 0 as HU do, see `intensity.normalize`."""
    return statistics["low"][channel] < intensity.FAT


def label_doubts(label: np.ndarray, name: str, named: Collection[int] = (), known: bool = False) -> list[str]:
    """Return what is doubtful about a label map: a mask whose value is no id, and ids that its data set does not name.

    Args:
        label: ids as they lie in the file, 0 and above, `x y z`.
        name: of the label set.
        named: ids that the data set's description names; empty: it names none.
        known: somebody has said which ids there are, as a table of them or `num_classes` does.
    """
    seen = np.zeros(int(label.max(initial=0)) + 1, bool)
    for plane in label:
        seen[plane] = True
    ids = [i for i in np.flatnonzero(seen).tolist() if i]
    if ids == [IGNORE]:
        return [
            f"label set {name!r} holds {IGNORE} alone, which means not annotated; a mask needs mask_value {IGNORE}"
        ]
    unnamed = [i for i in ids if i not in named and i != IGNORE]
    if named and unnamed:
        return [
            f"ids {_some(unnamed)} are in the label map, but the data set's description names only "
            f"{_some(sorted(named))}"
        ]
    if len(ids) == 1 and ids[0] > 1 and not (named or known):
        return [
            f"label set {name!r} holds {ids[0]} alone, which makes {ids[0]} classes; a mask needs mask_value {ids[0]}"
        ]
    return []


def _some(ids: Sequence[int]) -> str:
    more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
    return ", ".join(map(str, ids[:SHOWN_IDS])) + more


def describe_training(
    spacings_mm: np.ndarray, shapes: np.ndarray, lows: np.ndarray | None = None
) -> dict[str, list]:
    """Return what `compare` needs to know of the subjects a network was trained on, JSON values.

    Args:
        spacings_mm: `n 3`.
        shapes: `n 3`, voxels.
        lows: `n c`, the 0.5 percentile of each channel's non-zero voxels; None: not known.
    Returns:
        "spacing_mm" and "extent_mm" (of the field of view), each `2 3`: the smallest and largest, x y z; and "hu", for
        each channel whether most scans reach below 0 as HU do.
    """
    extents = spacings_mm * shapes
    return {
        "spacing_mm": [spacings_mm.min(0).tolist(), spacings_mm.max(0).tolist()],
        "extent_mm": [extents.min(0).tolist(), extents.max(0).tolist()],
        **({} if lows is None else {"hu": (np.median(lows, axis=0) < intensity.FAT).tolist()}),
    }


def compare(affine: np.ndarray, shape: Sequence[int], training: Mapping[str, Any]) -> list[str]:
    """Return why a scan is unlike those of training, in words; empty: it is not, or training is not known.

    Args:
        affine: `4 4`, in RAS.
        shape: voxels, x y z.
        training: as `describe_training`; entries may be missing.
    """
    spacing, found = affines.spacing(affine), []
    if "spacing_mm" in training:
        low, high = np.asarray(training["spacing_mm"], np.float64)
        if not ((low <= 1 + SAME_SPACING) & (high >= 1 - SAME_SPACING)).all():
            found += doubts(affine, shape)
        if ((spacing < low / SPACING_FACTOR) | (spacing > high * SPACING_FACTOR)).any():
            found.append(f"its voxels are {in_mm(spacing)}, those of training {in_mm(low)} to {in_mm(high)}")
    if "extent_mm" in training:
        extent, (_, high) = spacing * shape[:3], np.asarray(training["extent_mm"], np.float64)
        if (extent > high * EXTENT_FACTOR)[:2].any():
            found.append(f"it covers {in_mm(extent)}, the largest of training {in_mm(high)}")
    return found


def compare_values(image: np.ndarray, training: Mapping[str, Any], normalize: str) -> list[str]:
    """Return why the values of a scan are unlike those of training, in words; empty: they are not, or nobody knows.

    Args:
        image: `x y z c`.
        training: as `describe_training`; entries may be missing.
        normalize: of the network, see `intensity.normalize`; a window that begins below 0 is one of HU.
    """
    channels = range(image.shape[-1])
    hu = [is_hu_window(normalize)] * len(channels) if is_hu_window(normalize) else training.get("hu", [])
    return [told for c, known in zip(channels, hu) if known for told in hu_doubts(image[..., c])]


def is_hu_window(normalize: str) -> bool:
    """Whether a normalisation is a window of HU, one that begins below 0."""
    window = intensity.window(normalize)
    return window is not None and window[0] < 0


def in_mm(lengths: np.ndarray) -> str:
    """Three lengths for people."""
    return " x ".join(f"{length:.3g}" for length in lengths) + " mm"
