"""Where the results of a scan go, and writing them: the label map, its report, and what was asked for beside it."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax import advice, files
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.options import PredictOptions
from ukbob_jax.inference.outputs import scan_image, statistics, subset
from ukbob_jax.inference.prediction import Prediction
from ukbob_jax.volumes import bids_derivative, label_descriptions
from ukbob_jax.volumes.endings import DICOM, ENDINGS, ending, stem
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.volume import Volume

Scan = Any  # a file, a folder of DICOM files, a Volume, or one of these per contrast as a tuple


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What is written of every scan.

    Attributes:
        ending: of label maps in a folder, one of `ENDINGS`.
        roi_subset: names of the structures that are kept; empty: all.
        statistics: `NAME.statistics.json` and `.csv`, as `outputs.statistics`.
        masks: a folder `NAME_masks` with a file per structure, 0 and 1, also of those that are absent.
        preview: `NAME.preview.png`.
        itksnap: `NAME.label.txt`, names and colours for ITK-SNAP.
        bids: names, tables and sidecars of a BIDS derivative.

    Raises:
        ConfigError: an unknown ending, or BIDS with an ending that BIDS does not have.
    """

    ending: str = ".nii.gz"
    roi_subset: tuple[str, ...] = ()
    statistics: bool = False
    masks: bool = False
    preview: bool = False
    itksnap: bool = False
    bids: bool = False

    def __post_init__(self) -> None:
        """Check what goes together."""
        if self.ending not in ENDINGS:
            raise ConfigError(f"label maps cannot end in {self.ending!r}; they end in {', '.join(ENDINGS)}.")
        if self.bids and self.ending not in (".nii.gz", ".nii"):
            raise ConfigError(f"{advice.setting('bids')}: BIDS has .nii.gz and .nii, not {self.ending}.")


def beside(target: pathlib.Path, what: str) -> pathlib.Path:
    """The file `NAMEwhat` beside the label map `NAME.nii.gz`."""
    return target.with_name(f"{stem(target)}{what}")


def targets(outputs: Outputs, folder: pathlib.Path, scans: Mapping[str, Scan]) -> dict[str, pathlib.Path]:
    """Where the label map of every scan goes.

    Raises:
        ConfigError: two scans would go to one file, as those of two contrasts do in BIDS.
    """
    if not outputs.bids:
        return {name: folder / f"{name}{outputs.ending}" for name in scans}
    found: dict[str, pathlib.Path] = {}
    owners: dict[pathlib.Path, str] = {}
    for name, scan in scans.items():
        target = folder / f"{bids_derivative.name(paths(scan))}{outputs.ending}"
        if target in owners:
            raise ConfigError(
                f"{name} and {owners[target]} would both become {target}: label maps of one person, session and run. Give "
                "one of them, or both as contrasts of one scan."
            )
        found[name], owners[target] = target, name
    return found


def paths(scan: Scan) -> tuple[pathlib.Path, ...]:
    """The files or folders of a scan."""
    return tuple(pathlib.Path(one) for one in (scan if isinstance(scan, tuple) else (scan,)))


def check(outputs: Outputs, names: Mapping[int, str], scans: Mapping[str, Scan]) -> None:
    """Refuse what could not be written, before the first scan is segmented.

    Args:
        outputs: what is asked for.
        names: id to name of what the network draws.
        scans: name -> scan.
    Raises:
        ConfigError: a structure that the network does not draw, a library that is not installed, or a DICOM
            segmentation of a scan that is no DICOM series.
    """
    subset.check(outputs.roi_subset, names)
    if outputs.masks:
        owners: dict[str, str] = {}
        for name in (name for i, name in names.items() if i):
            if owners.setdefault(file_name(name).lower(), name) != name:
                raise ConfigError(
                    f"{advice.setting('masks')}: {name!r} and {owners[file_name(name).lower()]!r} would be one file; rename "
                    "one of them in the network's label table."
                )
    if outputs.ending == DICOM:
        from ukbob_jax.volumes.dicom import segmentation  # pydicom and highdicom are optional

        segmentation.reader_and_writer()
        for name, scan in scans.items():
            if not all(path.is_dir() for path in paths(scan)):
                raise ConfigError(
                    f"{name}: a DICOM segmentation refers to DICOM files, and {paths(scan)[0]} is none of their folders. "
                    "Let OUT end in .nii.gz or .seg.nrrd."
                )


def write(
    outputs: Outputs,
    prediction: Prediction,
    target: pathlib.Path,
    scan: Scan,
    contrasts: Sequence[str],
    options: PredictOptions,
    root: pathlib.Path | None = None,
) -> Prediction:
    """Write everything of one scan; the label map comes last, so that where it lies, all lies.

    Args:
        outputs: what is written.
        prediction: of the whole network.
        target: of the label map.
        scan: what was segmented.
        contrasts: names of the network's channels.
        options: of the prediction; how the scan is read again.
        root: of a BIDS derivative; None: the folder of `target`.
    Returns:
        The prediction as written.
    Raises:
        FileError: a file cannot be written.
        MismatchError: the labels do not lie on the scan's voxels.
    """
    kept = subset.keep(prediction, outputs.roi_subset)
    report = dict(kept.report)
    if outputs.statistics or outputs.preview:
        image = scan_image.read(scan, kept.volume, contrasts, options.nan, options.series)
        if outputs.statistics:
            _write_statistics(kept, image, contrasts, target)
        if outputs.preview:
            _write_preview(kept, image, target)
    if outputs.masks:
        _write_masks(outputs, kept, target)
    if outputs.itksnap:
        text = label_descriptions.text(kept.names)
        files.write_bytes(beside(target, label_descriptions.ENDING), text.encode())
    if outputs.bids:
        raw = bids_derivative.raw_root(paths(scan)[0])
        bids_derivative.describe(root or target.parent, raw)
        files.write_bytes(beside(target, ".tsv"), bids_derivative.table(kept.names).encode())
        report = {**bids_derivative.sidecar(paths(scan), raw), **report}
    files.write_json(beside(target, ".json"), report)
    if ending(target) == DICOM:
        _write_dicom(kept, target, paths(scan)[0], contrasts, options.series)
    else:
        write_volume(target, kept.volume, kept.names)
    return kept


def _write_dicom(
    prediction: Prediction, target: pathlib.Path, folder: pathlib.Path, contrasts: Sequence[str], series: str
) -> None:
    from ukbob_jax.volumes.dicom import dixon_names, segmentation
    from ukbob_jax.volumes.dicom.sources import read_sources

    sources = read_sources(folder, series, channels=dixon_names(contrasts))
    segmentation.write(target, prediction.volume, prediction.names, sources)


def _write_statistics(
    prediction: Prediction, image: Volume, contrasts: Sequence[str], target: pathlib.Path
) -> None:
    found = statistics.measure(prediction.volume, image.array, prediction.names, contrasts)
    files.write_json(beside(target, ".statistics.json"), found)
    statistics.write_table(beside(target, ".statistics.csv"), {stem(target): found})


def _write_preview(prediction: Prediction, image: Volume, target: pathlib.Path) -> None:
    from ukbob_jax.evaluation import preview  # matplotlib takes its time

    first = dataclasses.replace(image, array=image.array[..., 0])
    drawn = preview.draw(first.to_ras(), prediction.volume.to_ras(), prediction.names, stem(target))
    files.write_bytes(beside(target, ".preview.png"), drawn)


def _write_masks(outputs: Outputs, prediction: Prediction, target: pathlib.Path) -> None:
    kind = ".nii.gz" if ending(target) in (DICOM, "") else ending(target)
    for i, name in prediction.names.items():
        if not i:
            continue
        if outputs.bids:
            path = target.with_name(bids_derivative.mask_name(stem(target), name) + kind)
        else:
            path = beside(target, "_masks") / f"{file_name(name)}{kind}"
        mask = dataclasses.replace(prediction.volume, array=(prediction.volume.array == i).astype(np.uint8))
        write_volume(path, mask, {1: name} if kind == ".seg.nrrd" else None)


def file_name(structure: str) -> str:
    """The name of a structure as that of a file, without what folders cannot hold."""
    return "".join(c if c.isalnum() or c in "-_.+ " else "_" for c in structure).strip(". ") or "_"
