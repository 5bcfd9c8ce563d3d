"""A folder in the layout of SA-Med2D-20M, of whatever maker: its tables, images and masks, and what is wrong with them.

Whatever is wrong is told in one line and has one of three ends: "refused", the image or mask is left out; "mended", what was
meant is clear and is used; "kept", it breaks a rule of the published set, but can be used as it is. Known defects of the
published set: a class that is the union of two others (ACDC), inverted masks (a fundus set), masks of another size than
their image, and "images" that are themselves binary.
"""

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ukbob_jax.errors import FileError, ValuesError
from ukbob_jax.export2d import naming
from ukbob_jax.export2d.classes import mapping_defects
from ukbob_jax.export2d.manifest import CLASSES, IMAGES_TO_MASKS
from ukbob_jax.export2d.naming import ImageName

REFUSED, MENDED, KEPT = "refused", "mended", "kept"
MIN_AREA, ASPECT = 100 / 256**2, 0.5


class Problem(NamedTuple):
    """Something wrong with a file or table."""

    code: str
    path: str
    text: str
    end: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text} ({self.end})"


class Mask(NamedTuple):
    """A mask that a table lists."""

    path: str  # below the folder
    four: str  # its class id
    number: int


class Entry(NamedTuple):
    """An image that a table lists, with its masks."""

    path: str  # below the folder
    name: ImageName
    masks: tuple[Mask, ...]


class Tables(NamedTuple):
    """What a folder lists.

    Attributes:
        root: the folder.
        entries: images that can be used as far as tables and names tell.
        classes: four-digit id -> name.
        problems: with the tables and names.
    """

    root: pathlib.Path
    entries: tuple[Entry, ...]
    classes: dict[str, str]
    problems: tuple[Problem, ...]


class Pair(NamedTuple):
    """An image and its masks.

    Attributes:
        image: `h w c`, uint8, one channel or three.
        masks: each with `h w`, bool.
        problems: with masks that were left out, and what was mended.
    """

    image: np.ndarray
    masks: dict[Mask, np.ndarray]
    problems: tuple[Problem, ...]


def read_tables(root: str | os.PathLike) -> Tables:
    """Read both tables of a folder and compare them with the files that are there.

    Raises:
        FileError: a folder or table is missing or is none.
    """
    folder, told = pathlib.Path(root), []
    for name in ("images", "masks"):
        if not (folder / name).is_dir():
            raise FileError(f"{folder / name}: no such folder. Give the folder that holds images and masks.")
    classes = _classes(folder / CLASSES, told)
    listed = {name: {entry.name for entry in os.scandir(folder / name)} for name in ("images", "masks")}
    unused = {name: set(found) for name, found in listed.items()}
    entries = []
    for image, masks in _table(folder / IMAGES_TO_MASKS, told):
        path = _local(image, "images", listed, unused, told)
        name = naming.parse_image(path.removeprefix("images/")) if path else None
        if path and name is None:
            told.append(
                Problem("image_name", image, "is no MODALITY_SUB--DATASET--CASE--AXIS_NNNN.png", REFUSED)
            )
        if name is not None and name.code not in naming.PUBLISHED:
            told.append(Problem("modality", image, f"{name.code} is no published modality code", KEPT))
        if not masks:
            told.append(Problem("image_without_mask", image, "has no mask", REFUSED))
        if len(set(map(str, masks))) < len(masks):
            told.append(Problem("mask_listed_twice", image, "lists a mask twice", MENDED))
        stem = path.removeprefix("images/").removesuffix(".png")
        found = [_mask(mask, stem, classes, listed, unused, told) for mask in dict.fromkeys(map(str, masks))]
        used = tuple(mask for mask in found if mask is not None)
        if name is not None and used:
            _check_numbers(image, used, told)
            entries.append(Entry(path, name, used))
    for name, files in unused.items():
        told += [Problem("orphan", f"{name}/{file}", "is in no table", REFUSED) for file in sorted(files)]
    return Tables(folder, tuple(entries), classes, tuple(told))


def check(root: str | os.PathLike) -> Iterator[Problem]:
    """Yield everything that is wrong with a folder, pixels included.

    Raises:
        FileError: it has no tables.
    """
    tables = read_tables(root)
    yield from tables.problems
    values: set[int] = set()
    for entry in tables.entries:
        told: list[Problem] = []
        _, masks = _read(tables, entry, told)
        _without_copies({mask: pixels > 0 for mask, pixels in masks.items()}, told)
        values |= {int(pixels.max()) for pixels in masks.values()}
        yield from told
    if len(values) > 1:
        yield Problem("mask_values_mixed", "masks", f"foreground is {sorted(values)} in turn", MENDED)


def read(tables: Tables, entry: Entry) -> Pair:
    """Read an image and those of its masks that can be used.

    Raises:
        ValuesError: the image cannot be used.
    """
    told: list[Problem] = []
    image, masks = _read(tables, entry, told)
    if image is None:
        raise ValuesError(
            f"{tables.root}/{told[-1].path}: {told[-1].text}. Correct the file or leave it out."
        )
    found = _without_copies({mask: pixels > 0 for mask, pixels in masks.items()}, told)
    return Pair(image, found, tuple(told))


def _read(
    tables: Tables, entry: Entry, told: list[Problem]
) -> tuple[np.ndarray | None, dict[Mask, np.ndarray]]:
    """An image, `h w c`, or None, and its masks as they are stored, `h w`."""
    image = _image(tables.root, entry.path, told)
    if image is None:
        return None, {}
    found = {mask: _pixels(tables.root, mask, image.shape[:2], told) for mask in entry.masks}
    return image, {mask: pixels for mask, pixels in found.items() if pixels is not None}


def _classes(path: pathlib.Path, told: list[Problem]) -> dict[str, str]:
    """Four-digit id -> name; numbers become four digits, ids of two classes are left out."""
    found = dict(_pairs(path, told))
    told += [
        Problem(
            "class_mapping", path.name, text.removesuffix("."), MENDED if "share" not in text else REFUSED
        )
        for text in mapping_defects(found)
    ]
    ids = {
        name: f"{value:04d}" if isinstance(value, int) else str(value).zfill(4)
        for name, value in found.items()
    }
    fours = list(ids.values())
    return {four: name for name, four in ids.items() if fours.count(four) == 1}


def _pairs(path: pathlib.Path, told: list[Problem]) -> list[tuple[str, Any]]:
    """The entries of a JSON object; lists of a key that occurs twice are joined."""
    try:
        pairs = json.loads(path.read_text(), object_pairs_hook=list)
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(pairs, list) or not all(isinstance(p, tuple) for p in pairs):
        raise FileError(f"{path}: must hold one JSON object.")
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            told.append(Problem("json_duplicate_key", path.name, f"has {key!r} twice", MENDED))
            if isinstance(value, list) and isinstance(found[key], list):
                value = found[key] + value
        found[key] = value
    return list(found.items())


def _table(path: pathlib.Path, told: list[Problem]) -> list[tuple[str, list[Any]]]:
    """Image -> masks; a table of mask -> image is turned round."""
    found: dict[str, list[Any]] = {}
    turned = 0
    for key, value in _pairs(path, told):
        if isinstance(value, str):
            found.setdefault(value, []).append(key)
            turned += 1
        elif isinstance(value, list):
            found.setdefault(key, []).extend(value)
        else:
            told.append(Problem("json_direction", key, "has no list of masks", REFUSED))
    if turned:
        told.append(
            Problem("json_direction", path.name, f"gives the image of a mask, {turned} times", MENDED)
        )
    if not found:
        raise FileError(f"{path}: names no image.")
    return list(found.items())


def _local(
    path: str, folder: str, listed: dict[str, set[str]], unused: dict[str, set[str]], told: list[Problem]
) -> str:
    """A listed path as folder/NAME; "" where no such file is there."""
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    if path != f"{folder}/{name}":
        end = MENDED if name in listed[folder] else REFUSED
        told.append(Problem("json_path", path, f"is no path {folder}/NAME.png", end))
    if name not in listed[folder]:
        told.append(Problem("missing_file", path, "is listed and not there", REFUSED))
        return ""
    unused[folder].discard(name)
    return f"{folder}/{name}"


def _mask(
    path: str,
    stem: str,
    classes: dict[str, str],
    listed: dict[str, set[str]],
    unused: dict[str, set[str]],
    told: list[Problem],
) -> Mask | None:
    """A mask that a table lists below the image of `stem`; None: it cannot be used."""
    local = _local(path, "masks", listed, unused, told)
    found = naming.parse_mask(local.removeprefix("masks/")) if local else None
    if not local:
        return None
    if found is None:
        told.append(Problem("mask_name", path, "is no IMAGE STEM--CCCC_III.png", REFUSED))
    elif found[0] != stem:
        told.append(
            Problem("mask_of_other_image", path, f"belongs to {found[0]} and is listed below {stem}", REFUSED)
        )
    elif found[1] not in classes:
        told.append(Problem("unknown_class", path, f"class id {found[1]} is in no table", REFUSED))
    else:
        return Mask(local, found[1], found[2])
    return None


def _check_numbers(image: str, masks: tuple[Mask, ...], told: list[Problem]) -> None:
    for four in sorted({mask.four for mask in masks}):
        numbers = sorted(mask.number for mask in masks if mask.four == four)
        if numbers != list(range(len(numbers))):
            told.append(
                Problem("instance_numbers", image, f"class {four}: instances {numbers} have gaps", KEPT)
            )


def _open(root: pathlib.Path, path: str, told: list[Problem]) -> tuple[np.ndarray, str] | None:
    """Pixels and mode of a file; None: damaged."""
    try:
        with Image.open(root / path) as file:
            if file.format != "PNG":
                told.append(Problem("format", path, f"is {file.format}, not PNG", MENDED))
            return np.array(file), file.mode
    except (OSError, SyntaxError, ValueError) as error:
        told.append(Problem("unreadable", path, f"is damaged ({error})", REFUSED))
        return None


def _image(root: pathlib.Path, path: str, told: list[Problem]) -> np.ndarray | None:
    """An image as `h w c`; None: it cannot be used."""
    opened = _open(root, path, told)
    if opened is None:
        return None
    pixels, mode = opened
    if mode not in ("L", "RGB"):
        told.append(Problem("image_mode", path, f"is of mode {mode}, not 8-bit grey or RGB", REFUSED))
        return None
    values = len(np.unique(pixels))
    if values == 1:
        told.append(Problem("image_constant", path, "has one value throughout", REFUSED))
    if values == 2:
        told.append(Problem("image_binary", path, "has two values only: it is a mask", REFUSED))
    if min(pixels.shape[:2]) < ASPECT * max(pixels.shape[:2]):
        told.append(
            Problem("aspect", path, f"is {pixels.shape[1]} x {pixels.shape[0]}, longer than twice", KEPT)
        )
    return pixels.reshape(*pixels.shape[:2], -1) if values > 2 else None


def _pixels(root: pathlib.Path, mask: Mask, shape: tuple[int, ...], told: list[Problem]) -> np.ndarray | None:
    """A mask's pixels, `h w`, 0 and one other value; None: it cannot be used."""
    opened = _open(root, mask.path, told)
    if opened is None:
        return None
    pixels, mode = opened
    if pixels.ndim == 3 and mode == "RGB" and (pixels == pixels[..., :1]).all():
        told.append(Problem("mask_mode", mask.path, "is RGB with equal channels", MENDED))
        pixels = pixels[..., 0]
    elif pixels.ndim != 2:
        told.append(Problem("mask_mode", mask.path, f"is of mode {mode}", REFUSED))
        return None
    if pixels.shape != shape:
        told.append(
            Problem("size_mismatch", mask.path, f"is {pixels.shape}, its image {tuple(shape)}", REFUSED)
        )
        return None
    values = np.unique(pixels)
    inside = values[values > 0].tolist()
    if len(inside) > 1:
        told.append(
            Problem("mask_values", mask.path, f"has values {values[:6].tolist()}: not a mask", REFUSED)
        )
        return None
    if inside and inside[0] not in (1, 255):
        told.append(Problem("mask_values", mask.path, f"is {inside[0]} inside, not 255 or 1", MENDED))
    return pixels if _plausible(mask.path, pixels > 0, told) else None


def _plausible(path: str, inside: np.ndarray, told: list[Problem]) -> bool:
    """Whether a mask, bool `h w`, can be used."""
    import cc3d

    count = np.count_nonzero(inside)
    if count in (0, inside.size):
        name = "full" if count else "empty"
        told.append(
            Problem(f"mask_{name}", path, "covers all of the image" if count else "is empty", REFUSED)
        )
        return False
    if inside[[0, -1]].all() and inside[:, [0, -1]].all():
        told.append(Problem("mask_inverted", path, "covers all of the border: it is inverted", REFUSED))
        return False
    if count < MIN_AREA * inside.size:
        told.append(Problem("mask_small", path, f"covers {count} of {inside.size} pixels", KEPT))
    pieces = int(cc3d.connected_components(inside, connectivity=8).max())
    if pieces > 1:
        told.append(Problem("mask_components", path, f"has {pieces} components", KEPT))
    return True


def _without_copies(found: dict[Mask, np.ndarray], told: list[Problem]) -> dict[Mask, np.ndarray]:
    """Leave out what is there twice: a mask of another class with the same pixels, and a class that is two others' union."""
    kept: dict[Mask, np.ndarray] = {}
    for mask, pixels in found.items():
        same = next((other for other, of in kept.items() if np.array_equal(of, pixels)), None)
        if same is not None:
            told.append(Problem("mask_duplicate", mask.path, f"has the pixels of {same.path}", REFUSED))
            continue
        if any(other.four == mask.four and (of & pixels).any() for other, of in kept.items()):
            told.append(
                Problem(
                    "instances_overlap", mask.path, "shares pixels with another instance of its class", KEPT
                )
            )
        kept[mask] = pixels
    whole = {four: np.any([kept[m] for m in kept if m.four == four], 0) for four in {m.four for m in kept}}
    for four in sorted(whole):
        inner = [of for other, of in whole.items() if other != four and not (of & ~whole[four]).any()]
        if len(inner) > 1 and np.array_equal(np.any(inner, 0), whole[four]):
            path = next(mask.path for mask in kept if mask.four == four)
            told.append(Problem("class_union", path, f"class {four} is the union of others", REFUSED))
            kept = {mask: pixels for mask, pixels in kept.items() if mask.four != four}
    return kept
