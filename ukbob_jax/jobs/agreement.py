"""How well automatic labels agree with manual ones, per organ, before and after the label filter: the paper's table.

Prints the table and writes it to `{workdir}/agreement/AUTO_MANUAL.json` and `.csv`; scores of single labels are in
`.jsonl`. Needs the solf job's verdicts on the automatic labels, or what else `config.data.flagged_by` names.
"""

import pathlib
from typing import Any

import ml_collections

import ukbob_jax
from ukbob_jax import files
from ukbob_jax.errors import ConfigError
from ukbob_jax.evaluation import agreement, failures
from ukbob_jax.progress import track
from ukbob_jax.quality import filters
from ukbob_jax.store.reader import Store


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Compare label sets `config.agreement.auto` and `.manual` of every subject that has both.

    Subjects whose label maps are unchanged are not compared again.

    Raises:
        ConfigError: unknown subset or split, or no subject has both label sets.
        FileError: there is no store, or no verdicts on, or grades of, the automatic labels.
    """
    settings, store = config.agreement, Store.open(config.store)
    organs = agreement.organs(settings.subset)
    data = config.data
    paths = {"verdicts_path": data.verdicts, "grades_path": data.grades}
    flagged = filters.choose(data.flagged_by, store.path, settings.auto, **paths).flagged
    pool = store.split(settings.split) if settings.split else store.subjects
    subjects = [s for s in pool if {settings.auto, settings.manual} <= set(store.rows[s].labels)]
    if not subjects:
        raise ConfigError(
            f"{store.path}: no subject has both label sets {settings.auto!r} and {settings.manual!r}."
        )
    name = f"{settings.auto}_{settings.manual}"
    folder = pathlib.Path(workdir) / "agreement"
    rows = []
    for subject in track(subjects, "agreement"):
        rows += compared(store, subject, settings, organs, folder / name / f"{subject}.json")
    table = agreement.table(rows, flagged, organs, failures.diagonals_mm(store.rows, subjects))
    files.write_jsonl(folder / f"{name}.jsonl", rows)
    files.write_json(
        folder / f"{name}.json", {"subjects": len(subjects), **settings.to_dict(), "table": table}
    )
    files.write_csv(folder / f"{name}.csv", list(table[0]), table)
    print(agreement.text(table))


def compared(
    store: Store,
    subject: str,
    settings: ml_collections.ConfigDict,
    organs: dict[int, str],
    path: pathlib.Path,
) -> list[dict[str, Any]]:
    """Score one subject, or read its scores from its file where label maps, settings and code are the same."""
    row, sets = store.rows[subject], (settings.auto, settings.manual)
    maps = store.identity(subject, *(f"label/{s}" for s in sets))
    options = {name: value for name, value in settings.to_dict().items() if name != "split"}
    made_with = [ukbob_jax.__version__, options, organs]
    key = files.fingerprint([maps, made_with])
    if path.exists() and (known := files.read_json(path))["key"] == key:
        return known["rows"]
    auto, manual = (store.read(subject, f"label/{s}") for s in sets)
    labelled = set(organs if row.annotated is None else row.annotated)
    annotated = [organ for organ in organs if organ in labelled]
    scores = agreement.score(auto, manual, row.spacing_mm, annotated, settings.tolerance_mm)
    rows = [{"subject": subject, **score} for score in scores]
    files.write_json(path, {"key": key, "rows": rows})
    return rows
