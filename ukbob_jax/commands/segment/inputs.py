"""What `ukbob segment` is given: scans by name, and where their labels go."""

import pathlib
import re

from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.volumes import case
from ukbob_jax.volumes.endings import ENDINGS, ending


def channels(scans: dict) -> dict:
    """Scans whose files NAME_0000, NAME_0001, ... are the channels of one, as nnU-Net names them."""
    found: dict = {}
    for name, scan in scans.items():
        match = re.fullmatch(r"(.+)_\d{4}", name)
        if match and not isinstance(scan, tuple):
            found.setdefault(match[1], []).append((name, scan))
        else:
            found[name] = scan
    return {
        name: tuple(scan for _, scan in sorted(parts)) if isinstance(parts, list) else parts
        for name, parts in found.items()
    }


def find(
    inputs: list[str], output: pathlib.Path, bids: bool = False, selectors: list[str] | None = None
) -> tuple[dict, pathlib.Path]:
    """Name -> scan, and where the labels go.

    Args:
        inputs: files, a folder of scans, a DICOM series or, with `bids`, a BIDS data set.
        output: a file for one scan, else a folder.
        bids: the output is the folder of a BIDS derivative, also for one scan.
        selectors: `KEY=VALUE` of the layout, for a BIDS data set.
    Raises:
        FileError: an input is not there, or an empty folder.
        ConfigError: several files and a folder mixed, or an output of the wrong kind.
    """
    paths = [pathlib.Path(path) for path in inputs]
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise FileError(f"{missing[0]}: no such file or folder.")
    empty = [path for path in paths if path.is_dir() and not any(path.iterdir())]
    if empty:
        raise FileError(f"{empty[0]}: an empty folder. Give a scan, a folder of scans, or a DICOM series.")
    if len(paths) > 1 and any(path.is_dir() for path in paths):
        raise ConfigError("several inputs are the contrasts of one scan: give files, or one folder of scans.")
    if bids and ending(output):
        raise ConfigError(f"{output}: with --bids, OUT is the folder of a BIDS derivative.")
    if bids and len(paths) == 1 and any(folder.is_dir() for folder in paths[0].glob("sub-*")):
        return data_set(paths[0], selectors or []), output
    if selectors:
        raise ConfigError("--path goes with --bids and a BIDS data set, a folder with folders sub-LABEL.")
    if len(paths) == 1 and paths[0].is_dir() and any(map(case.is_scan, paths[0].iterdir())):
        if ending(output):
            raise ConfigError(f"{output}: {paths[0]} is a folder of scans, so OUT must be a folder.")
        return case.scans(paths[0]), output
    if not (ending(output) or bids):
        series = (
            f", as {paths[0]} is, which holds no scans but may be a DICOM series,"
            if paths[0].is_dir()
            else ""
        )
        raise ConfigError(
            f"{output}: labels of one scan{series} go to a file; its name must end in {', '.join(ENDINGS)}."
        )
    return {case.stem(paths[0]): paths[0] if len(paths) == 1 else tuple(paths)}, output


def data_set(root: pathlib.Path, selectors: list[str]) -> dict[str, tuple[pathlib.Path, ...]]:
    """The images of a BIDS data set, a file per contrast.

    Raises:
        ConfigError: a selector that the layout does not know.
        FileError, MismatchError: as `layouts.list_cases`, or an image that cannot be used.
    """
    from ukbob_jax.volumes import layouts

    chosen = {key: value for key, _, value in (word.partition("=") for word in selectors)}
    known = [name for name in layouts.arguments("bids") if name != "root"]
    if wrong := [name for name in chosen if name not in known]:
        raise ConfigError(f"--path {wrong[0]}: a BIDS data set takes {', '.join(known)}.")
    cases = layouts.list_cases("bids", root, **chosen)
    return {one.subject: one.images for one in cases}
