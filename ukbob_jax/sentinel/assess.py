"""How well a grader grades masks of held-out subjects: numbers, its interval, and a page."""

import functools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ukbob_jax import files
from ukbob_jax.errors import ConfigError
from ukbob_jax.evaluation import charts, report
from ukbob_jax.evaluation.report import Picture, Section, Table
from ukbob_jax.sentinel import scores, stream
from ukbob_jax.sentinel.intervals import conformal_width
from ukbob_jax.sentinel.options import SentinelOptions
from ukbob_jax.sentinel.stream import Masks, Pairs
from ukbob_jax.training import loop, sharding
from ukbob_jax.training.state import TrainState, split_pretext

CHUNK = 16  # rows at a time
PER_SCAN = 8  # masks of a held-out subject at least
ROWS = "sentinel_pairs.jsonl"
Predict = Callable[[Any, Masks], tuple[np.ndarray, np.ndarray]]


class Assessment(NamedTuple):
    """What an evaluation found.

    Attributes:
        numbers: see `scores.numbers`.
        interval: half width, of the even subjects' masks.
        covered: share of the odd subjects' masks within it.
        masks: that were graded.
        predicted: m, their grades.
        unseen: classes that were never trained on.
    """

    numbers: dict[str, float]
    interval: float
    covered: float
    masks: Masks
    predicted: np.ndarray
    unseen: tuple[int, ...]


def predictor(model: Any, vectors: np.ndarray, kind: str) -> Predict:
    """Return (variables, masks) -> grades and scores of the detector (NaN without one), m each, by one compiled program."""
    table = jnp.asarray(vectors)

    @jax.jit
    def apply(
        variables: Any, seen: jax.Array, classes: jax.Array, place: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        told = () if kind == "slices" else (place,)
        out = model.apply(variables, seen.astype(jnp.float32), table[classes], *told)
        return out if model.detection else (out, jnp.full(len(seen), jnp.nan))

    def predict(variables: Any, masks: Masks) -> tuple[np.ndarray, np.ndarray]:
        rows = []
        classes = masks.organ[masks.of]
        for start in range(0, len(masks.seen), CHUNK):
            part = slice(start, start + CHUNK)
            arrays = [masks.seen[part], classes[part], masks.place[part]]
            count = len(arrays[0])
            arrays = [np.pad(a, [(0, CHUNK - count), *[(0, 0)] * (a.ndim - 1)]) for a in arrays]
            rows.append(np.stack([np.asarray(out)[:count] for out in apply(variables, *arrays)]))
        values = np.concatenate(rows, -1)
        counts = np.bincount(masks.of)
        grades, repair = (np.bincount(masks.of, v) / counts for v in values)
        return grades, repair

    return predict


def numbers_of(
    found: tuple[np.ndarray, np.ndarray], masks: Masks, options: SentinelOptions, unseen: Sequence[int]
) -> dict[str, float]:
    """`scores.numbers` of the masks."""
    return scores.numbers(
        *found,
        masks.dice,
        masks.organ,
        masks.kind,
        unseen=unseen,
        threshold=options.threshold,
        recall=options.recall,
    )


def evaluator(
    predict: Predict, make: Callable[[], Masks], options: SentinelOptions, unseen: Sequence[int], mesh: Mesh
) -> loop.Evaluate:
    """Return state -> numbers of the masks that `make` gives; every process works them out by itself."""
    made = functools.cache(make)

    def evaluate(state: TrainState) -> loop.Evaluation:
        variables = {"params": split_pretext(state.inference_params)[0], **state.model_state}
        found = predict(sharding.local_copy(variables, mesh), made())
        numbers = {f"val/{name}": value for name, value in numbers_of(found, made(), options, unseen).items()}
        told = ", ".join(
            f"{name.removeprefix('val/')} {value:.3f}"
            for name, value in numbers.items()
            if name.count("/") == 1
        )
        if jax.process_index() == 0:
            print(f"sentinel_train: step {int(state.step)}: {told}", file=sys.stderr)
        return numbers, {}

    return evaluate


def check_ranking(name: str, unseen: Sequence[int]) -> None:
    """Refuse to rank checkpoints by a number that no evaluation is sure to give.

    Raises:
        ConfigError: naming those there are.
    """
    known = [
        f"val/{n}"
        for n in ("r", "mae", "roc_area", "precision", *(("r_unseen", "mae_unseen") if unseen else ()))
    ]
    if name not in known:
        raise ConfigError(f"config.train.best: no {name!r}; choose one of {', '.join(known)}.")


def assess(
    predict: Predict,
    variables: Any,
    parts: Sequence[tuple[Pairs, int]],
    subjects: Sequence[str],
    options: SentinelOptions,
    unseen: tuple[int, ...],
    calibrate: Callable[[np.ndarray], np.ndarray],
) -> Assessment:
    """Grade masks of held-out subjects, calibrated. The interval is of half of the subjects, its coverage of the others."""
    masks = stream.held_out(parts, subjects, PER_SCAN)
    said, repair = predict(variables, masks)
    found = calibrate(said), repair
    seen = ~np.isin(masks.organ, list(unseen))
    order = list(dict.fromkeys(masks.subject))
    turn = np.arange(len(masks.dice)) if len(order) < 2 else np.array([order.index(s) for s in masks.subject])
    first, second = seen & (turn % 2 == 0), seen & (turn % 2 == 1)
    width = conformal_width(found[0][first], masks.dice[first], options.coverage)
    within = np.abs(found[0] - masks.dice)[second] <= width
    covered = float(within.mean()) if len(within) else float("nan")
    return Assessment(numbers_of(found, masks, options, unseen), width, covered, masks, found[0], unseen)


def write(folder: pathlib.Path, found: Assessment, options: SentinelOptions, title: str) -> pathlib.Path:
    """Write the graded masks and the page into `folder`; return the page's path."""
    masks = found.masks
    columns = zip(
        masks.subject, masks.organ.tolist(), masks.kind, masks.dice.tolist(), found.predicted.tolist()
    )
    names = ("subject", "organ", "kind", "dice", "predicted")
    files.write_jsonl(folder / ROWS, (dict(zip(names, row)) for row in columns))
    return report.write(folder, "Quality Sentinel", title, [section(found, options)])


def section(found: Assessment, options: SentinelOptions) -> Section:
    """Numbers and scatter of an evaluation."""
    numbers, masks = found.numbers, found.masks
    seen = ~np.isin(masks.organ, list(found.unseen))
    panels = [("organs trained on", found.predicted[seen], masks.dice[seen], np.array(masks.kind)[seen])]
    rows: list[Sequence[str | float | None]] = [
        ("organs trained on", int(seen.sum()), numbers["r"], numbers["mae"])
    ]
    if found.unseen:
        panels.append(
            ("organs never seen", found.predicted[~seen], masks.dice[~seen], np.array(masks.kind)[~seen])
        )
        rows.append(("organs never seen", int((~seen).sum()), numbers["r_unseen"], numbers["mae_unseen"]))
    for name in sorted(set(masks.kind)):
        if f"mae/{name}" in numbers:
            count = int((seen & (np.array(masks.kind) == name)).sum())
            rows.append((name, count, numbers[f"r/{name}"], numbers[f"mae/{name}"]))
    detector: list[Sequence[str | float | None]] = [
        ("area under the ROC curve", numbers["roc_area"]),
        (f"precision at recall {options.recall:g}", numbers["precision"]),
        ("half width of the interval", found.interval),
        (f"masks of other subjects within it (asked: {options.coverage:g})", found.covered),
    ]
    return Section(
        "Masks of held-out subjects",
        f"{len(masks.dice)} masks of {len(set(masks.subject))} subjects, with errors made on purpose or predicted by a "
        f"network. A label under a Dice of {options.threshold:g} needs repair.",
        tables=[
            Table(("masks", "number", "Pearson's r", "mean absolute error"), rows),
            Table(("needs repair, and interval", "value"), detector),
        ],
        pictures=[
            Picture(
                "sentinel",
                charts.agreement(panels),
                "Every dot is a mask, coloured by its error; right is on the line.",
            )
        ],
    )
