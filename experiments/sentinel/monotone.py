"""Does a grade fall as a mask is eroded or dilated further? The external check of Quality Sentinel, on held-out scans.

    python -m experiments.sentinel.monotone --store STORE --label manual --grader runs/grader --output DIR

Every organ of the held-out scans is eroded and dilated by 0, 1, 2, ... voxels and graded by itself: dilated organs overlap.
Writes monotone.json and monotone.png: mean grade and mean true Dice per step, over the organs of which something is left
at every step, and the share of organs (means over scans) whose grades fall with each step.
"""

import argparse
import pathlib
import sys
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from ukbob_jax import devices, files, progress, sentinel
from ukbob_jax.evaluation import figures
from ukbob_jax.sentinel import degradation
from ukbob_jax.store.reader import Store

WAYS = ("erosion", "dilation")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=pathlib.Path, required=True)
    parser.add_argument("--label", required=True)
    parser.add_argument("--grader", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--scans", type=int, default=12, help="at most")
    parser.add_argument("--steps", type=int, default=3, help="voxels")
    options = parser.parse_args(argv)
    devices.use_compile_cache()
    grader = sentinel.load(options.grader)
    store = Store.open(options.store)
    subjects = [name for name, row in store.rows.items() if row.split == options.split][: options.scans]
    rows = [row for name in progress.track(subjects, "scans") for row in graded(grader, store, name, options)]
    result = {way: summary([row for row in rows if row["way"] == way], options.steps) for way in WAYS}
    files.write_json(options.output / "monotone.json", {"scans": len(subjects), **result})
    files.write_bytes(options.output / "monotone.png", draw(result))
    for way, found in result.items():
        print(
            f"{way}: grades {said(found['grade'])}, Dice {said(found['dice'])}, {found['falling']:.0%} of organs fall"
        )


def said(values: list[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def graded(grader: sentinel.TrainedGrader, store: Store, subject: str, options: Any) -> list[dict[str, Any]]:
    """A row per organ, way and step: grade and true Dice; organs that vanish at some step are left out."""
    row = store.rows[subject]
    [channel] = row.channel_indices((grader.contrast,))
    image, labels = store.read(subject, "image")[..., channel], store.read(subject, f"label/{options.label}")
    found = []
    for organ in store.present(subject, options.label):
        truth = labels == organ
        for way in WAYS:
            masks = [changed(truth, way, step) for step in range(options.steps + 1)]
            if not all(mask.any() for mask in masks):
                continue
            for step, mask in enumerate(masks):
                grade = grader.grade(image, mask.astype(np.uint8) * organ, row.spacing_mm).dice[organ]
                dice = degradation.dice(mask, truth)
                found.append({"organ": organ, "way": way, "step": step, "grade": float(grade), "dice": dice})
    return found


def changed(mask: np.ndarray, way: str, step: int) -> np.ndarray:
    """A mask eroded or dilated by so many voxels along the axes."""
    if not step:
        return mask
    change = ndimage.binary_erosion if way == "erosion" else ndimage.binary_dilation
    return change(mask, iterations=step)


def summary(rows: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    """Means over all rows of a step, and how many organs' own means fall with each step."""
    organs = sorted({row["organ"] for row in rows})
    means = {
        key: np.array(
            [
                [
                    np.mean([r[key] for r in rows if r["organ"] == o and r["step"] == s])
                    for s in range(steps + 1)
                ]
                for o in organs
            ]
        )
        for key in ("grade", "dice")
    }
    falling = np.all(np.diff(means["grade"], axis=1) < 0, axis=1)
    return {key: value.mean(0).tolist() for key, value in means.items()} | {
        "organs": len(organs), "falling": float(falling.mean())
    }  # fmt: skip


def draw(result: dict[str, Any]) -> bytes:
    """A PNG: grade and true Dice over steps."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    for axes, (way, found) in zip(figure.subplots(1, len(result), sharey=True), result.items()):
        axes.plot(found["grade"], "o-", label="grade")
        axes.plot(found["dice"], "o--", color="0.5", label="true Dice")
        axes.set(xlabel=f"{way}, voxels", ylim=(0, 1), xticks=range(len(found["grade"])))
    figure.axes[0].set_ylabel("mean over organs")
    figure.axes[0].legend(frameon=False)
    return figures.render(figure)


if __name__ == "__main__":
    main(sys.argv[1:])
