"""Label scans with the workdir's network: `config.predict.inputs` to `config.predict.output`, in each scan's space."""

import pathlib

import ml_collections

from ukbob_jax import files
from ukbob_jax.errors import ConfigError, SomeFailed, UkbobError
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.progress import track
from ukbob_jax.volumes import case


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Write a label map and a report for every scan that has none yet; one that fails does not stop the others.

    Raises:
        ConfigError: no input is named, or an output exists and `config.predict.existing` is "refuse".
        FileError: an input or the checkpoint is missing.
        UkbobError: the only scan failed, for its own reason.
        SomeFailed: some scans failed; `failures.jsonl` in the output folder says which and why.
    """
    settings = config.predict
    segmenter = Segmenter.load(workdir)
    output = pathlib.Path(settings.output)
    scans = inputs(settings.inputs)
    failures = []
    for name, path in track(scans.items(), "predict"):
        target = output / f"{name}.nii.gz"
        if target.exists() and not wanted(target, settings.existing):
            continue
        try:
            adapt = config.etta.to_dict() if settings.adapt else False
            found = segmenter.predict(
                path, adapt, overlap=config.inference.overlap, batch=config.inference.batch
            )
        except UkbobError as error:
            if len(scans) == 1:
                raise
            failures.append({"subject": name, "file": str(path), "stage": "predict", "reason": str(error)})
            continue
        found.save(target)
    if failures:
        files.write_jsonl(output / "failures.jsonl", failures)
        raise SomeFailed(
            f"{len(failures)} of {len(scans)} scans failed, listed in {output / 'failures.jsonl'}."
        )


def inputs(given: str) -> dict[str, pathlib.Path]:
    """Name -> file, of one scan or of all in a folder.

    Raises:
        ConfigError: nothing is named.
        FileError: nothing is there.
    """
    if not given:
        raise ConfigError("config.predict.inputs is empty: name a scan or a folder of scans.")
    path = pathlib.Path(given)
    return {case.stem(path): path} if path.is_file() else case.scans(path)


def wanted(target: pathlib.Path, existing: str) -> bool:
    """Whether to write `target` although it exists.

    Raises:
        ConfigError: the recipe says to refuse, or something there is not.
    """
    if existing == "refuse":
        raise ConfigError(
            f"{target} exists. Choose another folder, or --config.predict.existing=skip or overwrite."
        )
    if existing not in ("skip", "overwrite"):
        raise ConfigError(f"config.predict.existing: {existing!r} is not one of refuse, skip, overwrite.")
    return existing == "overwrite"
