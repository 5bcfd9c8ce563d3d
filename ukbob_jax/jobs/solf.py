"""Which labels of a store hold: every organ of every subject measured, limits fitted, labels outside them flagged.

Written to `quality/<label set>` inside the store:

    measures.npz            every measure of every organ and subject; a cache by label version
    limits.json             the ranges, enough to judge one new scan
    solf.jsonl              per subject and organ: the three measures, which are outside, flagged
    missing.jsonl           per subject: organs that most of the cohort has and this subject has not
    precision_recall.json   only where errors were planted: what either rule finds at every setting
"""

import concurrent.futures
import pathlib
import time

import ml_collections
import numpy as np

from ukbob_jax import anatomy, files, progress
from ukbob_jax.errors import ConfigError, FileError, SomeFailed
from ukbob_jax.quality import cache, planted, solf, verdicts
from ukbob_jax.quality.measures import OrganMeasures, measure, stack
from ukbob_jax.store.reader import Store

RULES = ("percentile", "robust")
_THREADS = 2  # one reads while the other counts
_SAVE_SECONDS = 30.0
_COMMON = 0.5  # share of the cohort that has an organ whose absence is worth telling


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Judge label set `config.label` of `config.store` by `config.solf` (epsilon, min_outside, rule, min_voxels).

    Subjects whose label map is unchanged are not measured again, so the same command resumes.

    Raises:
        ConfigError: no such rule, or no subject has the label set.
        SomeFailed: some label maps could not be read; `failures.jsonl` in the workdir lists them.
    """
    if config.solf.rule not in RULES:
        raise ConfigError(f"solf.rule={config.solf.rule!r}: choose one of {', '.join(RULES)}.")
    store = Store.open(config.store)
    subjects = [name for name, row in store.rows.items() if config.label in row["labels"]]
    if not subjects:
        raise ConfigError(
            f"{store.path}: no subject has a label set {config.label!r}. Correct --config.label."
        )
    folder = verdicts.folder(store.path, config.label)
    found, failures = measured(store, subjects, config.label, folder / "measures.npz")
    subjects = [name for name in subjects if name in found]
    if subjects:
        judge(config, store, subjects, stack([found[name] for name in subjects]), folder)
    report_failures(failures, len(subjects), pathlib.Path(workdir) / "failures.jsonl")


def measured(
    store: Store, subjects: list[str], label: str, path: pathlib.Path
) -> tuple[dict[str, OrganMeasures], list[dict]]:
    """Measures of every subject, from the cache where the label map is the same, and those that failed."""
    known, failures = cache.load(path), []
    keys = {name: f"{store.rows[name]['source']}:{store.rows[name]['version']}" for name in subjects}
    found = {name: known[name] for name in subjects if name in known and known[name][0] == keys[name]}
    missing = [name for name in subjects if name not in found]
    saved = time.monotonic()

    def one(name: str) -> OrganMeasures | FileError:
        try:
            return measure(
                store.read(name, f"label/{label}"), store.rows[name]["spacing_mm"], anatomy.NUM_CLASSES
            )
        except FileError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        results = progress.track(pool.map(one, missing), "solf", len(missing))
        for result, name in zip(results, missing):
            if isinstance(result, FileError):
                failures.append({"subject": name, "stage": "read", "reason": str(result)})
                continue
            found[name] = keys[name], result
            if time.monotonic() - saved > _SAVE_SECONDS:
                cache.save(path, found)
                saved = time.monotonic()
    if missing and found:
        cache.save(path, found)
    return {name: result for name, (_, result) in found.items()}, failures


def judge(
    config: ml_collections.ConfigDict,
    store: Store,
    subjects: list[str],
    measures: OrganMeasures,
    folder: pathlib.Path,
) -> None:
    """Fit, flag, and write what was found."""
    measures = solf.large(measures, config.solf.min_voxels)
    percentile = config.solf.rule == "percentile"
    limits = solf.fit(measures, config.solf.epsilon) if percentile else solf.fit_robust(measures)
    source = {"store": pathlib.Path(store.path).name, "label": config.label, "body": "union of labels"}
    limits = limits._replace(provenance=limits.provenance | source)
    limits.save(folder / "limits.json")
    out = solf.outside(measures, limits)
    flagged = solf.flag(measures, limits, config.solf.min_outside)
    files.write_jsonl(folder / verdicts.VERDICTS, verdicts.rows(subjects, measures, out, flagged))
    files.write_jsonl(folder / "missing.jsonl", missing(subjects, measures))
    errors = [
        {"subject": name, **error}
        for name in subjects
        for error in store.rows[name]["quality"].get("planted", ())
    ]
    if errors:
        kind, kinds = planted.truth(subjects, errors, anatomy.NUM_CLASSES)
        chosen = {"rule": limits.rule, **planted.scores(measures, flagged, kind, kinds)}
        rows = planted.sweep(measures, kind, kinds, config.solf.min_outside)
        files.write_json(
            folder / "precision_recall.json",
            {"planted": len(errors), "kinds": kinds, "chosen": chosen, "rows": rows},
        )


def missing(subjects: list[str], measures: OrganMeasures) -> list[dict]:
    """Organs that a subject lacks and most of the cohort has: not a shape to judge, but worth telling."""
    present = np.asarray(measures.voxels) > 0
    common = present.mean(0) > _COMMON
    lacking = ((name, np.flatnonzero(common & ~has).tolist()) for name, has in zip(subjects, present))
    return [{"subject": name, "organs": organs} for name, organs in lacking if organs]


def report_failures(failures: list[dict], done: int, path: pathlib.Path) -> None:
    """Write `failures.jsonl`, or remove an old one, and end the job as its exit code will say.

    Raises:
        FileError: every label map failed.
        SomeFailed: some did.
    """
    path.unlink(missing_ok=True)
    if not failures:
        return
    files.write_jsonl(path, failures)
    kind = SomeFailed if done else FileError
    raise kind(
        f"{len(failures)} of {done + len(failures)} label maps failed, listed in {path}. The first: {failures[0]['reason']}"
    )
