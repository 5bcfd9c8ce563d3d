"""Look at a source before ingesting it: what its files say, what is in them, and a picture. Writes no store."""

import pathlib
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import ml_collections
import nibabel
import numpy as np

from ukbob_jax import advice, anatomy, files, sources
from ukbob_jax.errors import ConfigError, SomeFailed, UkbobError
from ukbob_jax.evaluation import montages
from ukbob_jax.progress import track
from ukbob_jax.store import values as store_values
from ukbob_jax.store.prepare import Prepared, prepare
from ukbob_jax.store.row import Channel
from ukbob_jax.volumes import affine as affines
from ukbob_jax.volumes import case, formats, sets
from ukbob_jax.volumes.nifti import read_header

PERCENTILES = (0.5, 50, 99.5)


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Print what `config.inspect.subjects` of the source look like, read and converted as the ingest job would.

    The same facts are in `inspect.jsonl` in the workdir, and a contact sheet in `inspect.png`.

    Raises:
        ConfigError: a field of `config.source` or `config.inspect` cannot be used.
        InputError: the source cannot be listed, or none of the subjects can be read.
        SomeFailed: some subjects cannot be read; they are named in the output.
    """
    settings = config.inspect
    names = class_names(settings.names, config.source.get("label_map", ""))
    with advice.fields("source", config.source):
        subjects = sources.list_subjects(config.source.to_dict())
    chosen = subjects[: settings.subjects or None]
    print(f"{len(subjects)} subjects in the source, {len(chosen)} looked at")
    facts, rows, sheet, failures = [], [], [], []
    for source in track(chosen, "inspect"):
        try:
            with advice.fields("source", config.source):
                values = source.convert(source.read())
            stored = [on_disk(pathlib.Path(path)) for path in source.files() if case.is_scan(path)]
            found = prepare(source.subject, **values)
            described = describe(found, names)
            rows.append(found.row)
        except UkbobError as error:
            failures.append(error)
            facts.append({"subject": source.subject, "problem": str(error)})
        else:
            facts.append({**described, "subject": source.subject, "split": source.split, "files": stored})
            if len(sheet) < settings.pictures:
                sheet.append(picture(source.subject, values))
        print("\n".join(lines(facts[-1])), flush=True)
    for told in sets.unlike(rows):
        warnings.warn(told, stacklevel=2)
    files.write_jsonl(pathlib.Path(workdir) / "inspect.jsonl", facts)
    if sheet:
        path = pathlib.Path(workdir) / "inspect.png"
        files.write_bytes(path, montages.contact_sheet(sheet))
        print(f"pictures: {path}", file=sys.stderr)
    if failures and len(failures) == len(chosen):
        raise failures[0]
    if failures:
        raise SomeFailed(
            f"{len(failures)} of {len(chosen)} subjects cannot be read. The first: {failures[0]}"
        )


def class_names(asked: str, label_map: str) -> Mapping[int, str]:
    """Return id -> name: ours where ids are mapped to ours, else those of the label set asked for.

    Raises:
        ConfigError: unknown label set.
    """
    if label_map or asked == "ukbob":
        return anatomy.NAMES
    if asked and asked not in anatomy.DATASETS:
        choices = ", ".join(("ukbob", *anatomy.DATASETS))
        raise ConfigError(f"config.inspect.names: {asked!r} is unknown; choose from {choices}.")
    return anatomy.DATASETS.get(asked, {})


def on_disk(path: pathlib.Path) -> dict[str, Any]:
    """Read what a file says of itself, before anything is reoriented or resampled.

    Raises:
        FileError, GeometryError: as `read_volume`.
    """
    if formats.ending(path):
        stored = formats.read(path)
        shape, affine, dtype = stored.array.shape, stored.affine, stored.array.dtype
    else:
        header = read_header(path)
        shape, affine, dtype = header.shape, header.affine, header.dtype
    return {
        "file": str(path),
        "shape": list(shape),
        "spacing_mm": affines.spacing(affine).tolist(),
        "orientation": "".join(nibabel.aff2axcodes(affine)),
        "dtype": dtype.name,
    }


def describe(found: Prepared, names: Mapping[int, str]) -> dict[str, Any]:
    """Describe what would be stored: grid, percentiles of every channel's non-zero voxels, and voxels of every class."""
    row = found.row
    image = store_values.decode(found.image, row.slope, row.intercept)
    intensities = {}
    for channel, name in enumerate(row.contrasts):
        inside = image[..., channel][image[..., channel] != 0]
        percentiles = np.percentile(inside, PERCENTILES).tolist() if inside.size else [0.0] * len(PERCENTILES)
        intensities[name] = {
            "percentiles": percentiles,
            "non_zero": inside.size / image[..., channel].size,
        }
    return {
        "shape": list(row.shape),
        "spacing_mm": list(row.spacing_mm),
        "orientation": "".join(nibabel.aff2axcodes(np.asarray(row.affine))),
        "dtype": row.dtype,
        "remark": row.quality.get("stored", ""),
        "doubts": list(row.quality.get("doubts", ())),
        "modality": row.modality,
        "units": row.units,
        "intensity": intensities,
        "labels": {
            name: voxels(label, {**row.label_names.get(name, {}), **names})
            for name, label in found.labels.items()
        },
        "annotated": None if row.annotated is None else list(row.annotated),
    }


def voxels(label: np.ndarray, names: Mapping[int, str]) -> dict[str, int]:
    """Count the voxels of every class in `x y z`, by name."""
    counts = zip(*np.unique(label, return_counts=True))
    ignored = {anatomy.IGNORE: "ignored", 0: "background"}
    return {{**names, **ignored}.get(int(i), f"class {i}"): int(n) for i, n in counts}


def picture(title: str, values: Mapping[str, Any]) -> montages.SheetRow:
    """Draw a row of the contact sheet; the first label set in the alphabet is shown."""
    image = values["image"]
    given = values["contrasts"] or range(image.shape[-1])
    contrasts = [channel.name if isinstance(channel, Channel) else str(channel) for channel in given]
    label = next((values["labels"][name] for name in sorted(values["labels"])), None)
    spacing_mm = affines.spacing(np.asarray(values["affine"]))
    return montages.sheet_row(title, image, contrasts, label, spacing_mm, np.resize(anatomy.COLORS, (255, 3)))


def lines(fact: Mapping[str, Any]) -> list[str]:
    """Format the facts of one subject for people."""
    if "problem" in fact:
        return [f"\n{fact['subject']}: PROBLEM: {fact['problem']}"]
    text = [f"\n{fact['subject']}" + (f" ({fact['split']})" if fact["split"] else "")]
    text += [f"  {file['file']}: {grid(file)}" for file in fact["files"]]
    known = "".join(f", {fact[name]}" for name in ("modality", "units") if fact[name])
    text.append(f"  as stored: {grid(fact)}{known}")
    if fact["remark"]:
        text.append(f"    remark: {fact['remark']}")
    text += [f"    doubtful: {doubt}" for doubt in fact["doubts"]]
    for name, found in fact["intensity"].items():
        low, middle, high = found["percentiles"]
        text.append(
            f"    {name}: {low:g} to {high:g}, median {middle:g} ({100 * found['non_zero']:.0f} % of voxels not 0)"
        )
    for name, counts in fact["labels"].items():
        text.append(f"    label {name}: " + ", ".join(f"{organ} {n}" for organ, n in counts.items()))
    if fact["annotated"] is not None:
        text.append(f"    annotated for {len(fact['annotated'])} classes only: {fact['annotated']}")
    return text


def grid(found: Mapping[str, Any]) -> str:
    """Format voxels, spacing, orientation and, of a file, type in a few words."""
    shape, spacing = (" x ".join(f"{n:.4g}" for n in found[key]) for key in ("shape", "spacing_mm"))
    kind = f", {found['dtype']}" if "dtype" in found else ""
    return f"{shape} voxels of {spacing} mm, {found['orientation']}{kind}"
