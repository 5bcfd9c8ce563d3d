"""The tables of an evaluation: which organs they have, what is told of a scan, and how they are written."""

import pathlib
from typing import Any

from ukbob_jax import anatomy, files
from ukbob_jax.errors import ConfigError
from ukbob_jax.evaluation import failures


def scored_organs(names: tuple[str, ...], known: dict[int, str], regions: bool = False) -> dict[int, str]:
    """Ids and names to score: `names`, or all of the network's but the background (regions have none).

    Raises:
        ConfigError: a name the network does not know.
    """
    ids = {name: organ for organ, name in known.items()}
    missing = [name for name in names if name not in ids]
    if missing:
        raise ConfigError(f"config.organs: {missing[0]!r} is not among the network's labels.")
    return {
        ids[name]: name
        for name in names or ids
        if (ids[name] != 0 or regions) and name != anatomy.NAMES[anatomy.UNUSED]
    }


def outcome(report: dict[str, Any]) -> dict[str, Any]:
    """The entries of a report that go into the row of a scan."""
    kept = {"mean_entropy": report["mean_entropy"], "accepted": None, "reason": None}
    if report["adaptation"]:
        names = ("accepted", "reason", "entropy_before", "entropy_after", "drift")
        grades = [name for name in ("grade_before", "grade_after") if name in report["adaptation"]]
        kept |= {name: report["adaptation"][name] for name in (*names, *grades)}
    return kept


def collect(
    folder: pathlib.Path, name: str, scores: dict[str, dict], diagonals: dict[str, float]
) -> list[dict[str, Any]]:
    """Write the rows of all subjects as two tables, and return those of organs.

    Args:
        folder: of the tables.
        name: of the test set.
        scores: subject -> method -> `organs`, and entries about the scan.
        diagonals: of the subjects' fields of view, mm, for scores of older versions.
    """
    organs, scans = [], []
    for subject, of_methods in scores.items():
        for method, result in of_methods.items():
            same = {"subject": subject, "method": method}
            organs += [
                {**same, "organ": organ, **failures.completed(values, diagonals[subject])}
                for organ, values in result["organs"].items()
            ]
            scans.append({**same, **{field: value for field, value in result.items() if field != "organs"}})
    files.write_jsonl(folder / f"{name}.jsonl", organs)
    files.write_jsonl(folder / f"{name}.scans.jsonl", scans)
    return organs
