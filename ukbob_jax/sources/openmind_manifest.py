"""What OpenMind's manifests say: nnssl's `pretrain_data.json`, or the flat table, one row per image.

Both give the same entries. In the tree a collection has datasets (studies), these have subjects, sessions and images. The
flat table has a path per image, STUDY/SUBJECT/[SESSION/].../FILE. A quality score belongs to a study, a modality and what
the image was derived from; an image may carry its own.
"""

import csv
import io
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ukbob_jax import advice, files
from ukbob_jax.errors import ConfigError, EmptyError, FileError
from ukbob_jax.store.schema import ANATOMY, ANONYMISATION

SESSION = "ses-DEFAULT"  # of images without a session
SCORE = "image_quality_score"  # 1 (best) to 5
TREE_MASKS = {  # names of masks in the tree -> label set
    "anonymization_mask": ANONYMISATION,
    "anonymisation_mask": ANONYMISATION,
    "anatomy_mask": ANATOMY,
}
TABLE_MASKS = {"anon_mask_path": ANONYMISATION, "anat_mask_path": ANATOMY}  # columns -> label set
ARRAY_MASKS = {"__anon": ANONYMISATION, "__anat": ANATOMY}  # ends of names -> label set
COLUMNS = {  # facts of an image or its person -> attribute of the row
    "age": "age_years",
    "sex": "sex",
    "handedness": "handedness",
    "race": "race",
    "weight": "weight_kg",
    "bmi": "bmi_kg_m2",
    "health_status": "health_status",
    "derived_from": "derived_from",
    "is_brain_extract": "is_brain_extract",
    "manufacturer": "manufacturer",
    "model_name": "scanner",
    "phase_encoding_direction": "phase_encoding_direction",
    "magnetic_field_strength": "field_strength_t",
    "repetition_time": "repetition_time",
    "echo_time": "echo_time",
    SCORE: "quality_score",
}
NUMBERS = {"age", "weight", "bmi", "magnetic_field_strength", "repetition_time", "echo_time", SCORE}
MISSING = {"", "nan", "none", "null", "n/a", "na"}  # cells, in small letters
DERIVED_FOLDER = re.compile(r"_Data$")  # "sub-1_dwi__Data/FA.nii.gz" is the image "sub-1_dwi_FA.nii.gz"


class Entry(NamedTuple):
    """One image of a manifest.

    Attributes:
        study: id of its dataset.
        person: its subject's id within the study.
        session, name: within the person and the session.
        modality: such as "T1w".
        image: path, as the manifest writes it.
        masks: label set and path of each mask that there is.
        facts: by a name of `COLUMNS`, what is known of the image and the person; numbers where those are meant.
    """

    study: str
    person: str
    session: str
    name: str
    modality: str
    image: str
    masks: tuple[tuple[str, str], ...]
    facts: Mapping[str, Any]


def read(path: str) -> list[Entry]:
    """Read a manifest: .json is nnssl's tree, .csv, .tsv and .parquet are the flat table, a folder has nnssl's arrays.

    Raises:
        FileError: missing, not of that form, or a row or image without what it needs, which is named.
        EmptyError: it lists no image.
        ConfigError: another ending, or parquet without pandas.
    """
    ending = pathlib.Path(path).suffix.lower()
    if os.path.isdir(path):
        found = list(_folder(pathlib.Path(path)))
    elif ending == ".json":
        found = list(_tree(path, files.read_json(path)))
    elif ending in (".csv", ".tsv"):
        rows = csv.DictReader(
            io.StringIO(files.read_text(path), newline=""), delimiter="\t" if ending == ".tsv" else ","
        )
        found = list(_table(path, rows))
    elif ending == ".parquet":
        found = list(_table(path, _parquet(path)))
    else:
        raise ConfigError(f"{path}: expected nnssl's pretrain_data.json, or a table .csv, .tsv or .parquet.")
    if not found:
        raise EmptyError(f"{path}: names no image.")
    return found


class Paths:
    """Where the paths of a manifest lead on this machine."""

    def __init__(self, manifest: str, root: str, variables: Sequence[str]) -> None:
        """Take variables as NAME=FOLDER; others are looked up in the environment.

        Args:
            manifest: its path.
            root: folder that relative paths start from; "": the manifest's.
            variables: such as ("nnssl_raw=/data/raw",).
        Raises:
            ConfigError: not of that form.
        """
        self._manifest = manifest
        self._root = (root or os.path.dirname(os.path.abspath(manifest))).rstrip("/")
        self._known: dict[str, str] = {}
        for text in variables:
            name, equals, folder = text.partition("=")
            if not (name.strip("$ ") and equals and folder):
                raise ConfigError(
                    f"{advice.setting('variables') or 'variables'}: {text!r}: expected NAME=FOLDER."
                )
            self._known[name.strip("$ ")] = folder.rstrip("/")

    def resolve(self, path: str) -> str:
        """Return a path with its `$VARIABLE` replaced; a relative one begins at the root.

        Raises:
            ConfigError: the variable is not set.
        """
        if path.startswith("$"):
            name, _, rest = path[1:].partition("/")
            return f"{self._folder(name.strip('{}'))}/{rest}"
        return path if path.startswith("/") else f"{self._root}/{path}"

    def _folder(self, name: str) -> str:
        if name not in self._known:
            if not os.environ.get(name):
                more = advice.setting("variables", f"'(\"{name}=FOLDER\",)'")
                raise ConfigError(
                    f"{self._manifest}: paths begin with ${name}, which is not set. Set it in the environment"
                    f"{f', or give {more}' if more else ''}."
                )
            self._known[name] = os.environ[name].rstrip("/")
        return self._known[name]


def _tree(path: str, collection: Any) -> Iterator[Entry]:
    where = path
    try:
        for study, dataset in collection["datasets"].items():
            scores = _scores(dataset.get("dataset_info") or {})
            for person, subject in dataset["subjects"].items():
                of_person = _facts(subject.get("subject_info") or {})
                for session, visit in subject["sessions"].items():
                    where = f"{path}: {study}, {person}, {session}"
                    for image in visit["images"]:
                        yield _tree_entry((study, person, session), image, of_person, scores, where)
    except (AttributeError, KeyError, TypeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise FileError(f"{where}: not a tree of nnssl's pretrain_data.json ({what}). Correct it.") from error


def _tree_entry(
    ids: tuple[str, str, str],
    image: Mapping[str, Any],
    of_person: Mapping[str, Any],
    scores: Mapping[tuple[str, str], float],
    where: str,
) -> Entry:
    """One image of the tree.

    Raises:
        FileError: a mask of an unknown name.
    """
    modality, facts = str(image["modality"]), {**of_person, **_facts(image.get("image_info") or {})}
    if SCORE not in facts:
        score = scores.get((modality, str(facts.get("derived_from", ""))))
        facts.update({} if score is None else {SCORE: score})
    masks = {name: mask for name, mask in (image.get("associated_masks") or {}).items() if mask}
    if unknown := masks.keys() - TREE_MASKS.keys():
        raise FileError(
            f"{where}: mask {min(unknown)!r} is not known; expected anonymization_mask or anatomy_mask."
        )
    named = tuple((TREE_MASKS[name], str(mask)) for name, mask in masks.items())
    study, person, session = map(str, ids)
    name, path = str(image["name"]), str(image["image_path"])
    return Entry(study, person, session, name, modality, path, named, facts)


def _scores(about: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Quality scores of a study by modality and what images were derived from ("": nothing)."""
    return {
        (str(one["modality"]), str(_known(one.get("derived_from")) or "")): float(one[SCORE])
        for one in about.get(SCORE) or ()
        if _known(one.get(SCORE)) is not None
    }


def _table(path: str, rows: Any) -> Iterator[Entry]:
    """Entries of the flat table; the score of a row that has none is that of its study, modality and origin."""
    entries, scores = [], {}
    for number, row in enumerate(rows, 2):
        image, modality = _known(row.get("image_path")), _known(row.get("modality"))
        parts = str(image).split("/")
        if not image or not modality or len(parts) < 3:
            raise FileError(
                f"{path}: line {number}: image_path {image!r}, modality {modality!r}; expected "
                "STUDY/SUBJECT/.../FILE and a modality. Correct it."
            )
        facts = _facts(row)
        key = parts[0], modality, facts.get("derived_from", "")
        if SCORE in facts:
            scores.setdefault(key, facts[SCORE])
        session = parts[2] if parts[2].startswith("ses-") else SESSION
        name = parts[-1]
        if "derived_from" in facts:
            name = DERIVED_FOLDER.sub("", parts[-2]) + name
        masks = tuple((TABLE_MASKS[c], str(row[c])) for c in TABLE_MASKS if _known(row.get(c)))
        entries.append(
            (key, Entry(parts[0], parts[1], session, name, str(modality), str(image), masks, facts))
        )
    for key, entry in entries:
        if SCORE not in entry.facts and key in scores:
            entry = entry._replace(facts={**entry.facts, SCORE: scores[key]})
        yield entry


def _folder(folder: pathlib.Path) -> Iterator[Entry]:
    """Images that nnssl preprocessed: COLLECTION/STUDY/SUBJECT/SESSION/NAME.b2nd and masks beside them."""
    folder = folder.absolute()
    found = sorted(folder.rglob("*.b2nd"))
    present = {*found}
    for path in found:
        ids = path.relative_to(folder).parts[:-1]
        if path.stem.endswith(tuple(ARRAY_MASKS)):
            continue
        if len(ids) != 4:
            raise FileError(
                f"{path}: expected {folder.name}/COLLECTION/DATASET/SUBJECT/SESSION/NAME.b2nd. Name the folder of a "
                "configuration, such as nnsslPlans_onemmiso."
            )
        beside = {ending: path.with_name(f"{path.stem}{ending}.b2nd") for ending in ARRAY_MASKS}
        masks = tuple((ARRAY_MASKS[ending], str(mask)) for ending, mask in beside.items() if mask in present)
        yield Entry(*ids[1:], path.stem, "", str(path), masks, {})


def _parquet(path: str) -> Iterator[Mapping[str, Any]]:
    try:
        import pandas  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            f"{path}: reading parquet needs pandas and pyarrow: pip install pandas pyarrow, or save it as .csv."
        ) from error
    try:
        table = pandas.read_parquet(path)
    except Exception as error:  # of several engines, each with errors of its own
        raise FileError(f"{path}: not readable as parquet ({str(error).splitlines()[0]}).") from error
    names = list(table.columns)
    return (dict(zip(names, row)) for row in table.itertuples(index=False, name=None))


def _facts(said: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the names of `COLUMNS`; numbers where numbers are meant, as far as they are."""
    found = {}
    for name, value in said.items():
        if name in COLUMNS and _known(value) is not None:
            found[name] = _number(value) if name in NUMBERS else _flag(value)
    return found


def _known(value: Any) -> Any:
    """A cell, or None where it says nothing."""
    if value is None or value != value:  # NaN
        return None
    return None if isinstance(value, str) and value.strip().lower() in MISSING else value


def _flag(value: Any) -> Any:
    """True and False as a table writes them; all else as it is."""
    return (
        {"true": True, "false": False}.get(value.strip().lower(), value) if isinstance(value, str) else value
    )


def _number(value: Any) -> Any:
    """A number from a cell, or the cell where it is none, such as an age of "20-30"."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
