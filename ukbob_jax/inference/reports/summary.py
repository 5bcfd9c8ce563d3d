"""The report on a predicted label map, as JSON values."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax.files import json_number
from ukbob_jax.inference.adaptation.etta import AdaptResult
from ukbob_jax.inference.windows.slabs import Segmentation
from ukbob_jax.quality import components
from ukbob_jax.volumes.volume import Volume

MOST_MOVED = 10  # structures listed in the report of an adaptation


class Certainty(NamedTuple):
    """How sure a network was of each class, summed over the voxels that it gave it; float64."""

    voxels: np.ndarray  # k
    entropy: np.ndarray  # k, nats
    confidence: np.ndarray  # k


def certainty(segmentation: Segmentation, classes: int) -> Certainty:
    """The sums of `classes` classes, on the network's grid; plane by plane, since each is summed in float64."""
    sums = np.zeros((3, classes))
    for labels, *parts in zip(*map(np.asarray, segmentation)):
        flat = labels.ravel()
        sums += [
            np.bincount(flat, minlength=classes),
            *(np.bincount(flat, p.ravel(), classes) for p in parts),
        ]
    return Certainty(*sums)


def describe(
    labels: Volume, segmentation: Segmentation | Certainty, names: Mapping[int, str]
) -> dict[str, Any]:
    """Size, certainty and completeness of every structure.

    Args:
        labels: in the scan's own space; volumes and border contact are measured here.
        segmentation: on the network's grid, where entropy and confidence are; numpy arrays. Or its sums.
        names: id to name, with 0 the background.

    Returns:
        `shape`, `spacing_mm`, `orientation`, `mean_entropy` (nats) and `mean_confidence` over all voxels, and
        `structures`: name -> `id`, `voxels`, `volume_ml`, `mean_entropy` and `mean_confidence` over its voxels (None
        where there are none), `touches_border`: a voxel of it lies on a face of the volume, so that it may go on,
        `fragments`: connected pieces, `largest_share`: of its voxels, in the largest piece (None where absent).
    """
    k = max(names) + 1
    voxels = np.bincount(labels.array.ravel(), minlength=k)
    border = np.zeros(k, bool)
    for axis in range(3):
        for face in (0, -1):
            border[np.unique(labels.array.take(face, axis=axis))] = True
    sums = segmentation if isinstance(segmentation, Certainty) else certainty(segmentation, k)
    counts, total = sums.voxels, max(float(sums.voxels.sum()), 1.0)
    means = [part / np.maximum(counts, 1) for part in (sums.entropy, sums.confidence)]
    pieces = components.count(labels.array, k)
    voxel_ml = abs(np.linalg.det(labels.affine[:3, :3])) / 1000
    return {
        "shape": list(labels.shape),
        "spacing_mm": [round(s, 6) for s in labels.spacing_mm],
        "orientation": labels.orientation,
        "mean_entropy": float(sums.entropy.sum()) / total,
        "mean_confidence": float(sums.confidence.sum()) / total,
        "structures": {
            name: {
                "id": label,
                "voxels": int(voxels[label]),
                "volume_ml": float(voxels[label] * voxel_ml),
                "mean_entropy": float(means[0][label]) if counts[label] else None,
                "mean_confidence": float(means[1][label]) if counts[label] else None,
                "touches_border": bool(border[label]),
                "fragments": int(pieces.count[label]),
                "largest_share": float(pieces.largest_voxels[label] / voxels[label])
                if voxels[label]
                else None,
            }
            for label, name in sorted(names.items())
            if label != 0
        },
    }


def add(report: dict[str, Any], judged: Mapping[str, Mapping[str, Any]]) -> None:
    """Put the verdicts on structures, by name, into their entries of a report."""
    for name, verdict in judged.items():
        report["structures"][name] |= verdict


def adaptations(results: Sequence[AdaptResult | None], method: str, names: Mapping[int, str]) -> Any:
    """Report on `method`: None where nothing was adapted; a list with one entry per network where there are several."""
    entries = [{"method": method, **adaptation(result, names)} for result in results if result is not None]
    return None if not entries else entries[0] if len(entries) == 1 else entries


def adaptation(result: AdaptResult, names: Mapping[int, str]) -> dict[str, Any]:
    """Report on one network's adaptation: entropies (nats), the decision, and the classes whose fraction moved most.

    Numbers that are not finite become None, which JSON can hold.
    """
    change = result.class_fractions_after - result.class_fractions_before
    grades = {
        name: json_number(value)
        for name in ("grade_before", "grade_after")
        if (value := getattr(result, name)) is not None
    }
    moved = [int(c) for c in np.argsort(-np.abs(change), kind="stable")[:MOST_MOVED] if change[c] != 0]
    return {
        "accepted": result.accepted,
        "reason": result.reason,
        "entropy_before": json_number(result.entropy_before),
        "entropy_after": json_number(result.entropy_after),
        "entropies": [json_number(entropy) for entropy in result.entropies],
        "drift": json_number(result.drift),
        **grades,
        "skipped_steps": result.skipped,
        "parameters": len(result.selected),
        "share_change": {names.get(c, str(c)): float(change[c]) for c in moved},
    }
