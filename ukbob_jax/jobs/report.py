"""One page from what the other jobs left in the workdir: `report/index.html` with its pictures."""

import pathlib
import sys

import ml_collections

from ukbob_jax.evaluation import report
from ukbob_jax.evaluation.pages import cohort, labels, pretraining, scores, training
from ukbob_jax.evaluation.report import Section
from ukbob_jax.quality import verdicts
from ukbob_jax.store.reader import Store

CLEAN, WITHOUT_SOLF = "clean", "without_solf"
AUDIT = "solf/index.html"  # what the audit job writes
LEAD = (
    "Noisy labels filtered, a network trained on what is left, and scans from other scanners adapted to. "
    "Everything below was computed by this run."
)
PRETRAINING = "A network trained on images without labels. Everything below was computed by this run."


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Write a section for every stage that has left results.

    Raises:
        FileError: there is no store, or a result is damaged.
    """
    folder = pathlib.Path(workdir)
    if "pretrain" in config:
        sections = [pretraining.section(folder, config.pretrain.method)]
        page = report.write(folder / "report", "ukbob_jax", PRETRAINING, sections)
        print(f"report: {page}", file=sys.stderr)
        return
    store = Store.open(config.store)
    sections = [cohort.section(store, config.label)]
    if (verdicts.folder(store.path, config.label) / verdicts.VERDICTS).exists():
        section = labels.section(store, config.label, config.solf.epsilon)
        if (folder / "report" / AUDIT).exists():
            section = section._replace(link=(AUDIT, "Look at the flagged labels one by one, and decide."))
        sections.append(section)
    runs = {"with SOLF": folder, "without SOLF": folder / WITHOUT_SOLF}
    runs = {title: path for title, path in runs.items() if (path / "metrics.jsonl").exists()}
    if runs:
        sections.append(training.section(runs))
    sections += score_sections(config, folder)
    page = report.write(folder / "report", "ukbob_jax", LEAD, sections)
    print(f"report: {page}", file=sys.stderr)


def score_sections(config: ml_collections.ConfigDict, folder: pathlib.Path) -> list[Section]:
    """Held-out scans and other scanners, where they were scored."""
    names = [
        name
        for name in (CLEAN, *config.evaluate.scanners)
        if (folder / "evaluation" / f"{name}.jsonl").exists()
    ]
    sections = []
    if CLEAN in names:
        rows = scores.rows_of(folder, CLEAN)
        variants, methods = (
            {"SOLF": rows, "SOLF + ETTA": rows},
            {"SOLF": scores.OFF, "SOLF + ETTA": scores.ETTA},
        )
        if (folder / WITHOUT_SOLF / "evaluation" / f"{CLEAN}.jsonl").exists():
            variants = {"no filter": scores.rows_of(folder / WITHOUT_SOLF, CLEAN), **variants}
            methods["no filter"] = scores.OFF
        sections.append(scores.clean_section(variants, methods))
    if names:
        stores = {name: Store.open(pathlib.Path(config.store).parent / name) for name in names}
        sections.append(scores.scanners_section(folder, names, stores, config.evaluate.label))
    return sections
