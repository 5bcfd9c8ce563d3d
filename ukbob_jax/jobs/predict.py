"""Label scans with the workdir's network: `config.predict.inputs` to `config.predict.output`, in each scan's space."""

import pathlib

import ml_collections

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference import averaging, predict_scans
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.quality.limits import Limits
from ukbob_jax.volumes import case, layouts


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Write a label map and a report for every scan, and tables of all; one that fails does not stop the others.

    Raises:
        ConfigError: no input is named, or an output exists and `config.predict.existing` is "refuse".
        FileError: an input or the checkpoint is missing.
        UkbobError: the only scan failed, for its own reason.
        SomeFailed: some scans failed; `failures.jsonl` in the output folder says which and why.
    """
    settings, window = config.predict, config.inference
    predict_scans.label(
        Segmenter.load(workdir, dtype=window.dtype),
        inputs(settings.inputs, settings.layout),
        pathlib.Path(settings.output),
        settings.existing,
        adapt=config.etta.to_dict() if settings.adapt else False,
        overlap=window.overlap,
        batch=window.batch,
        views=averaging.MIRRORED if window.mirror else averaging.PLAIN,
        limits=Limits.load(settings.limits) if settings.limits else None,
        gate=settings.gate,
    )


def inputs(given: str, layout: str = "") -> dict[str, pathlib.Path | tuple[pathlib.Path, ...]]:
    """Name -> file, of one scan or of all in a folder; with a layout, name -> files, one per contrast.

    Raises:
        ConfigError: nothing is named, or a layout there is not.
        FileError: nothing is there.
    """
    if not given:
        raise ConfigError("config.predict.inputs is empty: name a scan or a folder of scans.")
    path = pathlib.Path(given)
    if layout:
        return {case.subject: case.images for case in layouts.list_cases(layout, path)}
    return {case.stem(path): path} if path.is_file() else case.scans(path)
