"""Label a scan, a folder of scans, or a DICOM series with a trained network.

    ukbob segment scan.nii.gz labels.nii.gz --model runs/mine
    ukbob segment fat.nii.gz water.nii.gz labels.nii.gz --model runs/mine      one file per contrast
    ukbob segment SCANS LABELS --model runs/mine --adapt                       every NIfTI of a folder
    ukbob segment DICOM labels.nii.gz --model runs/mine                        a folder with one DICOM series
    ukbob segment SCANS LABELS --model Dataset123_X/nnUNetTrainer__nnUNetPlans__3d_fullres       a model of nnU-Net v2
    ukbob segment SCANS LABELS --preset totalsegmentator_ct --model WEIGHTS    a program's models from its own weights
    ukbob segment DICOM labels.dcm --model runs/mine                           a DICOM segmentation; .seg.nrrd for 3D Slicer
    ukbob segment scan.nii.gz labels.nii.gz --model runs/mine --statistics --preview --roi-subset liver spleen

Labels come in the space of the scan, with their names in the header and a JSON beside them: volume, entropy,
confidence, fragments and contact with the border of each structure. A folder also gets summary.json and summary.csv.
What else can be written, and which viewer reads what: docs/commands.md.
Several --model are averaged. Memory is estimated first; what cannot fit is refused. Of nnU-Net nothing is needed but the
model folder (docs/nnunet.md); in a folder of scans NAME_0000.nii.gz, NAME_0001.nii.gz are then the channels of one.
"""

import argparse
import pathlib
import sys
from typing import Any

from ukbob_jax.commands.segment.inputs import channels, find
from ukbob_jax.commands.segment.options import (
    FAST_OVERLAP,
    FAST_STEP,
    OURS,
    PRESET,
    SET_BY_FAST,
    THEIRS,
    add_options,
    given,
    method_options,
)
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.windows.window import Window
from ukbob_jax.volumes.endings import ending

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
    if options.fast and (wrong := given(options, SET_BY_FAST)):
        raise ConfigError(f"{wrong[0]}: --fast sets it; leave one of the two out.")
    if not options.model:
        raise ConfigError(
            "no network is named: give --model WORKDIR of a training run (nothing is downloaded). "
            "python -m ukbob_jax.main --config=configs/finetune.py trains one on your scans."
        )
    scans, output = find(options.inputs, pathlib.Path(options.output), options.bids, options.path)
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
        overlap=FAST_OVERLAP if options.fast else options.overlap,
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
    write(segmenter, scans, output, options, settings)


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
        mirror=not (options.no_mirror or options.fast),
        folds=options.folds or checkpoint.ALL,
        step_size=FAST_STEP
        if options.fast
        else tiles.STEP
        if options.step_size is None
        else options.step_size,
        batch=0 if options.batch is None else options.batch,
        dtype=options.dtype,
        trainer=options.trainer or "",
        announce=announce,
    )
    write(segmenter, channels(scans), output, options, PredictOptions(nan=options.nan))


def segment_preset(options: argparse.Namespace, scans: dict, output: pathlib.Path) -> None:
    """The same with the models of VIBESegmentator or TotalSegmentator.

    Raises:
        UkbobError: see `inference.predict_scans.label`.
    """
    from ukbob_jax.inference.nnunet.presets import preset
    from ukbob_jax.inference.options import PredictOptions
    from ukbob_jax.inference.outputs import subset

    if wrong := given(options, OURS):
        raise ConfigError(f"{wrong[0]} goes with networks trained here, not with --preset.")
    if options.no_mirror:
        raise ConfigError("--no-mirror: a preset never mirrors; leave it out.")
    if options.fast and options.fastest:
        raise ConfigError("--fast and --fastest are two models; give one of them.")
    if options.keep_size and (options.statistics or options.preview):
        raise ConfigError(
            "--keep-size: labels at the model's spacing are not on the scan's voxels, so there is no --statistics or "
            "--preview of them; leave one out."
        )
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
    subset.check(wanted := structures(options), segmenter.names)
    write(segmenter.only(wanted), channels(scans), output, options, PredictOptions(nan=options.nan))


def write(
    segmenter: Any, scans: dict, output: pathlib.Path, options: argparse.Namespace, settings: Any
) -> None:
    """Labels of one scan to a file, or of all into a folder, with what else is asked for."""
    from ukbob_jax.inference import predict_scans
    from ukbob_jax.inference.outputs import writing

    one = ending(output) if not options.bids else ""
    outputs = writing.Outputs(
        ending=one or f".{options.format}",
        roi_subset=structures(options),
        **{name: getattr(options, name) for name in ("statistics", "masks", "preview", "itksnap", "bids")},
    )
    if not one:
        predict_scans.label(segmenter, scans, output, options.existing, settings, outputs)
        return
    writing.check(outputs, segmenter.names, scans)
    (scan,) = scans.values()
    if predict_scans.should_write(output, options.existing, scan):
        found = segmenter.predict(scan, settings)
        writing.write(outputs, found, output, scan, segmenter.channels, settings)


def structures(options: argparse.Namespace) -> tuple[str, ...]:
    """The names of --roi-subset, each once."""
    named = [name.strip() for word in options.roi_subset for name in word.split(",")]
    return tuple(dict.fromkeys(name for name in named if name))


def announce(estimate: object) -> None:
    """Print the memory that the next program needs."""
    print(f"segment: {estimate}", file=sys.stderr, flush=True)
