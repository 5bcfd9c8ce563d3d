"""Label scans with the workdir's network: `config.predict.inputs` to `config.predict.output`, in each scan's space."""

import dataclasses
import pathlib
from collections.abc import Mapping

from ukbob_jax import advice
from ukbob_jax.data.options import Config
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference import predict_scans
from ukbob_jax.inference.options import from_config
from ukbob_jax.inference.segmenter import ScanInput, Segmenter
from ukbob_jax.quality.limits import Limits
from ukbob_jax.volumes import case, layouts


def run(config: Config, workdir: str) -> None:
    """Write a label map and a report for every scan, and tables of all; a scan that fails does not stop the others.

    Raises:
        ConfigError: no input is named, the method is unknown, or an output exists and `config.predict.existing` is "refuse".
        FileError: an input or the checkpoint is missing.
        UkbobError: the only scan failed, for its own reason.
        SomeFailed: some scans failed; `failures.jsonl` in the output folder says which and why.
    """
    settings = config.predict
    options = from_config(config, settings.method, "predict.method")
    options = dataclasses.replace(
        options,
        limits=Limits.load(settings.limits) if settings.limits else None,
        accept_unusual=settings.accept_unusual,
        nan=settings.nan,
    )
    with advice.fields("predict", settings):
        predict_scans.label(
            Segmenter.load(workdir, dtype=config.inference.dtype),
            inputs(settings.inputs, settings.layout),
            pathlib.Path(settings.output),
            settings.existing,
            options,
        )


def inputs(name: str, layout: str = "") -> Mapping[str, ScanInput | tuple[ScanInput, ...]]:
    """Name -> file, of one scan or of all in a folder; with a layout, name -> files, one per contrast.

    Args:
        name: of the scan or folder.
        layout: of a folder with one file per contrast; empty: one file per scan.

    Raises:
        ConfigError: no input is named, or the layout is unknown.
        FileError: the input does not exist.
    """
    if not name:
        raise ConfigError("config.predict.inputs is empty: name a scan or a folder of scans.")
    path = pathlib.Path(name)
    if layout:
        return {case.subject: case.images for case in layouts.list_cases(layout, path)}
    return {case.stem(path): path} if path.is_file() else case.scans(path)
