"""How a pre-training went: loss, what probes found in the encoder, and what the network rebuilds."""

import pathlib
import re

import numpy as np

from ukbob_jax import files
from ukbob_jax.evaluation import charts
from ukbob_jax.evaluation.pages.training import LOSS, last, series
from ukbob_jax.evaluation.report import Picture, Section, Table

PROBES = {"k nearest neighbours": "probe/knn", "linear": "probe/linear", "chance": "probe/chance"}
PICTURE = "rebuilt_{step:08d}"  # name of the file of a step, without .png
SHOWN = 4


def section(folder: pathlib.Path, method: str) -> Section:
    """Show curves, last numbers and pictures of the pre-training in the workdir `folder`.

    Raises:
        FileError: it has not begun.
    """
    rows = files.read_jsonl(folder / "metrics.jsonl")
    panels = [("loss", {method: series(rows, LOSS)})]
    cells = [("loss", *_ends(series(rows, LOSS)))]
    probes = {title: found for title, name in PROBES.items() if (found := series(rows, name))[0]}
    if probes:
        panels.append(("balanced accuracy of probes", probes))
        cells += [(title, *_ends(found)) for title, found in probes.items()]
    text = f"{method} on images alone, {last(rows, LOSS)[0]} steps."
    if probes:
        text += " Probes classify labelled voxels of held-out subjects by the encoder's maps, which learn from no label."
    return Section(
        "Pre-training",
        text,
        tables=[Table(("", "first step", "value", "last step", "value"), cells)],
        pictures=[
            Picture(
                "pretraining",
                charts.curves(panels),
                "Loss should fall, and probes rise above the untrained network.",
            ),
            *_pictures(folder / "report"),
        ],
    )


def _ends(found: tuple[list[int], list[float]]) -> tuple[int, float, int, float]:
    steps, values = found
    return (steps[0], values[0], steps[-1], values[-1]) if steps else (0, float("nan"), 0, float("nan"))


def _pictures(folder: pathlib.Path) -> list[Picture]:
    """The first, the last, and those between them at even distances."""
    found = sorted(
        path for path in folder.glob("rebuilt_*.png") if re.fullmatch(r"rebuilt_\d{8,}", path.stem)
    )
    chosen = np.unique(np.linspace(0, len(found) - 1, min(SHOWN, len(found))).round().astype(int))
    return [
        Picture(
            found[n].stem,
            found[n].read_bytes(),
            f"Step {int(found[n].stem.split('_')[1])}. Left to right: what the network saw, what it made of it, the truth. "
            "Middle slices: axial, coronal, sagittal.",
        )
        for n in chosen
    ]
