"""What was found in a folder of scans, as one JSON for programs and one CSV for a spreadsheet."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ukbob_jax import files

COLUMNS: tuple[str, ...] = (
    "scan", "structure", "id", "voxels", "volume_ml", "mean_entropy", "mean_confidence", "fragments",
    "largest_share", "touches_border", "flagged", "outside",
)  # fmt: skip
_SCAN_FIELDS = (
    "shape",
    "spacing_mm",
    "orientation",
    "mean_entropy",
    "mean_confidence",
    "adaptation",
    "removed",
)


def write(
    folder: str | os.PathLike,
    reports: Mapping[str, Mapping[str, Any]],
    failures: Sequence[Mapping[str, Any]],
    programs: Sequence[str],
) -> None:
    """Write `summary.json` (per scan) and `summary.csv` (per scan and structure) into `folder`.

    Args:
        reports: scan -> its report, as `Prediction.report`.
        failures: rows of `failures.jsonl`.
        programs: the plans that were compiled for, as text.

    Raises:
        FileError: the folder cannot be written.
    """
    folder = pathlib.Path(folder)
    scans = {name: {f: report[f] for f in _SCAN_FIELDS if f in report} for name, report in reports.items()}
    value = {"scans": scans, "failed": [row["subject"] for row in failures], "programs": list(programs)}
    files.write_json(folder / "summary.json", value)
    files.write_csv(folder / "summary.csv", COLUMNS, rows(reports))


def rows(reports: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row per scan and structure; an absent structure has no entropy, confidence or verdict."""
    return [
        {
            "scan": scan,
            "structure": name,
            **{key: "" if value is None else value for key, value in found.items()},
            "outside": " ".join(found.get("outside", ())),
        }
        for scan, report in reports.items()
        for name, found in report["structures"].items()
    ]
