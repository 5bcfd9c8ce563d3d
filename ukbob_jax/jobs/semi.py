"""Learning from labels that a network made: which of them to keep.

For every seed of `config.semi`: a teacher learns from the scans that have labels (arm "none"), labels the others, and for
every method a network of the same recipe learns from both, without the labels that the method trusts least. In the workdir:

    seedS/METHOD           the training, and verdicts.jsonl: the trust in each label, and whether it is left out
    semi.jsonl, semi.csv   a row per seed and method: Dice, labels kept and, to choose them, seconds, memory and disk
    semi.summary.json      means over seeds, and differences from "none" seed by seed

The same command resumes: rows that are there and trainings that are finished are passed over.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ukbob_jax import files, jobs
from ukbob_jax.active import campaign, learning, pseudo, records
from ukbob_jax.active.committee import Scorer
from ukbob_jax.active.learning import Cohort
from ukbob_jax.active.patches import Unit
from ukbob_jax.active.recipe import scorer_of
from ukbob_jax.data.options import Config
from ukbob_jax.errors import ConfigError
from ukbob_jax.evaluation.statistics import paired
from ukbob_jax.quality import verdicts
from ukbob_jax.settings import with_fields
from ukbob_jax.store.reader import Store

ROWS, TABLE, SUMMARY = "semi.jsonl", "semi.csv", "semi.summary.json"
COLUMNS = (
    *("seed", "method", "dice", "labelled", "pseudo_labelled", "labels", "kept"),
    *("seconds", "memory_bytes", "disk_bytes"),
)


def run(config: Config, workdir: str) -> None:
    """Train and score every method of `config.semi` with every seed.

    Raises:
        ConfigError: a field cannot be used.
        FileError: no store, or no grader.
        Preempted: asked to stop; the same command goes on.
    """
    settings, folder = config.semi, pathlib.Path(workdir)
    check(config)
    store = Store.open(config.store)
    cohort = learning.cohort_of(config, store, workdir)
    having = [subject for subject in cohort.train if config.label in store.rows[subject].labels]
    if not 0 < settings.labelled <= len(having):
        raise ConfigError(
            f"config.semi.labelled: {settings.labelled}, but {len(having)} scans to train on have {config.label!r}."
        )
    campaign.check_settings(folder, config, cohort.train)
    config = learning.resolved(config, store, cohort, having)
    path = folder / ROWS
    rows = files.read_jsonl(path) if path.exists() else []
    for seed in settings.seeds:
        drawn = np.random.default_rng(seed).permutation(len(having))[: settings.labelled]
        labelled = [having[i] for i in sorted(drawn.tolist())]
        for method in ("none", *(name for name in settings.methods if name != "none")):
            if any(row["seed"] == seed and row["method"] == method for row in rows):
                continue
            rows.append(arm(config, folder / f"seed{seed}", cohort, labelled, method, seed))
            files.write_jsonl(path, rows)
    files.write_csv(folder / TABLE, COLUMNS, [{name: row.get(name) for name in COLUMNS} for row in rows])
    summary = summarise(rows)
    files.write_json(folder / SUMMARY, summary)
    for method, found in summary.items():
        print(f"semi: {method}: Dice {found['dice']}", file=sys.stderr)


def check(config: Config) -> None:
    """Refuse settings that cannot be used before anything is trained."""
    settings = config.semi
    for name in settings.methods:
        if name not in pseudo.METHODS:
            raise ConfigError(
                f"config.semi.methods: {name!r} is unknown; choose from {', '.join(pseudo.METHODS)}."
            )
    if not 0 < settings.keep <= 1:
        raise ConfigError(f"config.semi.keep: {settings.keep} is not a fraction above 0, at most 1.")
    if "sentinel" in settings.methods and not config.active.grader:
        raise ConfigError("config.active.grader: empty; give the workdir of a trained Sentinel.")
    if "dropout" in settings.methods and config.active.members < 2:
        raise ConfigError("config.active.members: draws of dropout to compare; take 2 or more.")


def arm(
    config: Config, folder: pathlib.Path, cohort: Cohort, labelled: Sequence[str], method: str, seed: int
) -> dict[str, Any]:
    """Train one network, on scans with labels alone ("none") or with what `method` keeps of the teacher's labels."""
    trained = (jobs.find("train").run, jobs.find("evaluate").run)
    others = [subject for subject in cohort.train if subject not in set(labelled)]
    row: dict[str, Any] = {"seed": seed, "method": method, "labelled": len(labelled)}
    here = folder / method
    if method == "none":
        dice = learning.learn(config, here, labelled, cohort, trained, seed)
        return {**row, "pseudo_labelled": 0, "dice": files.json_number(dice)}
    name = f"{config.semi.name}_{seed}"
    whole = [Unit(s, (0, 0, 0), Store.open(config.store).rows[s].shape) for s in labelled]
    records.write_labels(config.store, config.label, name, whole)
    teacher = one_network(config, folder)
    digest = teacher.committee.segmenter.digest
    pseudo.write_labels(config.store, teacher, others, name, config.label, digest)
    costs: dict[str, Any] = {}
    with pseudo.measured(costs):
        trust, kept, extra = judged(config, folder, others, name, method, seed)
    pseudo.write_verdicts(here / "verdicts.jsonl", trust, kept)
    costs["disk_bytes"] = pseudo.size_of(here / "verdicts.jsonl", *extra)
    changes = {"label": name, "data.flagged": "ignore", "data.flagged_by": "solf"}
    changes["data.verdicts"] = str(here / "verdicts.jsonl")
    dice = learning.learn(config, here, [*labelled, *others], cohort, trained, seed, **changes)
    count = {"pseudo_labelled": len(others), "labels": len(trust), "kept": len(kept)}
    return {**row, **count, **costs, "dice": files.json_number(dice)}


def judged(
    config: Config, folder: pathlib.Path, others: Sequence[str], name: str, method: str, seed: int
) -> tuple[dict[pseudo.Key, float], set[pseudo.Key], list[pathlib.Path]]:
    """Trust in each label of the teacher, the labels that are kept, and what the method has written meanwhile."""
    store = Store.open(config.store)
    keys = pseudo.organs_of(store, others, name)
    if method == "all":
        return dict.fromkeys(keys, 1.0), set(keys), []
    if method == "solf":
        jobs.find("solf").run(with_fields(config, {"label": name}), str(folder / method))
        found = verdicts.folder(config.store, name)
        trust, kept = pseudo.solf_trust(found / verdicts.VERDICTS, keys)
        return trust, kept, [found]
    if method == "random":
        trust = pseudo.by_chance(keys, np.random.default_rng([seed, 1]))
    elif method == "sentinel":
        teacher = one_network(config, folder, config.active.grader)
        contrast = teacher.committee.segmenter.card.contrasts[0]
        trust = pseudo.by_grade(store, teacher.grader, others, name, contrast)
    else:
        dropout = with_fields(config, {"active.ensemble": "dropout", "active.grader": ""})
        scorer = (
            scorer_of(dropout, store, [str(folder / "none" / "member0")])
            if method == "dropout"
            else one_network(config, folder)
        )
        trust = pseudo.by_map(scorer, others, name, pseudo.MAPS[method])
    return trust, pseudo.most_trusted(trust, config.semi.keep), []


def one_network(config: Config, folder: pathlib.Path, grader: str = "") -> Scorer:
    """The teacher as it was trained."""
    plain = with_fields(config, {"active.ensemble": "seeds", "active.grader": grader})
    return scorer_of(plain, Store.open(config.store), [str(folder / "none" / "member0")])


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Method -> mean Dice and costs over seeds, and the Dice beside that of "none" seed by seed."""
    summary: dict[str, Any] = {}
    base = {row["seed"]: row["dice"] for row in rows if row["method"] == "none"}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = {row["seed"]: row for row in rows if row["method"] == method}
        means = {}
        for name in COLUMNS[2:]:
            known = [row[name] for row in own.values() if row.get(name) is not None]
            means[name] = float(np.mean(known)) if known else None
        pair = paired(*([np.nan if v is None else v for v in values] for values in (
            [base.get(seed) for seed in own], [row["dice"] for row in own.values()],
        )))  # fmt: skip
        means["against_none"] = {name: files.json_number(value) for name, value in pair._asdict().items()}
        summary[method] = means
    return summary
