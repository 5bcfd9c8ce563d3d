"""Random model folders of nnU-Net, predicted by nnU-Net itself and here, as a table.

    python -m tools.parity_nnunet [--kinds ct regions ...] [--seeds 0 1] [--scans 2]

Needs torch, nnunetv2 and the extra `formats`. Every kind of `tests/inference/nnunet/random_models/kinds.py` is drawn once
per seed. nnU-Net sums in float32 here (its own float16 rounds logits). Columns: largest difference of the preprocessed
arrays, of the merged logits, and these logits' largest; voxels whose labels differ although the two best probabilities are
0.01 apart (regions: 0.005 from one half), and those where they are not, of all; the largest number of labels in a scan.
Ends with 1 where anything differs by more than 2e-4 (arrays), 2e-3 (logits) or 0 voxels.
"""

import argparse
import contextlib
import io
import os
import pathlib
import sys
import tempfile
import traceback
import warnings

from tests.inference.nnunet.random_models import compare, folders, kinds
from tests.inference.nnunet.random_models.compare import Difference


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--kinds", nargs="+", default=list(kinds.KINDS), choices=list(kinds.KINDS), metavar="KIND"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--scans", type=int, default=2)
    options = parser.parse_args()
    quiet()
    print("| kind | seed | folder | arrays | logits | largest | labels | close | voxels | labels seen |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    failed = []
    for kind in options.kinds:
        for seed in options.seeds:
            line, equal = one(kind, seed, options.scans)
            print(f"| {kind} | {seed} | {line} |", flush=True)
            failed += [] if equal else [f"{kind} {seed}"]
    if failed:
        print(f"{len(failed)} differ: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def quiet() -> None:
    """Programs here run for a moment, so they are compiled in a hurry; nnU-Net's own words are left out."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    for name in ("raw", "preprocessed", "results"):
        os.environ.setdefault(f"nnUNet_{name}", tempfile.gettempdir())
    warnings.simplefilter("ignore")


def one(kind: str, seed: int, scans: int) -> tuple[str, bool]:
    """The rest of a line of the table, and whether all is equal."""
    with tempfile.TemporaryDirectory() as place:
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                made = folders.make(pathlib.Path(place), kind, seed, scans)
                found = compare.both(made, pathlib.Path(place) / "out", scans)
        except Exception as error:  # of either program; the other folders count as well
            traceback.print_exc()
            return f"{type(error).__name__}: {error}", False
    text = f"{described(made)} | {numbers(found)}"
    return text, all(difference.equal for difference in found)


def described(made: folders.Made) -> str:
    """What the folder is, in short."""
    spec = made.spec
    schemes = "+".join(s.removesuffix("Normalization") + "*" * m for s, m in zip(spec.schemes, spec.masked))
    spacing = " ".join(f"{s:.3g}" for s in spec.spacing)
    words = [
        f"{spec.rank}D {spec.trainer.removeprefix('nnUNetTrainer') or spec.network}",
        schemes,
        "".join(map(str, spec.forward)),
        spacing,
        spec.reader,
        f"mirror {'no' if spec.mirror is None else ''.join(map(str, spec.mirror))}",
    ]
    return ", ".join(words)


def numbers(found: list[Difference]) -> str:
    """The worst of all scans, and sums of voxels."""
    if problems := [d.problem for d in found if d.problem]:
        return problems[0]
    worst = [f"{max(getattr(d, name) for d in found):.1e}" for name in ("data", "logits")]
    largest = f"{max(d.largest for d in found):.1f}"
    sums = [str(sum(getattr(d, name) for d in found)) for name in ("labels", "close", "voxels")]
    return " | ".join([*worst, largest, *sums, str(max(d.seen for d in found))])


if __name__ == "__main__":
    sys.exit(main())
