"""Where the models of a preset lie in a folder of downloaded weights: DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION.

That may be either program's own folder (`nnUNet_results`), one above it, or one where each archive was unpacked into a
folder of its own.
"""

import os
import pathlib
from collections.abc import Sequence

from ukbob_jax.errors import FileError

_LEVELS = 2  # below the folder given, that a data set's folder is looked for in


def find(root: str | os.PathLike, datasets: Sequence[int], patterns: Sequence[str]) -> list[pathlib.Path]:
    """The model folders of some data sets, in their order.

    Args:
        root: holds the data sets' folders, at the top or a level down; or is the folder of the only one.
        datasets: their numbers; a folder is called Dataset291 or Dataset291_NAME.
        patterns: of a model folder's name; the first that there is one of counts.
    Raises:
        FileError: there is no such folder, a data set is missing, has no such model, or is there several times.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise FileError(f"{root}: no such folder. Give the folder with the downloaded weights.")
    here = pathlib.Path(os.path.abspath(root))  # has a name, unlike "."
    tops = {number: _named(here, number) for number in datasets}
    missing = [_name(number) for number, found in tops.items() if not found]
    if missing:
        *others, last = missing
        said = f"{', '.join(others)} and {last}" if others else last
        raise FileError(
            f"{root}: {said} not found in it, nor in the {_LEVELS} levels below. Put the weights of each there, as "
            f"{missing[0]}_NAME/TRAINER__PLANS__CONFIGURATION."
        )
    return [_model(tops[number], number, patterns) for number in datasets]


def _model(tops: Sequence[pathlib.Path], number: int, patterns: Sequence[str]) -> pathlib.Path:
    """The one model folder of a data set."""
    for pattern in patterns:
        matches = (f for top in tops for where in (pattern, f"Dataset*/{pattern}") for f in top.glob(where))
        found = sorted({f.resolve(): f for f in matches if f.is_dir()}.values())
        if len(found) > 1:
            raise FileError(
                f"{', '.join(map(str, found))}: several models of {_name(number)}. Leave the one that is meant, and move "
                "the others away."
            )
        if found:
            return found[0]
    raise FileError(
        f"{tops[0]}: no folder {' or '.join(patterns)} in it. Download the weights of {_name(number)} again."
    )


def _named(root: pathlib.Path, number: int) -> list[pathlib.Path]:
    """All folders of a data set's name."""
    level, found = [root], []
    for depth in range(_LEVELS + 1):
        found += [f for f in level if f.name == _name(number) or f.name.startswith(f"{_name(number)}_")]
        level = [f for folder in level for f in _folders(folder)] if depth < _LEVELS else []
    return found


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """Those inside that can be read, but for those of models."""
    return sorted(
        f for f in folder.iterdir() if f.is_dir() and os.access(f, os.R_OK | os.X_OK) and "__" not in f.name
    )


def _name(number: int) -> str:
    return f"Dataset{number:03d}"
