"""The page to look at flagged labels and decide about them: `{workdir}/report/solf/index.html`.

What is decided there is exported as a file that `--config.solf.decisions` takes.
"""

import concurrent.futures
import heapq
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from ukbob_jax import anatomy, files
from ukbob_jax.errors import FileError
from ukbob_jax.evaluation import audit, grade_groups
from ukbob_jax.progress import track
from ukbob_jax.quality import cohort, grades, verdicts
from ukbob_jax.quality.limits import Limits
from ukbob_jax.quality.measures import FEATURES, OrganMeasures, stack
from ukbob_jax.quality.outliers import rank
from ukbob_jax.store.reader import Store
from ukbob_jax.store.row import Subject

_THREADS = 4


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Write the page from what the solf job found on label set `config.label`.

    Raises:
        ConfigError: the store lacks the contrast.
        FileError: the solf job has not been run, or its files are damaged.
    """
    settings, store = config.audit, Store.open(config.store)
    folder = verdicts.folder(store.path, config.label)
    if not (folder / verdicts.VERDICTS).is_file():
        raise FileError(f"{folder / verdicts.VERDICTS}: no verdicts yet. Run --config.job=solf,audit.")
    rows = files.read_jsonl(folder / verdicts.VERDICTS)
    limits = Limits.load(folder / "limits.json")
    subjects, measures, flagged = judged(config, store, rows, folder)
    graded = graded_labels(config, store)
    index = {subject: i for i, subject in enumerate(subjects)}
    by_sentinel = {(s, o) for s, organs in grades.flagged_organs(graded).items() for o in organs}
    ranking = rank(rows, by_sentinel | lowest(graded, settings.worst), by_sentinel)
    ranked = list(zip(ranking.rows, ranking.scores))
    order = looking_order(ranking.rows, graded)
    listed = [i for i, (row, _) in enumerate(ranked) if order[i] < settings.rows or "decision" in row]
    cases = [case(config, store, *ranked[i], limits, graded) for i in listed]
    shown = [c for c, i in zip(cases, listed) if order[i] < settings.cases]
    wanted = {
        c.organ: index[ranking.representative[c.organ]["subject"]]
        for c in shown
        if c.organ in ranking.representative
    }
    pictures = pictures_of(
        config, store, subjects, measures, [(index[c.subject], c.organ) for c in shown], wanted
    )
    cases = [c._replace(picture=pictures.get((index[c.subject], c.organ), "")) for c in cases]
    path = pathlib.Path(workdir) / "report" / "solf" / "index.html"
    names = store.label_names(config.label) or anatomy.NAMES
    told = summary_of(store, graded, names, settings.worst, settings.age_band_years)
    if told is not None:
        files.write_json(path.with_name("grades.json"), told)
    audit.write(
        path,
        title=pathlib.Path(store.path).name,
        label=config.label,
        names=names,
        limits=limits,
        measures=measures,
        flagged=flagged,
        cases=cases,
        unlisted=len(ranked) - len(cases),
        representatives={o: audit.Representative(subjects[i], pictures[i, o]) for o, i in wanted.items()},
        grades=told,
    )
    print(f"audit: {len(cases)} labels to look at: {path}", file=sys.stderr)


def graded_labels(config: ml_collections.ConfigDict, store: Store) -> grades.ByOrgan:
    """Return the grades of the label set, by subject and organ; empty where there are none."""
    path = config.audit.grades or verdicts.folder(store.path, config.label) / grades.GRADES
    if not config.audit.grades and not path.is_file():
        return {}
    found = grades.read(store.path, config.label, path)
    return {subject: of for subject, of in found.items() if subject in store.rows}


def lowest(graded: grades.ByOrgan, count: int) -> set[tuple[str, int]]:
    """Return (subject, organ) of the labels with the lowest grades."""
    every = ((grade.dice, subject, organ) for subject, of in graded.items() for organ, grade in of.items())
    return {(subject, organ) for _, subject, organ in heapq.nsmallest(count, every)}


def looking_order(rows: list[dict[str, Any]], graded: grades.ByOrgan) -> list[int]:
    """Return the place of each of `rows`, largest outlier score first, in the order in which labels get onto the page.

    Turn by turn comes the next by outlier score of those that SOLF flagged, and the next by grade.
    """
    places = [(row["subject"], row["organ"]) for row in rows]
    grade_of = {(s, o): grade.dice for s, of in graded.items() for o, grade in of.items()}
    by_grade = sorted(
        (i for i, place in enumerate(places) if place in grade_of), key=lambda i: grade_of[places[i]]
    )
    turn = {i: number for number, i in enumerate(by_grade)}
    first, count = [], 0
    for i, row in enumerate(rows):
        solf = count if row["flagged"] or "decision" in row else len(rows)
        count += solf < len(rows)
        first.append((min(solf, turn.get(i, len(rows))), i))
    place_of = {i: place for place, (_, i) in enumerate(sorted(first))}
    return [place_of[i] for i in range(len(rows))]


def summary_of(
    store: Store, graded: grades.ByOrgan, names: Mapping[int, str], worst: int, age_band: float
) -> dict[str, Any] | None:
    """Return the tables of grades by organ and by group of people; None: there are no grades."""
    if not graded:
        return None
    about = {subject: store.rows[subject].attributes for subject in graded}
    return {
        "organs": grade_groups.by_organ(graded, names),
        "groups": grade_groups.by_group(graded, about, age_band),
        "worst": worst,
    }


def judged(
    config: ml_collections.ConfigDict, store: Store, rows: list[dict[str, Any]], folder: pathlib.Path
) -> tuple[list[str], OrganMeasures, np.ndarray]:
    """Return the subjects, their measures as far as they were judged, and the verdicts."""
    subjects = list(dict.fromkeys(row["subject"] for row in rows))
    gone = [subject for subject in subjects if subject not in store.rows]
    if gone:
        raise FileError(f"{folder}: {gone[0]} is no longer in the store. Run --config.job=solf again.")
    body = cohort.body_set(store, config.label, config.solf.body)
    found, errors = cohort.measured(store, subjects, config.label, folder, config.solf.stations, body=body)
    for error in errors.values():
        raise error
    measures = stack([found[subject] for subject in subjects])
    index = {subject: i for i, subject in enumerate(subjects)}
    seen, flagged = np.zeros((2, *measures.voxels.shape), bool)
    for row in rows:
        place = index[row["subject"]], row["organ"]
        seen[place], flagged[place] = True, row["flagged"]
    return subjects, measures._replace(voxels=np.where(seen, measures.voxels, 0)), flagged


def case(
    config: ml_collections.ConfigDict,
    store: Store,
    row: dict[str, Any],
    score: float,
    limits: Limits,
    graded: grades.ByOrgan,
) -> audit.AuditCase:
    """Collect what the page shows of one label."""
    grade = graded.get(row["subject"], {}).get(row["organ"])
    by = (row["flagged"], grade is not None and grade.flagged)
    about = store.rows[row["subject"]].attributes
    groups = limits.groups_of([about])
    group = limits.groups.index(groups[0]) if groups else 0
    return audit.AuditCase(
        subject=row["subject"],
        organ=row["organ"],
        version=cohort.version(store, row["subject"], config.label),
        group=group,
        sex=str(about.get("sex") or ""),
        site=str(about.get("site") or ""),
        values=tuple(row[name] for name in FEATURES),
        outside=tuple(FEATURES.index(name) for name in row["outside"]),
        outlier_score=score,
        seam=row.get("seam_contact", 0.0),
        decision=row.get("decision", "") or (grade.decision if grade else ""),
        flagged_by={(True, True): "both", (True, False): "solf", (False, True): "sentinel"}.get(by, "none"),
        **({} if grade is None else _shown(grade)),
    )


def _shown(grade: grades.Grade) -> dict[str, Any]:
    """The fields of a case that say what a grader says."""
    ends = {"grade_low": grade.low, "grade_high": grade.high}
    return {"grade": grade.dice, **ends, "grade_reason": grade.reason}


def pictures_of(
    config: ml_collections.ConfigDict,
    store: Store,
    subjects: list[str],
    measures: OrganMeasures,
    cases: list[tuple[int, int]],
    wanted: dict[int, int],
) -> dict[tuple[int, int], str]:
    """Draw the cases, and the representative label of each of their organs.

    Returns:
        (number of the subject, organ) -> data URI.
    """
    places = list(dict.fromkeys([*cases, *((i, organ) for organ, i in wanted.items())]))
    spacing = np.array([store.rows[subject].spacing_mm for subject in subjects])
    extent = {p: (measures.last[p] - measures.first[p] + 1) * spacing[p[0]] for p in places}

    def one(place: tuple[int, int]) -> str:
        i, organ = place
        subject, row = subjects[i], store.rows[subjects[i]]
        fov = audit.field_of_view(extent[place], extent.get((wanted.get(organ), organ), extent[place]))
        box = measures.first[place], measures.last[place]
        start, size = audit.window(*box, fov, spacing[i], row.shape)
        image = store.crop(subject, "image", start, size)[..., channel(row, config.audit.contrast)]
        mask = store.crop(subject, f"label/{config.label}", start, size) == organ
        return audit.picture(image, mask, row.spacing_mm, anatomy.COLORS[organ])

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(places, track(pool.map(one, places), "audit", len(places), "picture")))


def channel(row: Subject, contrast: str) -> int:
    """Return the channel to show: the one named, or the last but one, in-phase for Dixon.

    Raises:
        ConfigError: the subject lacks it.
    """
    return row.channel_indices([contrast], "audit.contrast")[0] if contrast else max(0, len(row.channels) - 2)
