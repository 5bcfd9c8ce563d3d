"""Which planted errors SOLF finds: precision and recall per kind of error, and ROC per measure. CPU, about two minutes.

    python -m experiments.solf.detect [--subjects 240] [--shape 64 32 128] [--shares 0.05 0.2]

Every subject's label map gets errors in a share of its organs. The rules are fitted on that noisy cohort, as they would
be on real labels. Writes detect.json and detect.png beside this file.
"""

import argparse
import pathlib
import sys

import numpy as np
from matplotlib.figure import Figure

from ukbob_jax import anatomy, files, phantom
from ukbob_jax.evaluation import figures
from ukbob_jax.phantom import label_errors
from ukbob_jax.progress import track
from ukbob_jax.quality import FEATURES, error_detection, measure, solf, stack
from ukbob_jax.quality.measures import OrganMeasures
from ukbob_jax.quality.outliers import outlier_score, robust_z_scores

HERE = pathlib.Path(__file__).parent
FEWEST = 24  # voxels, as in configs/common.py


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=240)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 32, 128), help="voxels, x y z")
    parser.add_argument("--shares", type=float, nargs="+", default=(0.05, 0.2), help="of the organs, spoilt")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "detect.json")
    options = parser.parse_args(argv)
    results = {"subjects": options.subjects, "shape": options.shape, "noise": {}}
    curves = {}
    for share in options.shares:
        measures, kind, kinds = cohort(options.subjects, tuple(options.shape), share)
        results["noise"][f"{share:g}"] = {
            "planted": int((kind >= 0).sum()),
            "kinds": {name: int((kind == i).sum()) for i, name in enumerate(kinds)},
            "labels": int((np.asarray(measures.voxels)[:, 1:] > 0).sum()),
            "rows": error_detection.sweep(measures, kind, kinds),
            "auc": areas(measures, kind, kinds),
        }
        curves[share] = (measures, kind, kinds)
    files.write_json(options.output, results)
    files.write_bytes(options.output.with_suffix(".png"), figure(results, curves))
    table(results)


def cohort(count: int, shape: tuple[int, int, int], share: float) -> tuple[OrganMeasures, np.ndarray, tuple]:
    """Measures of a noisy cohort, and which error every label has."""
    spacing, found, errors = phantom.spacing_mm(shape), [], []
    for seed in track(range(count), f"{share:g} spoilt"):
        labels, made = label_errors.plant(phantom.label_map(seed, shape), seed, share=share)
        found.append(measure(labels, spacing))
        errors += [{"subject": str(seed), **error._asdict()} for error in made]
    kind, kinds = error_detection.truth([str(seed) for seed in range(count)], errors, anatomy.NUM_CLASSES)
    return solf.drop_small_organs(stack(found), FEWEST), kind, kinds


def scores_and_truth(measures: OrganMeasures, kind: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Per measure, and for the vote, how strange every label is; and its error, -1 for none."""
    present = np.asarray(measures.voxels) > 0
    present[:, 0] = False
    away = np.abs(robust_z_scores(measures))
    scores = {name: away[..., i][present] for i, name in enumerate(FEATURES)}
    return scores | {"two of three": outlier_score(measures)[present]}, kind[present]


def areas(measures: OrganMeasures, kind: np.ndarray, kinds: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Area under the ROC curve of every score, over all errors and per kind."""
    scores, wrong = scores_and_truth(measures, kind)
    clean = wrong < 0
    return {
        name: {
            "all": area(score[~clean], score[clean]),
            **{k: area(score[wrong == i], score[clean]) for i, k in enumerate(kinds)},
        }
        for name, score in scores.items()
    }


def area(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a wrong label is stranger than a right one; ties count half."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(below.mean() / (2 * negative.size))


def figure(results: dict, curves: dict) -> bytes:
    """A row per noise level: precision and recall, recall per kind over epsilon, ROC per measure."""
    page = Figure(figsize=(13, 4 * len(curves)), layout="constrained")
    grid = page.subplots(len(curves), 3, squeeze=False)
    for line, (share, (measures, kind, kinds)) in zip(grid, curves.items()):
        rows = results["noise"][f"{share:g}"]["rows"]
        for color, name in zip(figures.SERIES, ("percentile", "robust")):
            own = [row for row in rows if row["rule"] == name and row["precision"] is not None]
            xs, ys = [r["recall"] for r in own], [r["precision"] for r in own]
            line[0].plot(xs, ys, "o-", color=color, markersize=3, label=name)
            for row in own[:: 4 if name == "percentile" else 2]:
                where = (row["recall"], row["precision"])
                line[0].annotate(
                    f"{row['setting']:g}", where, xytext=(3, 4), textcoords="offset points", fontsize=7
                )
        line[0].set(
            xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.03),
            title=f"{100 * share:g} % of organs spoilt; numbers are ε or k",
        )  # fmt: skip
        for color, (name, lines) in zip(figures.SERIES, per_kind(rows, kind, kinds).items()):
            line[1].plot(*lines.T, "o-", color=color, markersize=3, label=name)
        line[1].set(
            xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.03), title="per error, percentiles, others left out"
        )  # fmt: skip
        scores, wrong = scores_and_truth(measures, kind)
        for color, (name, score) in zip(figures.SERIES, scores.items()):
            cuts = np.quantile(score, np.linspace(0, 1, 200))
            hits = [(score[wrong >= 0] >= c).mean() for c in cuts]
            alarms = [(score[wrong < 0] >= c).mean() for c in cuts]
            auc = results["noise"][f"{share:g}"]["auc"][name]["all"]
            line[2].plot(alarms, hits, color=color, label=f"{name}, {auc:.3f}")
        line[2].set(
            xlabel="share of right labels flagged", ylabel="recall", title="ROC per measure, with its area"
        )
        for axes in line:
            axes.legend(frameon=False, fontsize=8)
            axes.spines[["top", "right"]].set_visible(False)
    return figures.render(page)


def per_kind(rows: list[dict], kind: np.ndarray, kinds: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Recall and precision of the percentile rule at every ε, `n 2`, of one kind of error among right labels."""
    found = {}
    for i, name in enumerate(kinds):
        count, line = int((kind == i).sum()), []
        for row in rows:
            hits = row["recall_by_kind"][name] * count
            if row["rule"] == "percentile" and hits:
                alarms = row["flagged"] * (1 - row["precision"])
                line.append((row["recall_by_kind"][name], hits / (hits + alarms)))
        found[name] = np.array(line)
    return found


def table(results: dict) -> None:
    """What a reader wants first."""
    for share, found in results["noise"].items():
        print(f"\n{share} of organs spoilt: {found['planted']} errors in {found['labels']} labels")
        for row in found["rows"]:
            if (row["rule"], row["setting"]) in (("percentile", 2.0), ("percentile", 5.0), ("robust", 3.5)):
                kinds = ", ".join(f"{k} {v:.2f}" for k, v in row["recall_by_kind"].items())
                both = f"precision {row['precision']:.2f}, recall {row['recall']:.2f}"
                print(f"{row['rule']} {row['setting']:g}: {both} ({kinds})")
        for name, auc in found["auc"].items():
            print(f"AUC of {name}: " + ", ".join(f"{k} {v:.3f}" for k, v in auc.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
