"""Label a scan, a folder of scans, or a DICOM series with a trained network.

    ukbob segment scan.nii.gz labels.nii.gz --model runs/mine
    ukbob segment fat.nii.gz water.nii.gz labels.nii.gz --model runs/mine      one file per contrast
    ukbob segment SCANS LABELS --model runs/mine --adapt                       every NIfTI of a folder
    ukbob segment DICOM labels.nii.gz --model runs/mine                        a folder with one DICOM series
    ukbob segment SCANS LABELS --model Dataset123_X/nnUNetTrainer__nnUNetPlans__3d_fullres       a model of nnU-Net v2

Labels come in the space of the scan, with their names in the header and a JSON beside them: volume, entropy,
confidence, fragments and contact with the border of each structure. A folder also gets summary.json and summary.csv.
Several --model are averaged. Memory is estimated first; what cannot fit is refused. Of nnU-Net nothing is needed but the
model folder (docs/nnunet.md); in a folder of scans NAME_0000.nii.gz, NAME_0001.nii.gz are then the channels of one.
"""

import argparse
import pathlib
import re
import sys
from typing import Any

from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.inference.adaptation.method_names import METHODS
from ukbob_jax.inference.windows.window import Window
from ukbob_jax.volumes import case

THEIRS = ("folds", "step_size", "no_mirror", "trainer")  # options that only models of nnU-Net take
OURS = (  # and those that only networks trained here take
    "which", "method", "steps", "learning_rate", "overlap", "mirror", "limits", "sex", "height_mm", "gate", "series"
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IN",
        help="file or folder of scans; several files are contrasts of one scan",
    )
    parser.add_argument(
        "output", metavar="OUT", help="name.nii.gz or name.nii for one scan, a folder for many"
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="WORKDIR",
        help="folder of a training run; several are averaged. Or TRAINER__PLANS__CONFIGURATION of nnU-Net v2",
    )
    theirs = parser.add_argument_group("models of nnU-Net")
    theirs.add_argument("--folds", metavar="0,1", help="folds that are averaged (default all)")
    theirs.add_argument(
        "--step-size", type=float, help="from one tile to the next, as a fraction of the tile (default 0.5)"
    )
    theirs.add_argument(
        "--no-mirror", action="store_true", help="do not average over mirrored tiles (nnU-Net does)"
    )
    theirs.add_argument(
        "--trainer", metavar="NAME", help="take this trainer's network, where the checkpoint's is not known"
    )
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="which checkpoint to use")
    method = parser.add_mutually_exclusive_group()
    method.add_argument(
        "--method", choices=METHODS, default="off", help="how to adapt the network to each scan (default off)"
    )
    method.add_argument(
        "--adapt", dest="method", nargs="?", choices=METHODS, const="etta", default="off",
        help="the same as --method; without a name, etta",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, help="number of adaptation steps that etta takes")
    parser.add_argument(
        "--learning-rate", type=float, help="learning rate of the adaptation with etta or tent"
    )
    parser.add_argument(
        "--overlap", type=float, default=Window.overlap,
        help="fraction of a window that its neighbour covers (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--batch",
        type=int,
        help=f"windows in a call of the network (default {Window.batch}; 1 for a model of nnU-Net, 8 for one of slices)",
    )
    parser.add_argument(
        "--mirror", action="store_true", help="average with the mirror image, left and right exchanged"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="",
        help="precision of the network (default: as trained)",
    )
    parser.add_argument(
        "--limits", metavar="FILE", help="limits.json of the solf job, to check the labels against"
    )
    parser.add_argument(
        "--sex", choices=("F", "M"), default="", help="sex of the person, for --limits and --gate"
    )
    parser.add_argument(
        "--height-mm", type=float, default=0.0, help="height of the person in mm, for --limits"
    )
    parser.add_argument(
        "--gate", action="store_true", help="remove organs whose part of the body is not in the scan"
    )
    parser.add_argument(
        "--accept-unusual", action="store_true",
        help="segment scans whose voxels or size are unlike those of training",
    )  # fmt: skip
    parser.add_argument("--series", default="", metavar="UID", help="which series of a folder of DICOM files")
    parser.add_argument(
        "--nan", choices=("refuse", "zero"), default="refuse",
        help="what to do with scans that have NaN or infinite voxels: refuse them, or zero the voxels",
    )  # fmt: skip
    parser.add_argument(
        "--existing", choices=("refuse", "skip", "overwrite"), default="refuse",
        help="what to do with labels that exist at OUT (default refuse)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Segment the scans that the command line names.

    Raises:
        UkbobError: see `inference.predict_scans.label`.
    """
    if not options.model:
        raise ConfigError(
            "no network is named: give --model WORKDIR of a training run (nothing is downloaded). "
            "python -m ukbob_jax.main --config=configs/finetune.py trains one on your scans."
        )
    scans, output = find(options.inputs, pathlib.Path(options.output))
    method = method_options(options)

    from ukbob_jax import devices
    from ukbob_jax.inference.nnunet.folders import is_folder
    from ukbob_jax.inference.options import PredictOptions
    from ukbob_jax.inference.segmenter import Segmenter
    from ukbob_jax.inference.windows import averaging
    from ukbob_jax.quality.limits import Limits

    devices.prepare()
    if any(map(is_folder, options.model)):
        segment_nnunet(options, scans, output)
        return
    if wrong := given(options, THEIRS):
        raise ConfigError(f"{wrong[0]} goes with a model folder of nnU-Net, and {options.model[0]} is none.")
    segmenter = Segmenter.load(options.model, options.which, dtype=options.dtype, announce=announce)
    settings = PredictOptions(
        overlap=options.overlap,
        batch=Window.batch if options.batch is None else options.batch,
        views=averaging.MIRRORED if options.mirror else averaging.PLAIN,
        method=method,
        gate=options.gate,
        accept_unusual=options.accept_unusual,
        nan=options.nan,
        series=options.series,
        limits=Limits.load(options.limits) if options.limits else None,
        attributes={"sex": options.sex, "height_mm": options.height_mm},
    )
    write(segmenter, scans, output, options.existing, settings)


def segment_nnunet(options: argparse.Namespace, scans: dict, output: pathlib.Path) -> None:
    """The same with a model folder of nnU-Net.

    Raises:
        UkbobError: see `inference.predict_scans.label`.
    """
    from ukbob_jax.inference.nnunet import checkpoint, tiles
    from ukbob_jax.inference.nnunet.segmenter import NnunetSegmenter
    from ukbob_jax.inference.options import PredictOptions

    if len(options.model) > 1:
        raise ConfigError(
            "several --model: model folders of nnU-Net are not averaged; give one, with its folds."
        )
    if wrong := given(options, OURS):
        raise ConfigError(
            f"{wrong[0]} goes with networks trained here, and {options.model[0]} is one of nnU-Net."
        )
    segmenter = NnunetSegmenter.load(
        options.model[0],
        mirror=not options.no_mirror,
        folds=options.folds or checkpoint.ALL,
        step_size=tiles.STEP if options.step_size is None else options.step_size,
        batch=0 if options.batch is None else options.batch,
        dtype=options.dtype,
        trainer=options.trainer or "",
        announce=announce,
    )
    write(segmenter, channels(scans), output, options.existing, PredictOptions(nan=options.nan))


def write(segmenter: Any, scans: dict, output: pathlib.Path, existing: str, settings: Any) -> None:
    """Labels of one scan to a file, or of all into a folder."""
    from ukbob_jax.inference import predict_scans

    if len(scans) == 1 and is_file(output):
        (scan,) = scans.values()
        if predict_scans.should_write(output, existing, scan):
            segmenter.predict(scan, settings).save(output)
        return
    predict_scans.label(segmenter, scans, output, existing, settings)


def channels(scans: dict) -> dict:
    """Scans whose files NAME_0000, NAME_0001, ... are the channels of one, as nnU-Net names them."""
    found: dict = {}
    for name, scan in scans.items():
        match = re.fullmatch(r"(.+)_\d{4}", name)
        if match and not isinstance(scan, tuple):
            found.setdefault(match[1], []).append((name, scan))
        else:
            found[name] = scan
    return {
        name: tuple(scan for _, scan in sorted(parts)) if isinstance(parts, list) else parts
        for name, parts in found.items()
    }


def given(options: argparse.Namespace, names: tuple[str, ...]) -> list[str]:
    """Those of the options that differ from their default, as they are spelt."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    return [
        f"--{name.replace('_', '-')}" for name in names if getattr(options, name) != parser.get_default(name)
    ]


def method_options(options: argparse.Namespace) -> dict[str, Any]:
    """The method, with the options that were set for it.

    Raises:
        ConfigError: an option that this method does not take.
    """
    chosen = {"steps": options.steps, "learning_rate": options.learning_rate}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if chosen and options.method not in ("etta", "tent"):
        raise ConfigError(f"--{next(iter(chosen)).replace('_', '-')} goes with --method etta or tent.")
    return {"method": options.method, **chosen}


def find(inputs: list[str], output: pathlib.Path) -> tuple[dict, pathlib.Path]:
    """Name -> scan, and where the labels go.

    Raises:
        FileError: an input is not there, or an empty folder.
        ConfigError: several files and a folder mixed, or an output of the wrong kind.
    """
    paths = [pathlib.Path(path) for path in inputs]
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise FileError(f"{missing[0]}: no such file or folder.")
    empty = [path for path in paths if path.is_dir() and not any(path.iterdir())]
    if empty:
        raise FileError(f"{empty[0]}: an empty folder. Give a scan, a folder of scans, or a DICOM series.")
    if len(paths) > 1 and any(path.is_dir() for path in paths):
        raise ConfigError("several inputs are the contrasts of one scan: give files, or one folder of scans.")
    if len(paths) == 1 and paths[0].is_dir() and any(map(case.is_scan, paths[0].iterdir())):
        if is_file(output):
            raise ConfigError(f"{output}: {paths[0]} is a folder of scans, so OUT must be a folder.")
        return case.scans(paths[0]), output
    if not is_file(output):
        series = (
            f", as {paths[0]} is, which holds no scans but may be a DICOM series,"
            if paths[0].is_dir()
            else ""
        )
        raise ConfigError(
            f"{output}: labels of one scan{series} go to a file; its name must end in .nii.gz or .nii."
        )
    return {case.stem(paths[0]): paths[0] if len(paths) == 1 else tuple(paths)}, output


def is_file(output: pathlib.Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return case.stem(output) != output.name


def announce(estimate: object) -> None:
    """Print the memory that the next program needs."""
    print(f"segment: {estimate}", file=sys.stderr, flush=True)
