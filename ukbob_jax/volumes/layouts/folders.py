"""A folder of images and a folder of label maps, matched by file name; or one image and one label map."""

import os
import pathlib

from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.volumes.case import LABEL_SET, Case, listed, scans, stem

LABEL_ENDINGS = ("", "_seg", "_label", "_mask")  # what may follow the image's name in the label's


def list_cases(images: str | os.PathLike, labels: str | os.PathLike | None = None) -> list[Case]:
    """One case per image.

    Args:
        images: a folder of NIfTI files (one subject each, 4-D for several channels), or one file.
        labels: a folder of label maps named like the images, also with _seg, _label or _mask after the name (it may
            be the images' own folder); one file where `images` is one; None for images alone.
    Raises:
        FileError: a missing or empty folder, a missing file.
        MismatchError: an image without a label map, or a label map without an image.
    """
    image_of = _files(images)
    if labels is None:
        return [Case(name, (path,), {}) for name, path in image_of.items()]
    label_of = _files(labels)
    if pathlib.Path(images).is_file() and pathlib.Path(labels).is_file():
        label_of = dict(zip(image_of, label_of.values()))
    elif pathlib.Path(images).resolve() == pathlib.Path(labels).resolve():
        label_of = {name: path for name, path in image_of.items() if _is_label(name, image_of)}
        image_of = {name: path for name, path in image_of.items() if name not in label_of}
    matched = {name: [label_of[name + e] for e in LABEL_ENDINGS if name + e in label_of] for name in image_of}
    without = [name for name, found in matched.items() if len(found) != 1]
    unused = set(label_of.values()) - {path for found in matched.values() for path in found}
    if without or unused:
        raise MismatchError(
            f"{labels}: {len(without)} of {len(image_of)} images have no label map or several ({listed(without)}), "
            f"{len(unused)} label maps have no image ({listed(sorted(p.name for p in unused))})."
        )
    return [Case(name, (path,), {LABEL_SET: matched[name][0]}) for name, path in image_of.items()]


def _files(path: str | os.PathLike) -> dict[str, pathlib.Path]:
    path = pathlib.Path(path)
    if not path.exists():
        raise FileError(f"{path}: no such file or folder.")
    return {stem(path): path} if path.is_file() else scans(path)


def _is_label(name: str, images: dict[str, pathlib.Path]) -> bool:
    return any(name.endswith(e) and name[: -len(e)] in images for e in LABEL_ENDINGS if e)
