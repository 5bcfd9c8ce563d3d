"""Check label maps one by one, by limits that the solf job fitted before; the cohort is not needed.

    python -m ukbob_jax.main --config=configs/solf.py:check_labels --workdir=DIR \
        --config.check_labels.inputs=LABELS.nii.gz --config.check_labels.limits=STORE/quality/auto/limits.json

Writes `{workdir}/check_labels/NAME.jsonl`, a row per organ as in solf.jsonl, and prints the flagged ones.
"""

import pathlib

import ml_collections

from ukbob_jax import anatomy, files
from ukbob_jax.errors import ConfigError, SomeFailed, UkbobError
from ukbob_jax.failures import FILE, Failures
from ukbob_jax.progress import track
from ukbob_jax.quality import cohort, solf, verdicts
from ukbob_jax.quality.limits import Limits
from ukbob_jax.quality.measures import measure, stack
from ukbob_jax.volumes import case
from ukbob_jax.volumes.nifti import read_volume


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Check every label map that is named; one that fails does not stop the others.

    Raises:
        ConfigError: no input or no limits are named.
        FileError: they cannot be read.
        MismatchError: the limits were fitted with body masks, which a label map alone has not.
        UkbobError: the only label map failed, for its own reason.
        SomeFailed: some failed; `failures.jsonl` beside the verdicts says which and why.
    """
    settings = config.check_labels
    if not settings.inputs or not settings.limits:
        raise ConfigError(
            "config.check_labels.inputs and config.check_labels.limits: name label maps and a limits.json."
        )
    limits, given = Limits.load(settings.limits), pathlib.Path(settings.inputs)
    cohort.check_body(limits, "", settings.limits)
    maps = {case.stem(given): given} if given.is_file() else case.scans(given)
    folder = pathlib.Path(workdir) / "check_labels"
    failures = Failures(folder / FILE, "label maps", SomeFailed)
    for name, path in track(maps.items(), "check_labels"):
        try:
            rows = check(name, path, limits, {"sex": settings.sex, "height_mm": settings.height_mm})
        except UkbobError as error:
            if len(maps) == 1:
                raise
            failures.add(name, str(path), "check", error)
            continue
        files.write_jsonl(folder / f"{name}.jsonl", rows)
        print(line(name, rows))
    failures.conclude(len(maps))


def check(name: str, path: pathlib.Path, limits: Limits, attributes: dict[str, str | float]) -> list[dict]:
    """Return the verdict rows of one label map.

    Raises:
        InputError: the file is no label map with our ids, or its group is not among the limits'.
    """
    volume = read_volume(path, kind="label", num_classes=anatomy.NUM_CLASSES).to_ras()
    found = stack([measure(volume.array, volume.spacing_mm, limits.low.shape[1])])
    judgement = solf.apply_limits(found, limits, limits.groups_of([attributes]))
    return list(verdicts.rows([name], found, *judgement))


def line(name: str, rows: list[dict]) -> str:
    """Return the line that is printed for one label map."""
    organs = [f"{anatomy.NAMES[r['organ']]} ({', '.join(r['outside'])})" for r in rows if r["flagged"]]
    return f"{name}: {len(organs)} of {len(rows)} labels flagged{': ' if organs else ''}{'; '.join(organs)}"
