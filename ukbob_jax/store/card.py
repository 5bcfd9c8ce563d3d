"""What a store holds, counted from its manifest alone: no voxel is read, and nothing of a single person is told.

Groups of fewer than `FEWEST` people are not told apart, and ages only as bands of ten years.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax.store import people
from ukbob_jax.store.row import Subject

FEWEST = 5  # people of a group that is told


def describe(rows: Iterable[Subject]) -> dict[str, Any]:
    """Count what the rows of a manifest say: JSON values.

    Returns:
        subjects, persons, `splits` (subjects of each), `contrasts` (subjects that have each), `modalities`, `units`,
        `spacing_mm`, `shape` and `extent_mm` (least, median and most of each axis), `label_sets` (by name: subjects,
        `classes`: name or id -> subjects that have it, `partial`: subjects annotated for some classes only), `people`
        (groups by sex, age and site, with how many have none and how many are in groups too small to be told), `remarks`
        (findings about scans, how often each).
    """
    found = list(rows)
    geometry = {
        "spacing_mm": [row.spacing_mm for row in found],
        "shape": [row.shape for row in found],
        "extent_mm": [np.multiply(row.spacing_mm, row.shape).tolist() for row in found],
    }
    return {
        "subjects": len(found),
        "persons": len({row.owner for row in found}),
        "splits": _counted(row.split or "none" for row in found),
        "contrasts": _counted(name for row in found for name in dict.fromkeys(row.contrasts)),
        "modalities": _counted(row.modality or "not said" for row in found),
        "units": _counted(row.units or "not said" for row in found),
        **{name: _range(values) for name, values in geometry.items()},
        "label_sets": {
            name: _label_set(found, name) for name in sorted({n for row in found for n in row.labels})
        },
        "people": {
            attribute: groups for attribute in people.ATTRIBUTES if (groups := _people(found, attribute))
        },
        "remarks": _counted(
            doubt.partition(":")[0] for row in found for doubt in row.quality.get("doubts", ())
        ),
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    """Value -> how often, most frequent first."""
    return dict(collections.Counter(values).most_common())


def _range(values: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Least, median and most along each axis."""
    array = np.array(values, np.float64).reshape(-1, 3)
    if not len(array):
        return {}
    return {
        name: [round(float(v), 4) for v in of]
        for name, of in (("least", array.min(0)), ("median", np.median(array, 0)), ("most", array.max(0)))
    }


def _label_set(rows: Sequence[Subject], name: str) -> dict[str, Any]:
    having = [row for row in rows if name in row.labels]
    classes = collections.Counter(i for row in having for i in row.present.get(name, ()))
    names: dict[int, str] = {}
    for row in having:
        names |= {i: text for i, text in row.label_names.get(name, {}).items() if i not in names}
    return {
        "subjects": len(having),
        "partial": sum(row.annotated is not None for row in having),
        "classes": {
            (f"{i} {names[i]}" if i in names else str(i)): count for i, count in sorted(classes.items())
        },
    }


def _people(rows: Sequence[Subject], attribute: str) -> dict[str, Any]:
    """Groups of persons; {} where the attribute is known of nobody."""
    persons: Mapping[str, Subject] = {row.owner: row for row in reversed(rows)}
    groups = [people.group_of(row.attributes, attribute) for row in persons.values()]
    counts = collections.Counter(group for group in groups if group)
    if not counts:
        return {}
    told = {
        name: n
        for name, n in sorted(counts.items(), key=lambda pair: people.in_order(pair[0]))
        if n >= FEWEST
    }
    return {
        "groups": told,
        "unknown": groups.count(""),
        "in_small_groups": sum(counts.values()) - sum(told.values()),
    }
