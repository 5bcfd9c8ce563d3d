"""Label a scan, a folder of scans, or a DICOM series with a trained network.

    ukbob segment scan.nii.gz labels.nii.gz --model runs/mine
    ukbob segment fat.nii.gz water.nii.gz labels.nii.gz --model runs/mine      one file per contrast
    ukbob segment SCANS LABELS --model runs/mine --adapt                       every NIfTI of a folder
    ukbob segment DICOM labels.nii.gz --model runs/mine                        a folder with one DICOM series
    ukbob segment SCANS LABELS --model Dataset123_X/nnUNetTrainer__nnUNetPlans__3d_fullres       a model of nnU-Net v2
    ukbob segment SCANS LABELS --preset totalsegmentator_ct --model WEIGHTS    a program's models from its own weights

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

from ukbob_jax.commands.segment.options import OURS, PRESET, THEIRS, add_options, given, method_options
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.inference.windows.window import Window
from ukbob_jax.volumes import case

__all__ = ["add_options", "run"]


def run(options: argparse.Namespace) -> None:
    """Segment the scans that the command line names.

    Raises:
        UkbobError: see `inference.predict_scans.label`.
    """
    if options.preset and len(options.model) != 1:
        raise ConfigError(
            f"--preset {options.preset} takes one --model, the folder with its downloaded weights (nothing is downloaded)."
        )
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
    if options.preset:
        segment_preset(options, scans, output)
        return
    if wrong := given(options, PRESET):
        raise ConfigError(f"{wrong[0]} goes with --preset.")
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


def segment_preset(options: argparse.Namespace, scans: dict, output: pathlib.Path) -> None:
    """The same with the models of VIBESegmentator or TotalSegmentator.

    Raises:
        UkbobError: see `inference.predict_scans.label`.
    """
    from ukbob_jax.inference.nnunet.presets import preset
    from ukbob_jax.inference.options import PredictOptions

    if wrong := given(options, OURS):
        raise ConfigError(f"{wrong[0]} goes with networks trained here, not with --preset.")
    if options.no_mirror:
        raise ConfigError("--no-mirror: a preset never mirrors; leave it out.")
    segmenter = preset(
        options.preset,
        options.model[0],
        speed="fast" if options.fast else "fastest" if options.fastest else "",
        folds=options.folds,
        step_size=options.step_size,
        batch=0 if options.batch is None else options.batch,
        dtype=options.dtype,
        trainer=options.trainer or "",
        fill_holes=options.fill_holes,
        keep_size=options.keep_size,
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
