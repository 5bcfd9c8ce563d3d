"""Label many scans one after the other; one that fails does not stop the others, and the same call resumes."""

import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from ukbob_jax import files
from ukbob_jax.errors import ConfigError, FileError, SomeFailed, UkbobError
from ukbob_jax.failures import FILE, Failures
from ukbob_jax.inference.nnunet.presets import PresetSegmenter
from ukbob_jax.inference.nnunet.segmenter import NnunetSegmenter
from ukbob_jax.inference.options import PredictOptions
from ukbob_jax.inference.outputs import statistics, writing
from ukbob_jax.inference.outputs.writing import Outputs
from ukbob_jax.inference.reports import table
from ukbob_jax.inference.segmenter import ScanInput, Segmenter
from ukbob_jax.progress import track

DEFAULT = Outputs()
EXISTING = ("refuse", "skip", "overwrite")


def label(
    segmenter: Segmenter | NnunetSegmenter | PresetSegmenter,
    scans: Mapping[str, ScanInput | tuple[ScanInput, ...]],
    output: pathlib.Path,
    existing: str,
    options: PredictOptions,
    outputs: Outputs = DEFAULT,
) -> None:
    """Write NAME.nii.gz and NAME.json into `output` for every scan, then `summary.json` and `summary.csv`.

    With `outputs.statistics` also `statistics.csv`, of all scans.

    Args:
        segmenter: the network, or those of an nnU-Net model folder or of a preset.
        scans: name -> file, DICOM folder, or one file per contrast.
        output: folder.
        existing: what to do where a label map exists: "refuse", "skip" the scan or "overwrite".
        options: of every prediction.
        outputs: what else is written of every scan, and how its label map is called.

    Raises:
        ConfigError: a label map is there and `existing` is "refuse", it would replace a scan, or as `writing.check`.
        FileError: `output` cannot be written.
        UkbobError: the only scan failed, for its own reason.
        SomeFailed: some scans failed; `failures.jsonl` in `output` says which and why.
    """
    writing.check(outputs, segmenter.names, scans)
    targets = writing.targets(outputs, output, scans)
    wanted = [name for name, target in targets.items() if should_write(target, existing, scans[name])]
    reports: dict[str, Any] = {}
    failures = Failures(output / FILE, noun="scans", kind=SomeFailed)
    for name in track(wanted, "segment"):
        try:
            prediction = segmenter.predict(scans[name], options)
            target = targets[name]
            written = writing.write(
                outputs, prediction, target, scans[name], segmenter.channels, options, output
            )
            reports[name] = written.report
        except UkbobError as error:
            if len(scans) == 1:
                raise
            failures.add(name, _text(scans[name]), "predict", error)
    for name in scans:
        beside = writing.beside(targets[name], ".json")
        if name not in reports and targets[name].exists() and beside.exists():
            reports[name] = files.read_json(beside)
    if outputs.statistics:
        found = {name: writing.beside(target, ".statistics.json") for name, target in targets.items()}
        measured = {name: files.read_json(path) for name, path in found.items() if path.exists()}
        statistics.write_table(output / "statistics.csv", measured)
    programs = [str(estimate) for estimate in segmenter.estimates.values()]
    table.write(
        output, {name: reports[name] for name in scans if name in reports}, failures.to_json(), programs
    )
    print(
        f"segment: {len(wanted) - len(failures)} of {len(scans)} scans labelled, {len(programs)} programs compiled",
        file=sys.stderr,
    )
    failures.conclude(len(scans))


def should_write(target: pathlib.Path, existing: str, scan: ScanInput | tuple[ScanInput, ...]) -> bool:
    """Whether to write the labels of `scan` to `target`; asked before any work is done.

    Raises:
        ConfigError: it exists and is not to be touched, is the scan itself, or `existing` is no such choice.
        FileError: its folder cannot be written.
    """
    if existing not in EXISTING:
        raise ConfigError(f"existing: {existing!r} is not one of {', '.join(EXISTING)}.")
    for source in scan if isinstance(scan, tuple) else (scan,):
        if not isinstance(source, str | os.PathLike) or not os.path.exists(source):
            continue
        if target.exists() and target.samefile(source):
            raise ConfigError(
                f"{target} is the scan itself, which labels would replace. Choose another place."
            )
    folder = next(f for f in target.absolute().parents if f.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise FileError(f"{target}: {folder} is not a folder that can be written. Choose another place.")
    if existing == "refuse" and target.exists():
        raise ConfigError(f"{target} exists. Choose another place, or skip or overwrite what is there.")
    return existing != "skip" or not target.exists()


def _text(scan: ScanInput | tuple[ScanInput, ...]) -> str:
    return ", ".join(map(str, scan)) if isinstance(scan, tuple) else str(scan)
