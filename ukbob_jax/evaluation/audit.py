"""The page on which a person looks at flagged labels and decides: one self-contained file, no network needed."""

import base64
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from ukbob_jax import anatomy, files
from ukbob_jax.evaluation import report
from ukbob_jax.quality.limits import Limits
from ukbob_jax.quality.measures import FEATURES, OrganMeasures
from ukbob_jax.quality.solf import features
from ukbob_jax.volumes.slices import rescale_intensity, slice_for_display

BINS = 36
HEIGHT = 132  # pixels of a picture
_ROOM_MM = 45.0  # around an organ, so that its surroundings are seen
_OPACITY = 0.42
_GAP = 3  # pixels between planes


class AuditCase(NamedTuple):
    """A label that is shown: flagged, or decided about."""

    subject: str
    organ: int
    version: str  # of the label map
    group: int  # stratum, index into the limits' groups
    sex: str
    site: str
    values: tuple[float | None, float | None, float | None]  # of the three features
    outside: tuple[int, ...]  # features, by index
    outlier_score: float  # second largest of the three robust z-scores
    seam: float  # fraction of voxels at a seam of stations
    decision: str = ""
    picture: str = ""  # data URI
    grade: float | None = None  # predicted Dice; None: not graded
    grade_low: float | None = None
    grade_high: float | None = None
    grade_reason: str = ""  # why there is no prediction
    flagged_by: str = "solf"  # or "sentinel", "both", "none"


class Representative(NamedTuple):
    """The label of an organ that is nearest its medians, to compare with."""

    subject: str
    picture: str


def write(
    path: pathlib.Path,
    *,
    title: str,
    label: str,
    names: Mapping[int, str],
    limits: Limits,
    measures: OrganMeasures,
    flagged: np.ndarray,
    cases: Sequence[AuditCase],
    unlisted: int,
    representatives: Mapping[int, Representative],
    grades: Mapping[str, Any] | None = None,
) -> None:
    """Write the page.

    Args:
        label: name of the label set.
        names: of its structures, by organ id.
        measures: fields (n, num_classes), of the whole cohort.
        flagged: bool (n, num_classes).
        cases: largest outlier score first.
        unlisted: how many more flagged labels are not among them.
        representatives: by organ id; organs whose labels are all flagged have none.
        grades: "organs" and "groups" as of `grade_groups`, and the number of "worst" labels to show first; None: the
            label set was not graded.
    Raises:
        FileError: the folder cannot be written.
    """
    data = {
        "label": label,
        "key": f"{title}/{label}/{limits.provenance.get('label_maps', '')}",
        "subjects": len(flagged),
        "rule": limits.rule,
        "groups": list(limits.groups),
        "features": list(FEATURES),
        "organs": organs(names, limits, measures, flagged),
        "cases": [case._asdict() for case in cases],
        "unlisted": unlisted,
        "grades": grades,
        "representatives": {organ: shown._asdict() for organ, shown in representatives.items()},
    }
    files.write_bytes(path, report.render("audit.html", title=title, data=data).encode())


def organs(
    names: Mapping[int, str], limits: Limits, measures: OrganMeasures, flagged: np.ndarray
) -> list[dict[str, Any]]:
    """Describe each organ of the cohort: counts, and each measure's histogram with its limits."""
    values, present = features(measures), np.asarray(measures.voxels) > 0
    found = []
    for organ in np.flatnonzero(present[:, 1:].any(0)) + 1:
        own = values[present[:, organ], organ]
        found.append(
            {
                "id": int(organ),
                "name": names.get(int(organ), f"class_{organ}"),
                "color": "#" + bytes(anatomy.COLORS[organ].tolist()).hex(),
                "count": len(own),
                "flagged": int(flagged[:, organ].sum()),
                "features": [
                    histogram(own[:, i], limits.low[:, organ, i], limits.high[:, organ, i])
                    for i in range(len(FEATURES))
                ],
            }
        )
    return found


def histogram(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    """Count values in equal bins that also hold the limits; infinite limits are null, undefined values left out."""
    values = values[np.isfinite(values)]
    ends = np.concatenate([values, low[np.isfinite(low)], high[np.isfinite(high)]])
    first, last = (float(ends.min()), float(ends.max())) if ends.size else (0.0, 1.0)
    room = 0.04 * (last - first) or 0.5
    counts, edges = np.histogram(values, BINS, (first - room, last + room))
    return {
        "from": float(edges[0]),
        "to": float(edges[-1]),
        "bins": counts.tolist(),
        "low": [float(v) if np.isfinite(v) else None for v in low],
        "high": [float(v) if np.isfinite(v) else None for v in high],
    }


def field_of_view(extent_mm: np.ndarray, representative_mm: np.ndarray) -> np.ndarray:
    """Return how much of the body to show around a label, mm along x y z.

    All of the label is shown, and never less than of the representative one.

    Args:
        extent_mm: 3, box of the label.
        representative_mm: 3, box of its organ's representative label.
    """
    return np.maximum(extent_mm, representative_mm) + 2 * _ROOM_MM


def window(
    first: np.ndarray, last: np.ndarray, fov_mm: np.ndarray, spacing_mm: np.ndarray, shape: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return start and size, in voxels, of the part of a volume to show around a label's box."""
    size = np.minimum(np.round(fov_mm / spacing_mm).astype(int), shape)
    start = np.clip(np.round((first + last + 1 - size) / 2).astype(int), 0, np.array(shape) - size)
    return tuple(start.tolist()), tuple(size.tolist())


def picture(image: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float], color: np.ndarray) -> str:
    """Draw the axial, coronal and sagittal slice where each shows most of the organ, as a data URI.

    Args:
        image: `x y z`, a part of the scan.
        mask: bool `x y z`, the label in it.
        color: rgb, uint8.
    """
    grey = rescale_intensity(image.astype(np.float32))
    panels = []
    for plane, axes in (("axial", (0, 1)), ("coronal", (0, 2)), ("sagittal", (1, 2))):
        index = int(mask.sum(axes).argmax())
        panels.append(
            _panel(
                slice_for_display(grey, plane, index),
                slice_for_display(mask, plane, index),
                [spacing_mm[a] for a in axes],
                color,
            )
        )
    gap = np.full((HEIGHT, _GAP, 3), 255, np.uint8)
    row = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
    buffer = io.BytesIO()
    Image.fromarray(row).save(buffer, "JPEG", quality=78)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _panel(grey: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float], color: np.ndarray) -> np.ndarray:
    """Draw one slice at `HEIGHT` pixels with the organ tinted: `h w 3` uint8; voxels keep their shape in mm."""
    across, up = spacing_mm
    width = max(8, round(HEIGHT * grey.shape[1] * across / (grey.shape[0] * up)))
    size = (min(width, 3 * HEIGHT), HEIGHT)
    base = np.asarray(
        Image.fromarray(np.round(255 * grey).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    )
    inside = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0
    shown = np.repeat(base[..., None], 3, axis=-1).astype(np.float32)
    shown[inside] = (1 - _OPACITY) * shown[inside] + _OPACITY * color.astype(np.float32)
    rim = inside & np.logical_not(ndimage.binary_erosion(inside))
    shown[rim] = color
    return np.round(shown).astype(np.uint8)
