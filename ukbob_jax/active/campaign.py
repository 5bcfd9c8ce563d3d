"""The record of a simulated annotation campaign: what was labelled in each round, what it cost and what it reached."""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax import files
from ukbob_jax.active import budget
from ukbob_jax.active.patches import Unit
from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import ConfigError
from ukbob_jax.evaluation import charts
from ukbob_jax.store.reader import Store

ROUNDS = "active.jsonl"  # a row per strategy, seed and round
SUMMARY = "active.summary.json"
TABLE = "active.csv"
CURVES = "active.png"
SETTINGS = "active.settings.json"
FOREGROUND = "foreground.json"
# What decides the numbers of a campaign, and of it what may change between runs: more of the same, and how data are read.
SECTIONS = (
    *("active", "semi", "label", "organs", "data", "model", "init", "init_new", "loss", "balance", "augment"),
    *("optimizer", "train", "epochs", "evaluate", "solf"),
)
FREE = (
    *("active.strategies", "active.seeds", "active.rounds", "active.full", "semi.methods", "semi.seeds"),
    *("data.threads", "data.workers", "data.cache_gb", "train.log_every", "train.checkpoint_every"),
)

Rows = list[dict[str, Any]]


def check_settings(workdir: pathlib.Path, config: Any, train: Sequence[str]) -> None:
    """Refuse to go on in a workdir by another recipe than it was begun with; what is in `FREE` may change.

    Args:
        workdir: of the campaign.
        config: the recipe; its sections `SECTIONS` count.
        train: subjects to choose from.
    Raises:
        ConfigError: naming the first field that differs.
    """
    said = json.loads(json.dumps(config.to_dict(), default=str))
    kept = {name: value for name, value in _flat(said) if name.split(".")[0] in SECTIONS and name not in FREE}
    kept["splits"] = f"{len(train)} subjects, {files.fingerprint(list(train))}"
    path = workdir / SETTINGS
    if not path.exists():
        files.write_json(path, kept)
        return
    before = files.read_json(path)
    for name, value in kept.items():
        if before.get(name) != value:
            raise ConfigError(
                f"config.{name}: {value!r}, but {workdir} was begun with {before.get(name)!r}. Choose another --workdir."
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every field."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def read(workdir: pathlib.Path) -> tuple[Rows, dict[int, float]]:
    """What `write` has written: rows, and seed -> Dice of a training on all labels; empty: nothing yet."""
    rows, summary = workdir / ROUNDS, workdir / SUMMARY
    full = files.read_json(summary)["full"] if summary.exists() else {}
    return files.read_jsonl(rows) if rows.exists() else [], {int(seed): dice for seed, dice in full.items()}


def foreground(workdir: pathlib.Path, store: Store, subjects: Sequence[str], label: str) -> dict[str, int]:
    """Number of voxels of structures in each scan; kept in the workdir by version of the labels."""
    path = workdir / FOREGROUND
    known = files.read_json(path) if path.exists() else {}
    keys = {subject: store.rows[subject].folders[f"label/{label}"] for subject in subjects}
    for subject in subjects:
        if known.get(subject, {}).get("key") != keys[subject]:
            known[subject] = {"key": keys[subject], "voxels": count(store.read(subject, f"label/{label}"))}
    files.write_json(path, known)
    return {subject: known[subject]["voxels"] for subject in subjects}


def count(label: np.ndarray) -> int:
    """Number of voxels of structures."""
    return int(np.count_nonzero((label != 0) & (label != IGNORE)))


def cost(store: Store, label: str, units: Sequence[Unit], total: Mapping[str, int]) -> dict[str, Any]:
    """What units cost: their number, scans with any, voxels, and the share of the pool's foreground and voxels.

    Args:
        store: of the scans.
        label: that answers.
        units: that are labelled; where they overlap voxels count once.
        total: foreground voxels of each scan of the pool.
    """
    voxels = seen = 0
    for subject in dict.fromkeys(unit.subject for unit in units):
        known = np.zeros(store.rows[subject].shape, bool)
        for unit in units:
            if unit.subject == subject:
                known[unit.box] = True
        voxels += int(known.sum())
        seen += count(np.where(known, store.read(subject, f"label/{label}"), 0))
    whole = sum(int(np.prod(store.rows[subject].shape)) for subject in total)
    return {
        "units": len(units),
        "scans": len({unit.subject for unit in units}),
        "voxels": voxels,
        "voxel_share": voxels / whole,
        "foreground_share": seen / max(sum(total.values()), 1),
    }


def curve(rows: Rows, strategy: str, seed: int) -> Rows:
    """The rounds of one strategy and seed, in order."""
    own = [row for row in rows if row["strategy"] == strategy and row["seed"] == seed]
    return sorted(own, key=lambda row: row["round"])


def summarise(rows: Rows, full: Mapping[int, float]) -> dict[str, Any]:
    """Compare the strategies.

    Args:
        rows: of all rounds; those without a Dice end their curve.
        full: seed -> Dice of a training on all labels; without it the highest Dice of any round stands for it.
    Returns:
        "strategies": name -> per seed the areas under the budget curve (mean Dice over annotated voxels) and foreground
        efficiencies, their means, and Dice by round; "pairs": one beside the other, see `budget.compare`.
    """
    found: dict[str, Any] = {"strategies": {}, "pairs": [], "full": {str(s): d for s, d in full.items()}}
    best = max((row["dice"] for row in rows if row["dice"] is not None), default=0.0)
    scores: dict[str, dict[int, list[float]]] = {}
    for strategy in dict.fromkeys(row["strategy"] for row in rows):
        of: dict[str, Any] = {"area": {}, "foreground_efficiency": {}, "dice": {}}
        for seed in sorted({row["seed"] for row in rows if row["strategy"] == strategy}):
            own = [row for row in curve(rows, strategy, seed) if row["dice"] is not None]
            if not own:
                continue
            dice = [row["dice"] for row in own]
            area = budget.area_under([row["voxels"] for row in own], dice)
            shares = [row["foreground_share"] for row in own]
            rate = budget.foreground_efficiency(shares, dice, full.get(seed, best))
            of["area"][str(seed)], of["dice"][str(seed)] = area, dice
            of["foreground_efficiency"][str(seed)] = files.json_number(rate)
            scores.setdefault(strategy, {})[seed] = [*dice, area]
        rates = [rate for rate in of["foreground_efficiency"].values() if rate is not None]
        of["mean_area"] = float(np.mean([*of["area"].values()])) if of["area"] else None
        of["mean_foreground_efficiency"] = float(np.mean(rates)) if rates else None
        found["strategies"][strategy] = of
    for first in scores:
        for second in scores:
            if first != second:
                compared = budget.compare(scores[first], scores[second])._asdict()
                numbers = {name: files.json_number(value) for name, value in compared.items()}
                found["pairs"].append({"first": first, "second": second, **numbers})
    return found


def write(workdir: pathlib.Path, rows: Rows, full: Mapping[int, float]) -> dict[str, Any]:
    """Write rows, summary, table and curves; return the summary."""
    files.write_jsonl(workdir / ROUNDS, rows)
    summary = summarise(rows, full)
    files.write_json(workdir / SUMMARY, summary)
    columns = (
        *("strategy", "seed", "round", "units", "scans", "voxels", "voxel_share", "foreground_share", "dice"),
    )
    files.write_csv(workdir / TABLE, columns, [{name: row[name] for name in columns} for row in rows])
    lines = {}
    for strategy in summary["strategies"]:
        seeds = sorted({row["seed"] for row in rows if row["strategy"] == strategy})
        curves = [[r for r in curve(rows, strategy, seed) if r["dice"] is not None] for seed in seeds]
        rounds = range(min(map(len, curves)))
        if rounds:
            x, y = (
                [float(np.mean([own[i][name] for own in curves])) for i in rounds]
                for name in ("voxels", "dice")
            )
            lines[strategy] = ([value / 1e6 for value in x], y)
    if lines:
        files.write_bytes(workdir / CURVES, charts.curves([("Dice", lines)], x="annotated voxels, millions"))
    return summary
