"""A network fitted to a shifted copy of a real scan meets the scan itself: does adaptation help there?

    python -m experiments.robustness.real --reference FOLDER --workdir runs/real --scan ct
    python -m experiments.robustness.real --reference FOLDER --workdir runs/real --scan mr

FOLDER holds volumes/ts_ct_sm.nii.gz, ts_mr_sm.nii.gz and their label maps (TotalSegmentator's examples). The copy has
another contrast, shading and noise (`SHIFT`); `configs/finetune.py` fits a small network to it, from random weights.
Settings of Tent and ETTA are those the sweep chose on phantoms: nothing is tuned on these scans. A training that is
interrupted goes on with the same command; results of both scans are kept in real.json.
"""

import argparse
import pathlib
import sys
from typing import Any

import numpy as np

from experiments.robustness import results, sweep
from experiments.robustness.corruptions import corrupt
from ukbob_jax import devices, files
from ukbob_jax.evaluation import scoring
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.main import main as ukbob
from ukbob_jax.volumes.nifti import read_volume, write_volume
from ukbob_jax.volumes.volume import Volume

HERE = pathlib.Path(__file__).parent
SHIFT = (
    ("contrast", 3),
    ("bias_field", 3),
    ("rician_noise", 2),
)  # corruption and severity, one after the other
SEED = 1
LARGEST = 10  # structures, scored apart: the others are a few voxels


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=pathlib.Path, required=True, help="folder with volumes/")
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--scan", choices=("ct", "mr"), required=True)
    parser.add_argument("--steps", type=int, default=300, help="of training")
    parser.add_argument(
        "--output", type=pathlib.Path, default=HERE / "results", help="has the sweep's rows.jsonl"
    )
    args = parser.parse_args(argv)
    path = args.reference / "volumes" / f"ts_{args.scan}_sm.nii.gz"
    truth_path = path.with_name(f"ts_{args.scan}_sm_seg.nii.gz")
    copy = args.workdir / args.scan / "shifted" / path.name
    original = read_volume(path)
    write_volume(copy, shifted(original))
    run = args.workdir / args.scan / "run"
    words = ["--config=configs/finetune.py", f"--workdir={run}", "--config.job=ingest,train"]
    words += [f"--config.source.paths.images={copy}", f"--config.source.paths.labels={truth_path}"]
    if code := ukbob([*words, f"--config.train.steps={args.steps}", "--config.train.checkpoint_every=25"]):
        sys.exit(code)
    devices.use_compile_cache()
    swept = scoring.read_rows(args.output / "rows.jsonl")
    chosen = results.chosen(swept, "instance_affine", sweep.candidates(has_statistics=False))
    segmenter, truth = Segmenter.load(run, "latest"), read_volume(truth_path)
    rows = [
        {
            "scan": args.scan,
            "image": name,
            "steps": args.steps,
            "method": method,
            **measure(segmenter, image, truth, how),
        }
        for name, image in (("the copy", read_volume(copy)), ("the scan", original))
        for method, how in chosen.items()
    ]
    write(args.output / "real.json", args.scan, rows)


def shifted(image: Volume) -> Volume:
    """The scan after `SHIFT`; values are taken above the lowest, as magnitudes are."""
    low, pixels = image.array.min(), image.array.astype(np.float64)[..., None] - image.array.min()
    label = np.zeros(image.shape, np.uint8)
    for name, severity in SHIFT:
        pixels, _ = corrupt(pixels, label, name, severity, SEED)
    return Volume((pixels[..., 0] + low).astype(np.float32), image.affine, image.codes)


def measure(segmenter: Segmenter, image: Volume, truth: Volume, method: dict[str, Any]) -> dict[str, Any]:
    """Mean Dice over all structures and over the largest, and what the adaptation reported."""
    found = segmenter.predict(image, method=method, batch=1)
    ids, counts = np.unique(truth.array[truth.array > 0], return_counts=True)
    scores = scoring.score(found.volume, truth, {int(i): str(i) for i in ids}, surface=False)
    dice = np.array([scores[str(i)]["dice"] for i in ids[np.argsort(-counts)]])
    told = found.report["adaptation"] or {}
    kept = {key: told.get(key) for key in ("accepted", "entropy_before", "entropy_after", "drift")}
    return {"dice": float(dice.mean()), "dice_largest": float(dice[:LARGEST].mean()), **kept}


def write(path: pathlib.Path, scan: str, rows: list[dict[str, Any]]) -> None:
    """Put the scan's rows into the file in place of older ones, and print all as a table."""
    old = map(scoring.with_method, files.read_json(path)["rows"] if path.exists() else ())
    kept = [row for row in old if row["scan"] != scan]
    rows = sorted([*kept, *rows], key=lambda row: row["scan"])
    files.write_json(path, {"shift": [list(part) for part in SHIFT], "rows": rows})
    print("| scan | seen | method | Dice | ten largest | entropy | drift | accepted |\n" + "|---" * 8 + "|")
    for r in rows:
        adapted = r["entropy_before"] is not None
        entropy = f"{r['entropy_before']:.3f} to {r['entropy_after']:.3f}" if adapted else ""
        drift, accepted = (f"{r['drift']:.3f}", "yes" if r["accepted"] else "no") if adapted else ("", "")
        cells = [r["scan"], r["image"], r["method"], f"{r['dice']:.3f}", f"{r['dice_largest']:.3f}"]
        print("| " + " | ".join([*cells, entropy, drift, accepted]) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
