"""What the headers of label maps call their ids, where the files of a data set agree on it."""

import pathlib
import warnings
from collections.abc import Mapping, Sequence

from ukbob_jax.errors import InputError
from ukbob_jax.volumes.case import Case
from ukbob_jax.volumes.nifti import read_label_names


def collect(cases: Sequence[Case]) -> list[dict[str, dict[int, str]]]:
    """Return per case and label set what the headers of label maps call their ids.

    Names count where an id has the same one in every file and in what the data set itself says. Where an id has two, a
    warning gives both, and of that label set no names of files are kept.
    """
    found = [{name: _own_names(path) for name, path in case.labels.items()} for case in cases]
    for label_set in dict.fromkeys(name for case in cases for name in case.labels):
        first: dict[int, tuple[str, str]] = {}  # id -> name, and who says so
        for case, names in zip(cases, found):
            said = case.description.label_names.get(label_set, {})
            claims = [("the data set", said), (case.subject, names.get(label_set, {}))]
            clash = _clash(first, claims)
            if clash:
                warnings.warn(
                    f"label set {label_set!r}: {clash}. Names in the headers of label maps are left out; where ids mean "
                    "different things, renumber the files.",
                    stacklevel=3,
                )
                for one in found:
                    one.pop(label_set, None)
                break
    return [{label_set: ids for label_set, ids in names.items() if ids} for names in found]


def _clash(first: dict[int, tuple[str, str]], claims: Sequence[tuple[str, Mapping[int, str]]]) -> str:
    """The first id that gets a second name, in words; "" and `first` filled where there is none."""
    for who, names in claims:
        for i, name in names.items():
            known, by = first.setdefault(i, (name, who))
            if i and known.strip().lower() != name.strip().lower():
                return f"id {i} is {known!r} in {by} and {name!r} in {who}"
    return ""


def _own_names(path: pathlib.Path) -> dict[int, str]:
    """Names in a label map's header; none for a folder of masks, and for a file that reading will refuse."""
    try:
        return {} if path.is_dir() else read_label_names(path)
    except InputError:
        return {}
