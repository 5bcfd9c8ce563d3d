"""Options of `ukbob segment`, and which of them go together."""

import argparse
from typing import Any

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation.method_names import METHODS
from ukbob_jax.inference.preset_names import PRESETS
from ukbob_jax.inference.windows.window import Window
from ukbob_jax.volumes.endings import ENDINGS

PRESET = ("fastest", "fill_holes", "keep_size")  # options that only presets take
THEIRS = ("folds", "step_size", "no_mirror", "trainer")  # those that models of nnU-Net take, presets included
OURS = (  # and those that only networks trained here take
    "which", "method", "steps", "learning_rate", "overlap", "mirror", "limits", "sex", "height_mm", "gate", "series"
)  # fmt: skip

FAST_OVERLAP = 0.25  # of windows with --fast
FAST_STEP = 0.75  # of tiles with --fast, for models of nnU-Net
SET_BY_FAST = ("overlap", "mirror", "method", "step_size")  # what --fast decides itself


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IN",
        help="file or folder of scans; several files are contrasts of one scan",
    )
    parser.add_argument(
        "output",
        metavar="OUT",
        help=f"for one scan a file that ends in {', '.join(ENDINGS)}; a folder for many",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="WORKDIR",
        help="folder of a training run; several are averaged. Or TRAINER__PLANS__CONFIGURATION of nnU-Net v2, or for "
        "--preset the folder with the downloaded weights",
    )
    parser.add_argument(
        "--fast", action="store_true",
        help=f"fewer windows and no test-time work: overlap {FAST_OVERLAP} in place of {Window.overlap}; of nnU-Net tiles "
        f"{FAST_STEP} apart and no mirroring; with --preset TotalSegmentator's model of 3 mm",
    )  # fmt: skip
    add_outputs(parser.add_argument_group("what is written"))
    _add_nnunet(parser.add_argument_group("models of nnU-Net"))
    _add_presets(parser.add_argument_group("VIBESegmentator and TotalSegmentator"))
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="which checkpoint to use")
    _add_method(parser)
    _add_windows(parser)
    _add_checks(parser)
    parser.add_argument("--series", default="", metavar="UID", help="which series of a folder of DICOM files")
    parser.add_argument(
        "--nan", choices=("refuse", "zero"), default="refuse",
        help="what to do with scans that have NaN or infinite voxels: refuse them, or zero the voxels",
    )  # fmt: skip
    parser.add_argument(
        "--existing", choices=("refuse", "skip", "overwrite"), default="refuse",
        help="what to do with labels that exist at OUT (default refuse)",
    )  # fmt: skip


def add_outputs(group: Any) -> None:
    """Options that say what is written of every scan."""
    group.add_argument(
        "--roi-subset", nargs="+", default=[], metavar="NAME",
        help="keep these structures alone, of those that the network draws (after OUT, or separated by commas)",
    )  # fmt: skip
    group.add_argument(
        "--format", choices=[one[1:] for one in ENDINGS], default="nii.gz",
        help="of label maps in a folder (default nii.gz); for one scan the ending of OUT says it",
    )  # fmt: skip
    group.add_argument(
        "--statistics", action="store_true",
        help="volume and intensities of every structure: NAME.statistics.json and .csv, of a folder statistics.csv",
    )  # fmt: skip
    group.add_argument("--masks", action="store_true", help="a file per structure in NAME_masks")
    group.add_argument(
        "--preview", action="store_true", help="NAME.preview.png: three planes under their labels"
    )
    group.add_argument(
        "--itksnap", action="store_true", help="NAME.label.txt: names and colours for ITK-SNAP"
    )
    group.add_argument(
        "--bids", action="store_true",
        help="OUT is a BIDS derivative: sub-.../anat/..._dseg.nii.gz with .tsv and .json; IN may be a BIDS data set",
    )  # fmt: skip
    group.add_argument(
        "--path", action="append", default=[], metavar="KEY=VALUE",
        help="with --bids, which images of the data set: contrasts=T1w (the default), session=1",
    )  # fmt: skip


def _add_nnunet(group: Any) -> None:
    group.add_argument("--folds", metavar="0,1", help="folds that are averaged (default all)")
    group.add_argument(
        "--step-size", type=float, help="from one tile to the next, as a fraction of the tile (default 0.5)"
    )
    group.add_argument(
        "--no-mirror", action="store_true", help="do not average over mirrored tiles (nnU-Net does)"
    )
    group.add_argument(
        "--trainer", metavar="NAME", help="take this trainer's network, where the checkpoint's is not known"
    )


def _add_presets(group: Any) -> None:
    group.add_argument(
        "--preset",
        choices=PRESETS,
        default="",
        help="run this program's models with its own steps around them; --folds and --step-size are then its own "
        "unless given, and there is no mirroring",
    )
    group.add_argument("--fastest", action="store_true", help="TotalSegmentator's model of 6 mm")
    group.add_argument(
        "--fill-holes", action="store_true", help="fill what a label encloses (vibesegmentator)"
    )
    group.add_argument(
        "--keep-size",
        action="store_true",
        help="leave the labels at the model's spacing and orientation (vibesegmentator)",
    )


def _add_method(parser: argparse.ArgumentParser) -> None:
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


def _add_windows(parser: argparse.ArgumentParser) -> None:
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


def _add_checks(parser: argparse.ArgumentParser) -> None:
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
