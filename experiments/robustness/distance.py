"""Does radiomic distance see what costs Dice? FRD of corrupted scans from clean ones, beside the loss of Dice.

    python -m experiments.robustness.distance --store runs/demo/stores/clean                    after the sweep's test phase
    ... --corruptions gibbs spike --severities 1 5 --subjects 4 --version v0                    a part of it
    ... --output FOLDER                                                                         its rows.jsonl has the Dice

The clean scans of the split are the reference; each corruption at each severity is a set of the same scans. All organs of a
scan are one mask, the true labels after the corruption. Every scan's features are a line of distance_rows.jsonl as soon as
they are known; the same command goes on. Dice is that without adaptation, of rows.jsonl; without such rows, only distances.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

import numpy as np
import scipy.stats
from matplotlib.figure import Figure

from experiments.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from experiments.robustness.results import CLEAN
from ukbob_jax import anatomy, devices, files
from ukbob_jax.evaluation import figures, scoring
from ukbob_jax.radiomics import frd_vectors
from ukbob_jax.radiomics.frd import VERSIONS, compare
from ukbob_jax.store.reader import Store

Rows = list[dict[str, Any]]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", required=True, help="held-out scans with true labels, those of the sweep")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    parser.add_argument("--network", default="instance_affine", help="whose Dice")
    parser.add_argument("--label", default="manual", help="label set with the truth")
    parser.add_argument("--split", default="test")
    parser.add_argument("--contrast", default="water", help="whose features")
    parser.add_argument("--version", choices=VERSIONS, default="v1")
    parser.add_argument("--corruptions", nargs="*", choices=CORRUPTIONS, default=list(CORRUPTIONS))
    parser.add_argument("--severities", type=int, nargs="*", choices=SEVERITIES, default=SEVERITIES)
    parser.add_argument("--subjects", type=int, help="default: all of the split")
    args = parser.parse_args(argv)
    devices.use_compile_cache()
    args.output.mkdir(parents=True, exist_ok=True)
    path, dice = args.output / "distance_rows.jsonl", args.output / "rows.jsonl"
    known = {_key(row): row for row in scoring.read_rows(path)} if path.exists() else {}
    store = Store.open(args.store)
    for scan in plan(args, store):
        if _key(scan) not in known:
            known[_key(scan)] = {**scan, "values": measure(store, scan)}
            with path.open("a") as file:  # whole lines
                file.write(json.dumps(known[_key(scan)]) + "\n")
            print(*_key(scan), file=sys.stderr, flush=True)
    wanted = [known[_key(scan)] for scan in plan(args, store)]
    measured = {row["subject"] for row in wanted}  # the same bodies on both sides
    scored = [row for row in (scoring.read_rows(dice) if dice.exists() else []) if row["subject"] in measured]
    rows = distances(wanted, losses(scored, args.network))
    columns = ["corruption", "severity", "scans", "frd", "d2", "dice_loss"]
    files.write_csv(args.output / f"distance_{args.version}.csv", columns, rows)
    (args.output / f"distance_{args.version}.png").write_bytes(figure(rows, args.version))
    print(agreement(rows))


def _key(row: dict[str, Any]) -> tuple:
    """What a row is about."""
    return tuple(row[name] for name in ("version", "label", "contrast", "corruption", "severity", "subject"))


def plan(args: argparse.Namespace, store: Store) -> Rows:
    """The scans to measure, subject by subject; the clean one first."""
    common = {"version": args.version, "label": args.label, "contrast": args.contrast}
    sets = [(CLEAN, 0), *((name, severity) for name in args.corruptions for severity in args.severities)]
    return [
        {**common, "corruption": name, "severity": severity, "subject": subject}
        for subject in store.split(args.split)[: args.subjects]
        for name, severity in sets
    ]


def measure(store: Store, scan: dict[str, Any]) -> list[float | None]:
    """Features of a scan after its corruption, the very one of the sweep."""
    subject, row = scan["subject"], store.rows[scan["subject"]]
    image, labels = store.read(subject, "image"), store.read(subject, f"label/{scan['label']}")
    if scan["corruption"] != CLEAN:
        number = int.from_bytes(subject.encode()[-4:])  # as in sweep.py
        image, labels = corrupt(image, labels, scan["corruption"], scan["severity"], number)
    [channel] = row.channel_indices((scan["contrast"],), "--contrast")
    inside = (labels > 0) & (labels != anatomy.IGNORE)
    found = frd_vectors.vector(
        image[..., channel], inside, row.spacing_mm, version=scan["version"], affine=np.asarray(row.affine)
    )
    return [files.json_number(found[name]) for name in frd_vectors.names(scan["version"])]


def losses(rows: Rows, network: str) -> dict[tuple[str, int], float]:
    """(corruption, severity) -> mean loss of Dice against the clean scan of the same body, without adaptation."""
    own = {
        (row["corruption"], row["severity"], row["subject"]): row["dice"]
        for row in rows
        if row["network"] == network and row["method"] == "off"
    }
    found: dict[tuple[str, int], list[float]] = {}
    for (corruption, severity, subject), dice in own.items():
        if corruption != CLEAN and (CLEAN, 0, subject) in own:
            found.setdefault((corruption, severity), []).append(own[CLEAN, 0, subject] - dice)
    return {scan: float(np.mean(values)) for scan, values in found.items()}


def distances(rows: Rows, lost: dict[tuple[str, int], float]) -> Rows:
    """A row per corruption and severity: how far its scans are from the clean ones, and the Dice that it costs."""
    sets: dict[tuple[str, int], list[list[float]]] = {}
    for row in rows:
        values = [np.nan if value is None else value for value in row["values"]]
        sets.setdefault((row["corruption"], row["severity"]), []).append(values)
    clean, out = np.array(sets.pop((CLEAN, 0))), []
    for (corruption, severity), values in sets.items():
        found = compare(clean, np.array(values), version=rows[0]["version"])
        row = {"corruption": corruption, "severity": severity, "scans": len(values), "frd": found.value}
        out.append(row | {"d2": found.d2, "dice_loss": lost.get((corruption, severity))})
    return out


def agreement(rows: Rows) -> str:
    """Rank correlation of distance and loss: over all, and within each corruption over severities."""
    both = [row for row in rows if row["dice_loss"] is not None]
    if len(both) < 3:
        return f"{len(rows)} distances; fewer than three have a Dice beside them."

    def rank(these: Rows) -> float:
        return float(
            scipy.stats.spearmanr([r["frd"] for r in these], [r["dice_loss"] for r in these]).statistic
        )

    lines = [f"rank correlation of FRD and loss of Dice over {len(both)} sets: {rank(both):.2f}"]
    for name in dict.fromkeys(row["corruption"] for row in both):
        own = [row for row in both if row["corruption"] == name]
        if len(own) > 2:
            lines.append(f"  {name}: {rank(own):.2f}")
    return "\n".join(lines)


def figure(rows: Rows, version: str) -> bytes:
    """Loss of Dice over distance, a line per corruption through its severities; without Dice, distance over severity."""
    picture = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = picture.subplots()
    known = any(row["dice_loss"] is not None for row in rows)
    shown = [row for row in rows if row["dice_loss"] is not None or not known]
    for i, name in enumerate(dict.fromkeys(row["corruption"] for row in shown)):
        own = [row for row in shown if row["corruption"] == name]
        across, up = ("frd", "dice_loss") if known else ("severity", "frd")
        mark = "os^"[i // len(figures.SERIES) % 3]
        color = figures.SERIES[i % len(figures.SERIES)]
        axes.plot(
            [r[across] for r in own], [r[up] for r in own], marker=mark, markersize=4, color=color, label=name
        )
    unit = "log d²" if version == "v1" else "d²"
    axes.set_xlabel(f"FRD {version} from the clean scans, {unit}" if known else "severity")
    axes.set_ylabel("loss of Dice" if known else f"FRD {version}, {unit}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figures.render(picture)


if __name__ == "__main__":
    main(sys.argv[1:])
