"""Judge label maps one by one, by limits that the solf job fitted before; the cohort is not needed.

    python -m ukbob_jax.main --config=configs/solf.py:judge --workdir=DIR \
        --config.judge.inputs=LABELS.nii.gz --config.judge.limits=STORE/quality/auto/limits.json

Writes `{workdir}/judge/NAME.jsonl`, a row per organ as in solf.jsonl, and tells the flagged ones.
"""

import pathlib

import ml_collections
import numpy as np

from ukbob_jax import anatomy, files
from ukbob_jax.errors import ConfigError, SomeFailed, UkbobError
from ukbob_jax.progress import track
from ukbob_jax.quality import cohort, solf, strata, verdicts
from ukbob_jax.quality.limits import Limits
from ukbob_jax.quality.measures import measure, stack
from ukbob_jax.volumes import case
from ukbob_jax.volumes.nifti import read_volume


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Judge every label map that is named; one that fails does not stop the others.

    Raises:
        ConfigError: no input or no limits are named.
        FileError: they cannot be read.
        MismatchError: the limits were fitted with body masks, which a label map alone has not.
        UkbobError: the only label map failed, for its own reason.
        SomeFailed: some failed; `failures.jsonl` beside the verdicts says which and why.
    """
    settings = config.judge
    if not settings.inputs or not settings.limits:
        raise ConfigError("config.judge.inputs and config.judge.limits: name label maps and a limits.json.")
    limits, given = Limits.load(settings.limits), pathlib.Path(settings.inputs)
    cohort.check_body(limits, "", settings.limits)
    maps = {case.stem(given): given} if given.is_file() else case.scans(given)
    folder, failures = pathlib.Path(workdir) / "judge", []
    for name, path in track(maps.items(), "judge"):
        try:
            rows = judge(name, path, limits, {"sex": settings.sex, "height_mm": settings.height_mm})
        except UkbobError as error:
            if len(maps) == 1:
                raise
            failures.append({"subject": name, "file": str(path), "stage": "judge", "reason": str(error)})
            continue
        files.write_jsonl(folder / f"{name}.jsonl", rows)
        print(line(name, rows))
    (folder / "failures.jsonl").unlink(missing_ok=True)
    if failures:
        files.write_jsonl(folder / "failures.jsonl", failures)
        raise SomeFailed(
            f"{len(failures)} of {len(maps)} label maps failed, listed in {folder / 'failures.jsonl'}."
        )


def judge(name: str, path: pathlib.Path, limits: Limits, attributes: dict[str, str | float]) -> list[dict]:
    """The verdict rows of one label map.

    Raises:
        InputError: the file is no label map with our ids, or its group is not among the limits'.
    """
    volume = read_volume(path, kind="label", num_classes=anatomy.NUM_CLASSES).to_ras()
    found = stack([measure(volume.array, volume.spacing_mm, limits.low.shape[1])])
    by = limits.rule.get("strata", ())
    groups = [strata.name(attributes, by, limits.rule["height_band_mm"])] if by else None
    out = solf.outside(found, limits, groups)
    flagged = out.sum(-1) >= limits.rule.get("min_outside", 2)
    return list(verdicts.rows([name], found, np.asarray(out), flagged))


def line(name: str, rows: list[dict]) -> str:
    """What the user is told of one label map."""
    organs = [f"{anatomy.NAMES[r['organ']]} ({', '.join(r['outside'])})" for r in rows if r["flagged"]]
    return f"{name}: {len(organs)} of {len(rows)} labels flagged{': ' if organs else ''}{'; '.join(organs)}"
