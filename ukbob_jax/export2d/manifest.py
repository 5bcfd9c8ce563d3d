"""The tables of an export: rules, the data set's two JSON files or SAM-Med2D's, counts, and what left no trace.

rules.json                              written first: a folder has one set of rules
SAMed2D_v1.json                         {"images/X.png": ["masks/X--CCCC_III.png", ...]}
SAMed2D_v1_class_mapping_id.json        {"liver": "0005"}
image2label_train.json, label2image_test.json      style "demo": image -> masks, mask -> image, from the folder above
export2d.json                           the rules, and counts of non-empty masks per class, axis and contrast
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ukbob_jax import files
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.export2d import writing
from ukbob_jax.export2d.writing import RULES, Plan, Record

COUNTS = "export2d.json"
IMAGES_TO_MASKS, CLASSES = "SAMed2D_v1.json", "SAMed2D_v1_class_mapping_id.json"
TRAIN, TEST = "image2label_train.json", "label2image_test.json"
SCANS, PAPER_CLASSES = 51_761, 72  # of UKBOB


def begin(plan: Plan) -> None:
    """Make the folder, or go on in one with the same rules.

    Raises:
        ConfigError: it was written by other rules, or holds something else.
        FileError: it cannot be written.
    """
    folder, rules = pathlib.Path(plan.folder), json.loads(json.dumps(plan.rules()))
    path = folder / RULES
    if path.exists():
        found = files.read_json(path)
        if changed := [name for name in {**found, **rules} if found.get(name) != rules.get(name)]:
            name = changed[0]
            raise ConfigError(
                f"{folder}: was exported with {name}={found.get(name)!r}, now {rules.get(name)!r}. Go on with the same "
                "rules, or choose another folder."
            )
    elif folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: not empty, and no export. Choose another folder.")
    try:
        for name in ("images", "masks", "subjects"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be made: {error.strerror}. Choose another folder.") from error
    files.write_json(path, rules)


def collect(plan: Plan, subjects: Iterable[str]) -> dict[str, Any]:
    """Write the tables of those subjects that are done, in this order; return the counts.

    Files of subjects that the store no longer has are removed, so that every file is in the tables.
    """
    names = [s for s in subjects if plan.record_path(s).exists()]
    folder = pathlib.Path(plan.folder)
    known = set(names)
    for path in sorted((folder / "subjects").iterdir()):
        if path.stem not in known:
            writing.remove(plan, path.stem)
    tally = Tally.new(len(plan.exported))
    if plan.options.style == "demo":
        _write_demo(plan, names, tally)
    else:
        with _stream(folder / IMAGES_TO_MASKS) as put:
            for record in _records(plan, names):
                tally.add(plan, record)
                for image, masks in writing.entries(plan, record):
                    put(f"images/{image}.png", [f"masks/{mask}.png" for mask in masks])
    files.write_json(folder / CLASSES, {c.name: c.four for c in plan.exported.values()})
    counted = tally.to_json(plan)
    files.write_json(folder / COUNTS, {"rules": plan.rules(), **counted})
    return counted


def _records(plan: Plan, names: Iterable[str]) -> Iterator[Record]:
    for name in names:
        yield files.read_json(plan.record_path(name))


def _write_demo(plan: Plan, names: list[str], tally: "Tally") -> None:
    """SAM-Med2D's two files; paths begin with the folder's name, as its loader starts beside it."""
    folder = pathlib.Path(plan.folder)
    above = folder.resolve().name
    with _stream(folder / TRAIN) as train, _stream(folder / TEST) as test:
        for record in _records(plan, names):
            tally.add(plan, record)
            for image, masks in writing.entries(plan, record):
                image_path = f"{above}/images/{image}.png"
                paths = [f"{above}/masks/{mask}.png" for mask in masks]
                if record["split"] == plan.options.test_split:
                    for path in paths:
                        test(path, image_path)
                else:
                    train(image_path, paths)


@contextlib.contextmanager
def _stream(path: pathlib.Path) -> Iterator[Any]:
    """Write a JSON object entry by entry, beside `path` and then renamed: tens of millions fit no memory."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "w") as file:
            first = True

            def put(key: str, value: Any) -> None:
                nonlocal first
                file.write(f"{'{' if first else ','}\n{json.dumps(key)}: {json.dumps(value)}")
                first = False

            yield put
            file.write("{}\n" if first else "\n}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise FileError(f"{path}: cannot be written: {error.strerror}. Free space.") from error


class Tally(NamedTuple):
    """Counts over subjects.

    Attributes:
        masks: (code, axis) -> class id -> [slices that show it, masks written].
        axes: axis -> slices cut, images written, and what was left out.
        totals: "subjects", "images", "masks", "voxels".
    """

    masks: dict[tuple[str, str], dict[int, list[int]]]
    axes: dict[str, dict[str, int]]
    totals: dict[str, int]

    @classmethod
    def new(cls, number: int) -> "Tally":
        """Nothing counted yet."""
        return cls({}, {}, {"subjects": 0, "classes": number, "images": 0, "masks": 0, "voxels": 0})

    def add(self, plan: Plan, record: Record) -> None:
        """Count a subject's record."""
        self.totals["subjects"] += 1
        self.totals["voxels"] += record["voxels"]
        for axis, found in record["axes"].items():
            of_axis = self.axes.setdefault(
                axis, dict.fromkeys(("slices", "left_out_by_aspect", "small", "full", "constant"), 0)
            )
            of_axis["slices"] += found["slices"]
            if found.get("left_out") == "aspect":
                of_axis["left_out_by_aspect"] += found["slices"]
                continue
            of_axis["small"] += found["small"]
            of_axis["full"] += found["full"]
            for code in record["codes"]:
                self._add(code, axis, found)

    def _add(self, code: str, axis: str, found: dict[str, Any]) -> None:
        of_code = self.masks.setdefault((code, axis), {})
        for organ, slices in found["nonempty"].items():
            of_code.setdefault(int(organ), [0, 0])[0] += slices
        dark = set(found["constant"][code])
        self.axes[axis]["constant"] += len(dark)
        for index, organs in found["images"]:
            if index not in dark:
                self.totals["images"] += 1
                for organ, number in organs:
                    of_code[organ][1] += number
                    self.totals["masks"] += number

    def to_json(self, plan: Plan) -> dict[str, Any]:
        """The counts as they are written: by code, axis and class name."""
        by_code: dict[str, Any] = {}
        for (code, axis), organs in sorted(self.masks.items()):
            by_code.setdefault(code, {})[axis] = {
                plan.exported[organ].name: {"nonempty_slices": slices, "masks": masks}
                for organ, (slices, masks) in sorted(organs.items())
            }
        return {**self.totals, "slices": self.axes, "counts": by_code}


class CohortCounts(NamedTuple):
    """Masks of a cohort as large as UKBOB, along one axis and of one contrast.

    Attributes:
        with_empty: scans x classes x slices, which is how the paper's 1.37 billion comes about.
        nonempty: slices and classes that show anything, summed.
        masks: instances that are written under the export's rules.
    """

    with_empty: int
    nonempty: int
    masks: int


def cohort_counts(
    manifest: dict[str, Any],
    *,
    scans: int = SCANS,
    class_count: int = PAPER_CLASSES,
    axis: str = "z",
    code: str = "",
) -> CohortCounts:
    """Scale what an export counted to `scans` scans.

    51,761 scans x 72 classes x 368 axial slices are 1.3715 billion: the paper's number counts every class in every slice,
    also where it is not. The other two numbers count what is there.

    Args:
        manifest: the content of export2d.json.
        scans: of the cohort.
        class_count: classes that are counted per slice: 72 with the unused id 20.
        axis: whose slices count.
        code: of the contrast; "": the first.
    Raises:
        ConfigError: the manifest has no such axis or contrast, or no subject.
    """
    counts, subjects = manifest["counts"], manifest["subjects"]
    code = code or next(iter(counts), "")
    if not subjects or axis not in manifest["slices"] or axis not in counts.get(code, {}):
        raise ConfigError(
            f"no subject has slices along {axis!r} of {code!r}; there are {', '.join(counts) or 'none'}."
        )
    rows = counts[code][axis].values()
    per_scan = lambda number: round(scans * number / subjects)  # noqa: E731
    return CohortCounts(
        per_scan(class_count * manifest["slices"][axis]["slices"]),
        per_scan(sum(row["nonempty_slices"] for row in rows)),
        per_scan(sum(row["masks"] for row in rows)),
    )
