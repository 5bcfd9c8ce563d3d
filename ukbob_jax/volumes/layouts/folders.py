"""A folder of images and a folder of label maps, matched by file name; or one image and one label map."""

import os
import pathlib
from collections.abc import Sequence

from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.volumes.case import LABEL_SET, Case, listed, scans, stem

LABEL_ENDINGS = ("", "_seg", "_label", "_mask")  # what may follow the image's name in the label's


def list_cases(
    images: str | os.PathLike, labels: str | os.PathLike | None = None, *, ending: str = ""
) -> list[Case]:
    """One case per image, and one with a problem per label map that has no image.

    Args:
        images: a folder of scans (one subject each, 4-D for several channels), or one file.
        labels: a folder of label maps named like the images, also with _seg, _label or _mask after the name (it may
            be the images' own folder); one file where `images` is one; None for images alone.
        ending: what follows the image's name in the label's instead, such as _seg-manual; other files of a folder that
            holds both are left out.
    Raises:
        FileError: a missing or empty folder, a missing file.
        MismatchError: no image has its label map.
    """
    endings = (ending,) if ending else LABEL_ENDINGS
    image_of = _files(images)
    if labels is None:
        return [Case(name, (path,), {}) for name, path in image_of.items()]
    label_of = _files(labels)
    if pathlib.Path(images).is_file() and pathlib.Path(labels).is_file():
        return [Case(name, (path,), {LABEL_SET: label_of.popitem()[1]}) for name, path in image_of.items()]
    if pathlib.Path(images).resolve() == pathlib.Path(labels).resolve():
        label_of = {name: path for name, path in image_of.items() if _is_label(name, image_of, endings)}
        image_of = {name: path for name, path in image_of.items() if name not in label_of}
        if ending:
            image_of = {name: path for name, path in image_of.items() if name + ending in label_of}
    matched = {name: [label_of[name + e] for e in endings if name + e in label_of] for name in image_of}
    unused = set(label_of.values()) - {path for found in matched.values() for path in found}
    if not any(len(found) == 1 for found in matched.values()):
        without = [name for name, found in matched.items() if len(found) != 1]
        raise MismatchError(
            f"{labels}: {len(without)} of {len(image_of)} images have no label map or several ({listed(without)}), "
            f"{len(unused)} label maps have no image ({listed(sorted(p.name for p in unused))}). Label maps are named like "
            f"the image with {', '.join(endings[1:]) or ending} after it; config.source.paths.ending names another."
        )
    cases = [_case(name, path, matched[name], labels) for name, path in image_of.items()]
    return cases + [
        Case(
            stem(path),
            (),
            {LABEL_SET: path},
            problem=f"{path}: a label map without an image. Add it, or remove it.",
        )
        for path in sorted(unused)
    ]


def _case(name: str, image: pathlib.Path, found: list[pathlib.Path], labels: str | os.PathLike) -> Case:
    if len(found) == 1:
        return Case(name, (image,), {LABEL_SET: found[0]})
    several = f"several label maps ({', '.join(path.name for path in found)}); keep one"
    return Case(name, (image,), {}, problem=f"{image}: {several if found else f'no label map in {labels}'}.")


def _files(path: str | os.PathLike) -> dict[str, pathlib.Path]:
    path = pathlib.Path(path)
    if not path.exists():
        raise FileError(f"{path}: no such file or folder.")
    return {stem(path): path} if path.is_file() else scans(path)


def _is_label(name: str, images: dict[str, pathlib.Path], endings: Sequence[str]) -> bool:
    return any(name.endswith(e) and name[: -len(e)] in images for e in endings if e)
