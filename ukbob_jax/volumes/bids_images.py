"""Which scans of a BIDS data set are images, and of which subject; label maps are found for them by `layouts.bids`."""

import math
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ukbob_jax.errors import EmptyError, FileError
from ukbob_jax.volumes.bids_files import Name, Sidecars, parse
from ukbob_jax.volumes.case import is_scan, listed, selector, stem

EVERY = "*"  # in place of contrasts: every image is a subject of its own
NO_IMAGES = ("dseg", "mask", "probseg", "boldref", "xfm")  # suffixes of scans that no such subject is made of
OF_SPACE = ("space", "res", "den")  # entities of a derived image that does not lie where its scan did
NONE = "none"  # selects files without the entity
UNKNOWN = ("", "n/a")  # cells of a table that say nothing


class File(NamedTuple):
    """A scan and its name, taken apart."""

    path: pathlib.Path
    name: Name
    folder: str  # below the root of its data set, such as sub-01/ses-1/anat


class Image(NamedTuple):
    """The files of one subject of a store."""

    subject: str
    folder: str
    entities: Mapping[str, str]  # of all channels
    files: dict[str, File]  # contrast -> file
    problems: list[str]  # why it cannot be used; empty: it can


def list_files(root: pathlib.Path) -> list[File]:
    """The scans of all subjects below `root`, sorted."""
    folders = [f for g in ("sub-*/*", "sub-*/ses-*/*") for f in root.glob(g) if f.is_dir()]
    folders = [f for f in folders if not f.name.startswith("ses-")]
    return [
        File(path, parse(stem(path)), folder.relative_to(root).as_posix())
        for folder in sorted(folders)
        for path in sorted(folder.iterdir())
        if is_scan(path)
    ]


def of_contrasts(root: pathlib.Path, present: list[File], contrasts: Sequence[str]) -> list[Image]:
    """Images that have all contrasts, under the name that is left without the contrast."""
    asked = {contrast: parse(contrast) for contrast in contrasts}
    found: dict[tuple[str, str], Image] = {}
    for file in present:
        fits = [c for c, name in asked.items() if _is_contrast(file.name, name)]
        if fits:
            contrast = max(fits, key=lambda c: len(asked[c].entities))  # the one that says most
            rest = {k: v for k, v in file.name.entities.items() if k not in asked[contrast].entities}
            subject = "_".join(f"{key}-{value}" for key, value in rest.items())
            image = found.setdefault((file.folder, subject), Image(subject, file.folder, rest, {}, []))
            if contrast in image.files:
                twice = f"{image.files[contrast].path.name} and {file.path.name}"
                image.problems.append(f"{file.path.parent}: two files for {subject}: {twice}; keep one.")
            image.files.setdefault(contrast, file)
    if not found:
        raise EmptyError(
            f"{root}: no image of a sub-* that ends in {' or '.join(contrasts)}, of the session and run asked for. "
            f"Name others with {selector('contrasts')}=T2w."
        )
    images: dict[str, Image] = {}
    for image in found.values():
        if images.setdefault(image.subject, image) is not image:
            images[image.subject].problems.append(
                f"{root}: in more than one folder: {image.subject}. Put the session into the name."
            )
    return list(images.values())


def each_file(root: pathlib.Path, present: list[File]) -> list[Image]:
    """Each file but label maps as an image of its own."""
    images: dict[str, Image] = {}
    if odd := [file.path.name for file in present if file.name.words]:
        warnings.warn(f"{root}: {len(odd)} files are not named as BIDS asks: {listed(odd)}.", stacklevel=4)
    for file in present:
        name = stem(file.path)
        if file.name.suffix in NO_IMAGES or file.name.words:
            continue
        if name in images:
            images[name].problems.append(
                f"{root}: several files of this name: {name}. Keep one, and put the session into the name."
            )
        images.setdefault(name, Image(name, file.folder, file.name.entities, {EVERY: file}, []))
    if not images:
        raise EmptyError(
            f"{root}: no image of the datatype, session and run asked for. Choose others with {selector('datatype')}."
        )
    return list(images.values())


def derived(root: pathlib.Path, pipeline: str, contrasts: Sequence[str]) -> list[File]:
    """The scans below derivatives/PIPELINE, without those in a space that no contrast names.

    Raises:
        FileError: no such folder.
    """
    folder = root / "derivatives" / pipeline
    if not folder.is_dir():
        there = listed(sorted(path.name for path in root.glob("derivatives/*") if path.is_dir())) or "nothing"
        raise FileError(f"{root}/derivatives: no folder {pipeline!r}; there is {there}.")
    asked = {key for contrast in contrasts for key in parse(contrast).entities}
    return [f for f in list_files(folder) if not ({*OF_SPACE} - asked) & f.name.entities.keys()]


def _is_contrast(name: Name, asked: Name) -> bool:
    same = name.suffix == asked.suffix and not name.words
    return same and asked.entities.items() <= name.entities.items()


def selected(name: Name, wanted: Mapping[str, str]) -> bool:
    """Whether a name has the entities asked for; "" asks for nothing, "none" for their absence."""
    return all(
        not value or name.entities.get(key, NONE) == value.removeprefix(f"{key}-")
        for key, value in wanted.items()
    )


def facts(image: Image, sidecars: Sidecars, beside: Sidecars) -> dict[str, Any]:
    """What the data set says of an image: columns and fields in small letters, entities, `datatype` and `suffix`.

    Of the first channel: from the JSON sidecars of its part of the data set (`beside`), from participants.tsv and
    `_scans.tsv` (`sidecars`), and from its name; a later one overrules those before it. Numbers are floats; `n/a` and empty
    cells are not known.
    """
    file = next(iter(image.files.values()))
    said = {
        name.lower(): value
        for name, value in beside.fields(file.path).items()
        if isinstance(value, str | int | float)
    }
    rows = (sidecars.participant(f"sub-{file.name.entities.get('sub', '')}"), sidecars.scan(file.path))
    name = {**file.name.entities, "datatype": file.folder.rsplit("/", 1)[-1], "suffix": file.name.suffix}
    found = {**said, **{k: v for row in rows for k, v in row.items() if v not in UNKNOWN}, **name}
    return {key: _number(value) for key, value in found.items()}


def _number(value: Any) -> Any:
    """A float where the value is a number, but for one that is not finite; else itself."""
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) and not isinstance(value, bool) else value
