"""How training went: loss and validation Dice over the steps, of one run or of several side by side."""

import pathlib

from ukbob_jax import files
from ukbob_jax.evaluation import charts
from ukbob_jax.evaluation.report import Picture, Section, Table

LOSS, DICE = "train/loss", "val/dice"


def section(runs: dict[str, pathlib.Path]) -> Section:
    """Show curves and last numbers; `runs` maps a title to a workdir."""
    logs = {title: files.read_jsonl(folder / "metrics.jsonl") for title, folder in runs.items()}
    panels = [
        ("training loss", {title: series(rows, LOSS) for title, rows in logs.items()}),
        ("validation Dice", {title: series(rows, DICE) for title, rows in logs.items()}),
    ]
    cells = [(title, *last(rows, LOSS), *last(rows, DICE)[1:]) for title, rows in logs.items()]
    return Section(
        "Training",
        "The same network, data, order of samples and number of steps; only the treatment of flagged labels differs."
        if len(runs) > 1
        else "Loss on training crops, and mean Dice on whole validation scans.",
        tables=[Table(("run", "steps", "last loss", "last validation Dice"), cells)],
        pictures=[
            Picture("curves", charts.curves(panels), "Loss should fall and Dice rise, and both level off.")
        ],
    )


def series(rows: list[dict], name: str) -> tuple[list[int], list[float]]:
    """Return steps and values of one number, where it was written."""
    known = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in known], [value for _, value in known]


def last(rows: list[dict], name: str) -> tuple[int, float | None]:
    """Return step and value of the last one."""
    steps, values = series(rows, name)
    return (steps[-1], values[-1]) if steps else (0, None)
