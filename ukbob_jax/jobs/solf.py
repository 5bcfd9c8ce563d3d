"""Which labels of a store hold: every organ of every subject measured, limits fitted, labels outside them flagged.

Written to `quality/<label set>` inside the store:

    measures*.npz           every measure of every organ and subject; a cache by label version
    limits.json             the ranges, enough to judge one new scan (job "check_labels")
    solf.jsonl              per subject and organ: the three measures, which are outside, flagged, decision
    missing.jsonl           per subject: organs that most of its group have and it lacks
    fix.jsonl               labels that a person wants corrected
    precision_recall.json   only where errors were planted: what either rule finds at every setting

A large cohort is measured by several processes, each with its shard (`config.solf.process` of `.processes`); a last
run without shards judges. New subjects are measured when the job runs again, the others are not.
"""

import hashlib
import pathlib
import sys

import jax
import ml_collections
import numpy as np

from ukbob_jax import anatomy, files, processes
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.failures import Failures
from ukbob_jax.quality import cohort, decisions, error_detection, solf, strata, verdicts
from ukbob_jax.quality.limits import Limits
from ukbob_jax.quality.measures import OrganMeasures, stack
from ukbob_jax.store.reader import Store
from ukbob_jax.store.row import Subject

RULES = ("percentile", "robust")
_COMMON = 0.5  # fraction of a group that has an organ whose absence is worth reporting


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Judge label set `config.label` of `config.store` by `config.solf`.

    Subjects whose label map is unchanged are not measured again, so the same command resumes.

    Raises:
        ConfigError: unknown rule, shard or stratum, or no subject has the label set.
        FileError: the limits or decisions that are named cannot be used.
        SomeFailed: some label maps could not be read; `failures.jsonl` in the workdir lists them.
    """
    settings, store = config.solf, Store.open(config.store)
    check(settings)
    subjects = [name for name, row in store.rows.items() if config.label in row.labels]
    if not subjects:
        raise ConfigError(
            f"{store.path}: no subject has a label set {config.label!r}. Correct --config.label."
        )
    folder = verdicts.folder(store.path, config.label)
    sharded = settings.processes > 1
    part = f".{settings.process}-of-{settings.processes}" if sharded else ""
    mine = processes.shard(subjects, settings.process, settings.processes)
    body = cohort.body_set(store, config.label, settings.body)
    found, errors = cohort.measured(store, mine, config.label, folder, settings.stations, part, body)
    subjects = [name for name in mine if name in found]
    if subjects and not sharded:
        judge(config, store, subjects, stack([found[name] for name in subjects]), folder)
    failures = Failures(pathlib.Path(workdir) / f"failures{part}.jsonl", "label maps", FileError)
    for name, error in errors.items():
        failures.add(name, "", "measure", error)
    failures.conclude(len(mine))


def check(settings: ml_collections.ConfigDict) -> None:
    """Refuse what cannot be used before anything is measured."""
    if settings.rule not in RULES:
        raise ConfigError(f"solf.rule={settings.rule!r}: choose one of {', '.join(RULES)}.")
    if settings.min_outside not in (1, 2, 3):
        raise ConfigError(f"solf.min_outside={settings.min_outside}: choose 1, 2 or 3 of the three measures.")
    strata.names([], settings.strata, settings.height_band_mm)


def judge(
    config: ml_collections.ConfigDict,
    store: Store,
    subjects: list[str],
    measures: OrganMeasures,
    folder: pathlib.Path,
) -> None:
    """Fit, flag, let decisions overrule, and write what was found."""
    settings = config.solf
    rows = [store.rows[name] for name in subjects]
    if settings.limits:
        limits, groups = load_limits(config, store, rows)
    else:
        groups = strata.names([row.attributes for row in rows], settings.strata, settings.height_band_mm)
        limits = fit_limits(
            config, store, subjects, solf.drop_small_organs(measures, settings.min_voxels), groups
        )
    limits.save(folder / "limits.json")
    out, by_rule = solf.apply_limits(measures, limits, groups, settings.min_outside)
    made = decisions.read(settings.decisions, config.label) if settings.decisions else []
    versions = {name: cohort.version(store, name, config.label) for name in subjects}
    present = np.asarray(measures.voxels) > 0
    flagged, decided, void = decisions.apply(made, subjects, versions, present, by_rule)
    if void:
        print(f"solf: {len(void)} of {len(made)} decisions are about labels not here", file=sys.stderr)
    listed = np.repeat((limits.count > 0).any(0)[None], len(subjects), 0)  # not structures of a few voxels,
    index = {subject: i for i, subject in enumerate(subjects)}
    for subject, organ in decided:  # unless somebody decided about one
        listed[index[subject], organ] = True
    measures = measures._replace(voxels=np.where(listed, measures.voxels, 0))
    files.write_jsonl(folder / verdicts.VERDICTS, verdicts.rows(subjects, measures, out, flagged, decided))
    files.write_jsonl(folder / "missing.jsonl", absent_organs(subjects, rows, measures, groups))
    to_fix = ((subject, organ) for (subject, organ), choice in decided.items() if choice == "fix")
    files.write_jsonl(folder / "fix.jsonl", ({"subject": s, "organ": o} for s, o in sorted(to_fix)))
    score(config, subjects, rows, measures, limits, by_rule, folder)


def load_limits(
    config: ml_collections.ConfigDict, store: Store, rows: list[Subject]
) -> tuple[Limits, list[str] | None]:
    """Load the limits that the recipe names, and name every subject's group.

    Subjects whose group the limits lack are not judged; their number is printed.
    """
    settings = config.solf
    limits = Limits.load(settings.limits)
    cohort.check_body(limits, cohort.body_set(store, config.label, settings.body), settings.limits)
    groups = limits.groups_of([row.attributes for row in rows], settings.height_band_mm)
    if groups is None:
        return limits, None
    lacking = [group for group in groups if group not in limits.groups]
    if lacking:
        print(
            f"solf: {len(lacking)} of {len(rows)} subjects are not judged: {settings.limits} has no group "
            f"{', '.join(sorted(set(lacking)))}",
            file=sys.stderr,
        )
    return limits.with_groups(groups), groups


def fit_limits(
    config: ml_collections.ConfigDict,
    store: Store,
    subjects: list[str],
    measures: OrganMeasures,
    groups: list[str] | None,
) -> Limits:
    """Fit limits by the recipe's rule, and note where they come from."""
    settings = config.solf
    options = {"groups": groups, "min_count": settings.min_count}
    if settings.rule == "percentile":
        limits = solf.fit(measures, settings.epsilon, **options)
    else:
        limits = solf.fit_robust(measures, settings.deviations, **options)
    maps = [[name, cohort.version(store, name, config.label)] for name in subjects]
    rule = {"min_voxels": settings.min_voxels, "min_outside": settings.min_outside}
    if groups is not None:
        rule |= {"strata": list(settings.strata), "height_band_mm": settings.height_band_mm}
    source = {
        "jax": jax.__version__,
        "store": pathlib.Path(store.path).name,
        "label": config.label,
        "body": cohort.body_name(cohort.body_set(store, config.label, settings.body)),
        "label_maps": hashlib.sha256(str(maps).encode()).hexdigest()[:16],
    }
    return limits._replace(rule=limits.rule | rule, provenance=limits.provenance | source)


def absent_organs(
    subjects: list[str], rows: list[Subject], measures: OrganMeasures, groups: list[str] | None
) -> list[dict]:
    """Find organs that a subject lacks and most of its group has: not a shape to judge, but worth reporting.

    Organs that only men have are not reported as missing for subjects whose attributes say that they are women.
    """
    present = np.asarray(measures.voxels) > 0
    rows_out = []
    names = np.array(groups if groups is not None else [""] * len(subjects))
    common = {group: present[names == group].mean(0) > _COMMON for group in set(names.tolist())}
    for subject, row, group, has in zip(subjects, rows, names.tolist(), present):
        lacks = common[group] & ~has
        if row.attributes.get("sex") == "F":
            lacks[list(anatomy.MALE_ONLY)] = False
        if lacks.any():
            rows_out.append({"subject": subject, "organs": np.flatnonzero(lacks).tolist()})
    return rows_out


def score(
    config: ml_collections.ConfigDict,
    subjects: list[str],
    rows: list[Subject],
    measures: OrganMeasures,
    limits: Limits,
    flagged: np.ndarray,
    folder: pathlib.Path,
) -> None:
    """Write which planted errors the limits found, and which either rule would find at any setting."""
    errors = [
        {"subject": name, **error}
        for name, row in zip(subjects, rows)
        for error in row.quality.get("planted", ())
    ]
    if not errors:
        return
    kind, kinds = error_detection.truth(subjects, errors, anatomy.NUM_CLASSES)
    files.write_json(
        folder / "precision_recall.json",
        {
            "planted": len(errors),
            "kinds": kinds,
            "chosen": {"rule": limits.rule, **error_detection.scores(measures, flagged, kind, kinds)},
            "rows": error_detection.sweep(measures, kind, kinds, config.solf.min_outside),
        },
    )
