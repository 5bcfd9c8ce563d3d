"""The store a run worked on: how many scans of what, and what they look like."""

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.evaluation import montages
from ukbob_jax.evaluation.report import Picture, Section, Table
from ukbob_jax.store.reader import Store

SHOWN = 6  # subjects in the montage


def section(store: Store, label: str) -> Section:
    """Show counts, geometry, and coronal slices of the first subjects under label set `label`."""
    row = store.rows[store.subjects[0]]
    splits: dict[str, int] = {}
    for subject in store.subjects:
        name = store.rows[subject].split or "no split"
        splits[name] = splits.get(name, 0) + 1
    facts = [
        (
            "subjects",
            f"{len(store.subjects)} ({', '.join(f'{n} {name}' for name, n in sorted(splits.items()))})",
        ),
        ("grid of the first", " x ".join(map(str, row.shape)) + " voxels, x y z"),
        ("spacing", " x ".join(f"{s:.2f}" for s in row.spacing_mm) + " mm"),
        ("contrasts", ", ".join(row.contrasts)),
        ("structures in the first", str(len(store.present(store.subjects[0], label)))),
    ]
    return Section(
        "Cohort",
        "The scans of the store, and the labels as they came, errors included.",
        tables=[Table(("", ""), facts)],
        pictures=[
            Picture(
                "cohort", montage(store, label), "Coronal mid-slices, each under its labels below. R is left."
            )
        ],
    )


def montage(store: Store, label: str) -> bytes:
    """Draw the last contrast but one where there are several (in-phase of a Dixon scan), else the only one."""
    subjects = store.subjects[:SHOWN]
    images = [np.asarray(store.read(subject, "image")[..., -2:][..., 0], np.float32) for subject in subjects]
    labels = [store.read(subject, f"label/{label}") for subject in subjects]
    return montages.montage(images, labels, subjects, store.rows[subjects[0]].spacing_mm, anatomy.COLORS)
