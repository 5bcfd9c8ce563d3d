"""A folder of images and a folder of label maps, matched by file name; or one image and one label map."""

import os
import pathlib
from collections.abc import Collection

from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.volumes.case import Case, grouped, listed, one_case, selector, stem, tell_unused

LABEL_ENDINGS = ("", "_seg", "_label", "_mask")  # what may follow the image's name in the label's


def list_cases(
    images: str | os.PathLike, labels: str | os.PathLike | None = None, *, ending: str = ""
) -> list[Case]:
    """One case per image; one without its label map, or with several, has a problem.

    Args:
        images: a folder of NIfTI files (one subject each, 4-D for several channels), or one file.
        labels: a folder of label maps named like the images, also with _seg, _label or _mask after the name (it may
            be the images' own folder); one file where `images` is one; None for images alone.
        ending: what follows the image's name in the label's instead, such as _seg-manual; other files of a folder that
            holds both are left aside.
    Raises:
        FileError: a missing or empty folder, a missing file.
        MismatchError: no image has a label map.
    """
    endings = (ending,) if ending else LABEL_ENDINGS
    image_of = _files(images)
    if labels is None:
        return [one_case(name, paths, None) for name, paths in image_of.items()]
    label_of = _files(labels)
    if pathlib.Path(images).is_file() and pathlib.Path(labels).is_file():
        label_of = dict(zip(image_of, label_of.values()))
    elif pathlib.Path(images).resolve() == pathlib.Path(labels).resolve():
        label_of = {name: paths for name, paths in image_of.items() if _is_label(name, image_of, endings)}
        image_of = {name: paths for name, paths in image_of.items() if name not in label_of}
        if ending:
            image_of = {name: paths for name, paths in image_of.items() if name + ending in label_of}
    matched = {name: [path for end in endings for path in label_of.get(name + end, [])] for name in image_of}
    used = {path for found in matched.values() for path in found}
    unused = [path for paths in label_of.values() for path in paths if path not in used]
    if not used:
        raise MismatchError(
            f"{labels}: no label map is named like an image: {len(image_of)} images ({listed(image_of)}), "
            f"{len(unused)} label maps ({listed([path.name for path in unused])}). A label map is named like its image "
            f"with {' or '.join(filter(None, endings))} after it; {selector('ending')}=ENDING names another."
        )
    tell_unused(unused, str(labels))
    return [one_case(name, paths, matched[name]) for name, paths in image_of.items()]


def _files(path: str | os.PathLike) -> dict[str, list[pathlib.Path]]:
    path = pathlib.Path(path)
    if not path.exists():
        raise FileError(f"{path}: no such file or folder.")
    return {stem(path): [path]} if path.is_file() else grouped(path)


def _is_label(name: str, images: Collection[str], endings: Collection[str]) -> bool:
    return any(name.endswith(e) and name[: -len(e)] in images for e in endings if e)
