"""A BIDS derivative of label maps: names, the table of labels, sidecars and the description of the data set.

BIDS specification 1.10, "Derivatives: imaging data types": `SOURCE_ENTITIES_seg-ukbob_dseg.nii.gz` with a table of its
labels `..._dseg.tsv` and a sidecar `..._dseg.json`; masks are `..._seg-ukbob_label-LABEL_mask.nii.gz`.
"""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ukbob_jax import __version__, files
from ukbob_jax.errors import ConfigError
from ukbob_jax.volumes import case
from ukbob_jax.volumes.bids_files import parse
from ukbob_jax.volumes.label_colours import colour

SEG = "ukbob"  # of the entity seg
VERSION = "1.10.0"
TABLE = ("index", "name", "color")
_LAST = ("res", "den", "label", "desc")  # entities that come after seg
_DATATYPES = ("anat", "dwi", "func", "fmap", "perf", "pet")
_DESCRIPTION = "dataset_description.json"
# What lies in the derivative and is none of BIDS' own.
_IGNORED = ("summary.*", "failures.jsonl", "statistics.csv", "*.statistics.*", "*.preview.png", "*.label.txt")


def name(sources: Sequence[pathlib.Path]) -> pathlib.PurePosixPath:
    """Folder and name, without its ending, of the label map of a scan: `sub-01/anat/sub-01_seg-ukbob_dseg`.

    The entities that all files of the scan have are kept; a scan without BIDS' names becomes subject by its own name.

    Args:
        sources: the scan's files, one per contrast.
    Raises:
        ConfigError: a name that holds neither letter nor digit.
    """
    named = [parse(case.stem(path)).entities for path in sources]
    shared = {key: value for key, value in named[0].items() if all(n.get(key) == value for n in named)}
    if "sub" not in shared:
        label = re.sub(r"[^0-9A-Za-z]", "", case.stem(sources[0]))
        if not label:
            raise ConfigError(f"{sources[0]}: its name has no letter or digit to name a BIDS subject by.")
        shared = {"sub": label}
    shared.pop("seg", None)
    before = [f"{key}-{value}" for key, value in shared.items() if key not in _LAST]
    after = [f"{key}-{value}" for key, value in shared.items() if key in _LAST]
    datatype = sources[0].absolute().parent.name
    folders = [f"{key}-{shared[key]}" for key in ("sub", "ses") if key in shared]
    folders.append(datatype if datatype in _DATATYPES else "anat")
    return pathlib.PurePosixPath(*folders, "_".join([*before, f"seg-{SEG}", *after, "dseg"]))


def mask_name(label_map: str, structure: str) -> str:
    """The name of a structure's mask beside a label map's, both without ending; the label is in camel case."""
    first, *others = re.findall(r"[0-9A-Za-z]+", structure) or [structure]
    label = first + "".join(word[:1].upper() + word[1:] for word in others)
    *parts, _ = label_map.split("_")
    at = next((n for n, part in enumerate(parts) if part.startswith("desc-")), len(parts))
    return "_".join([*parts[:at], f"label-{label}", *parts[at:], "mask"])


def table(names: Mapping[int, str]) -> str:
    """The content of `_dseg.tsv`: a line per label, background too."""
    lines = ["\t".join(TABLE)]
    for i, structure in sorted(names.items()):
        red, green, blue = colour(i, structure)
        lines.append(f"{i}\t{structure}\t#{red:02x}{green:02x}{blue:02x}")
    return "\n".join(lines) + "\n"


def sidecar(sources: Sequence[pathlib.Path], raw: pathlib.Path | None) -> dict[str, Any]:
    """What a label map's JSON says of where it is from; `raw` is the data set of the scans, if they are in one."""
    if raw:
        of = [f"bids:raw:{path.absolute().relative_to(raw).as_posix()}" for path in sources]
    else:
        of = [path.name for path in sources]
    return {"Sources": of, "SpatialReference": "orig", "Manual": False}


def raw_root(path: pathlib.Path) -> pathlib.Path | None:
    """The BIDS data set that a file is in; None: it is in none."""
    return next((folder for folder in path.absolute().parents if (folder / _DESCRIPTION).is_file()), None)


def describe(root: pathlib.Path, raw: pathlib.Path | None) -> None:
    """Write `dataset_description.json` and `.bidsignore`, if they are not there.

    Args:
        root: of the derivative.
        raw: the data set of the scans, which is linked by its place relative to `root`.
    Raises:
        FileError: the folder cannot be written.
    """
    if not (root / _DESCRIPTION).exists():
        links = {"DatasetLinks": {"raw": pathlib.Path(os.path.relpath(raw, root)).as_posix()}} if raw else {}
        about = {
            "Name": "Label maps of ukbob-jax",
            "BIDSVersion": VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "ukbob-jax", "Version": __version__}],
            **links,
        }
        files.write_json(root / _DESCRIPTION, about)
    if not (root / ".bidsignore").exists():
        files.write_bytes(root / ".bidsignore", ("\n".join(_IGNORED) + "\n").encode())
