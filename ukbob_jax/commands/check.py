"""Read every scan of DATA as ingestion would and print a line for each: whether it can be used, and if not, why.

DATA is a scan, a folder of them, a folder of DICOM files, or a data set in a known layout. What is listed, read and
refused is what the ingest job lists, reads and refuses: --layout, --nan, --constant, --num-classes, --label-map,
--label-table, --mask-value, --assume-ras, --person, --spacing-mm and --contrasts are the fields of `config.source` in a
recipe, DATA, --labels and --path KEY=VALUE those of `config.source.paths`, such as modality=CT. A subject that cannot be
used does not stop the others. Of these, only --contrasts and --constant go with a folder of DICOM files.

Exit code 0: all can be used; 3: none can; 4: some cannot.
"""

import argparse
import dataclasses
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import nibabel
import numpy as np

from ukbob_jax import anatomy, sources
from ukbob_jax import options as fields
from ukbob_jax.errors import ConfigError, FileError, InputError, SomeFailed
from ukbob_jax.sources.files import ReadOptions, check_varies
from ukbob_jax.store.prepare import prepare
from ukbob_jax.store.row import Subject
from ukbob_jax.volumes import affine as affines
from ukbob_jax.volumes import case, formats, layouts, plausibility, sets
from ukbob_jax.volumes.case import Description
from ukbob_jax.volumes.nifti import SUFFIXES, read_header
from ukbob_jax.volumes.volume import Volume

_DICOM_TAKES = ("contrasts", "constant")  # of `ReadOptions`


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("data", help="file or folder")
    parser.add_argument("--labels", help="label map, or folder of them, that belong to DATA by name")
    parser.add_argument("--series", default="", metavar="UID", help="which series of a folder of DICOM files")
    parser.add_argument(
        "--layout", choices=layouts.names(), help="how the data set lies in DATA (default folders)"
    )
    parser.add_argument(
        "--path", action="append", default=[], metavar="KEY=VALUE",
        help="what else the layout takes: modality=CT, contrasts=T1w,T2w",
    )  # fmt: skip
    parser.add_argument(
        "--nan", choices=("refuse", "zero"), default=ReadOptions.nan,
        help="NaN or infinite voxels make a scan bad, or count as 0",
    )  # fmt: skip
    parser.add_argument(
        "--constant", choices=("refuse", "accept"), default=ReadOptions.constant,
        help="a channel of one value throughout makes a scan bad, or not",
    )  # fmt: skip
    parser.add_argument(
        "--num-classes", type=int, default=ReadOptions.num_classes,
        help="label ids are below this number, or 255 (default 0: any up to 254)",
    )  # fmt: skip
    parser.add_argument(
        "--label-map", choices=("", *anatomy.DATASETS), default=ReadOptions.label_map, metavar="NAME",
        help="label set whose ids become ours: " + ", ".join(anatomy.DATASETS),
    )  # fmt: skip
    parser.add_argument(
        "--label-table", default=ReadOptions.label_table, metavar="FILE", help="lines of `id, new id, name`"
    )
    parser.add_argument(
        "--mask-value", type=int, default=ReadOptions.mask_value, metavar="VALUE",
        help="labels are masks with this value inside, such as 255 (default 0: label maps)",
    )  # fmt: skip
    parser.add_argument(
        "--person", default=ReadOptions.person, metavar="PATTERN",
        help="regular expression with one group, the person in a subject's name",
    )  # fmt: skip
    parser.add_argument(
        "--assume-ras", action="store_true", help="accept scans that do not say how they are oriented"
    )
    parser.add_argument(
        "--spacing-mm", type=float, nargs=3, default=ReadOptions.spacing_mm, metavar=("X", "Y", "Z"),
        help="resample to it, as ingestion would",
    )  # fmt: skip
    parser.add_argument(
        "--order",
        type=int,
        default=ReadOptions.order,
        help="of the splines that resample: 1 or 3 (default 1)",
    )
    parser.add_argument("--crop", action="store_true", help="cut scans to their voxels that are not 0")
    parser.add_argument(
        "--contrasts", nargs="+", default=ReadOptions.contrasts, metavar="NAME",
        help="a name per channel; of a folder of DICOM files the Dixon contrasts that become channels",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Print a line per scan.

    Raises:
        FileError: no scan can be used.
        SomeFailed: some cannot.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        listed = scans(options)
    seen, failed = [], 0
    for told in caught:
        say("     ", "", f"warning: {told.message}")
    for scan in listed:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                values = scan.convert(scan.read())
                seen.append(prepare(scan.subject, **values).row)
            except InputError as error:
                failed += 1
                say("BAD  ", scan.subject, str(error))
            else:
                say("ok   ", scan.subject, describe(values["image"], values["affine"], scan.files()))
        for told in (*(warning.message for warning in caught), *doubts(seen[-1:], scan.subject)):
            say("     ", scan.subject, f"warning: {told}")
    for told in sets.unlike(seen):
        say("     ", "", f"warning: {told}")
    if failed == len(listed):
        raise FileError(f"{options.data}: no scan of {failed} can be used; the lines above say why.")
    if failed:
        raise SomeFailed(
            f"{options.data}: {failed} of {len(listed)} scans cannot be used; the lines above say why."
        )


def scans(options: argparse.Namespace) -> list[sources.SubjectSource]:
    """List the scans of DATA as the ingest job would; a folder of DICOM files is one.

    Raises:
        ConfigError: options that do not go with DATA or with each other.
        FileError, MismatchError: nothing can be listed.
    """
    data = pathlib.Path(options.data)
    if not data.exists():
        raise FileError(f"{data}: no such file or folder.")
    named = options.layout or options.labels
    dicom = data.is_dir() and not named and not any(map(case.is_scan, data.iterdir()))
    if options.series and not dicom:
        raise ConfigError(f"{data}: --series goes with a folder of DICOM files; leave it out.")
    if dicom:
        check_dicom_takes(options)
        return [Dicom(data, options.series, tuple(options.contrasts), constant=options.constant)]
    if data.is_dir() and not named:
        tell_dicom_unused(data)
    read = {name: getattr(options, name) for name in fields.names(ReadOptions)}
    layout = options.layout or "folders"
    return sources.list_subjects({"kind": "files", "layout": layout, "paths": paths(options, layout), **read})


def check_dicom_takes(options: argparse.Namespace) -> None:
    """Refuse options that would change nothing.

    Raises:
        ConfigError: naming them.
    """
    named = [name for name in fields.names(ReadOptions) if name not in _DICOM_TAKES]
    given = [name for name in named if getattr(options, name) != getattr(ReadOptions, name)]
    given += ["path"] if options.path else []
    if given:
        words = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(
            f"{words}: not with {options.data}, which holds no NIfTI and is read as a folder of DICOM files. Leave it out, "
            "or convert the series to NIfTI."
        )


def tell_dicom_unused(folder: pathlib.Path) -> None:
    """Warn of DICOM files beside the scans of a folder."""
    others = [path for path in sorted(folder.iterdir()) if path.is_file() and not case.is_scan(path)]
    if found := [path.name for path in others if formats.is_dicom(path)]:
        warnings.warn(
            f"{folder}: {len(found)} DICOM files beside the scans are left aside: {case.listed(found)}. Move them to a "
            "folder of their own to check them.",
            stacklevel=3,
        )


def paths(options: argparse.Namespace, layout: str) -> dict[str, Any]:
    """What the layout takes: DATA under its first name, --labels, and the words of --path.

    Raises:
        ConfigError: a word without a value, or --labels with a layout that finds its own.
    """
    takes = layouts.arguments(layout)
    if options.labels and "labels" not in takes:
        raise ConfigError(f"--labels: layout {layout} finds the labels below DATA; leave it out.")
    found: dict[str, Any] = {next(iter(takes)): options.data}
    if options.labels:
        found["labels"] = options.labels
    for word in options.path:
        key, equals, value = word.partition("=")
        if not equals or key not in takes:
            raise ConfigError(f"--path {word}: expected KEY=VALUE with KEY one of {', '.join(takes)}.")
        found[key] = tuple(value.split(",")) if isinstance(takes[key], tuple) else value
    return found


@dataclasses.dataclass(frozen=True)
class Dicom:
    """A folder of DICOM files as one scan; the ingest job takes such scans as NIfTI."""

    folder: pathlib.Path
    series: str
    contrasts: tuple[str, ...] = ()
    split: str = ""
    constant: str = ReadOptions.constant

    @property
    def subject(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    def files(self) -> list[str]:
        """List the folder."""
        return [str(self.folder)]

    def checksum(self) -> str:
        """Return nothing: it is only looked at."""
        return ""

    def read(self) -> tuple[Volume, str]:
        """Read the series, see `volumes.dicom.read_series`, as `x y z c`, and its modality.

        Raises:
            ConfigError: contrasts that are no Dixon contrasts.
            ValuesError: a channel holds nothing, and `constant` refuses it.
        """
        from ukbob_jax.volumes.dicom import CONTRASTS, dixon_names, read_with_facts  # pydicom is optional

        names = dixon_names(self.contrasts)
        if self.contrasts and not names:
            raise ConfigError(
                f"--contrasts {' '.join(self.contrasts)}: expected some of {' '.join(CONTRASTS)}."
            )
        volume, facts = read_with_facts(self.folder, self.series, channels=names)
        array = volume.array if volume.array.ndim == 4 else volume.array[..., None]
        if self.constant == "refuse":
            check_varies(array, [self.folder], names)
        return dataclasses.replace(volume, array=array), facts.get("modality", "")

    def convert(self, scan: tuple[Volume, str]) -> dict[str, Any]:
        """Return what a store would hold of it."""
        volume, modality = scan
        told = [
            *plausibility.doubts(volume.affine, volume.shape),
            *plausibility.value_doubts(volume.array, (), modality, ""),
        ]
        return {
            "image": volume.array,
            "affine": volume.affine,
            "labels": {},
            "description": Description(modality=modality),
            "quality": {"doubts": told} if told else {},
        }


def doubts(rows: Sequence[Subject], subject: str) -> list[str]:
    """What is doubtful about a scan that could be read."""
    found = [row.quality for row in rows if row.id == subject]
    return [f"{told}. Correct the file." for quality in found for told in quality.get("doubts", ())] + [
        quality["stored"] for quality in found if "stored" in quality
    ]


def say(start: str, subject: str, text: str) -> None:
    """Print one line."""
    print(start + (f"{subject}: " if subject else "") + " ".join(text.split()), flush=True)


def describe(image: np.ndarray, affine: np.ndarray, files: Sequence[str] = ()) -> str:
    """Grid and values of a scan that can be used; channels with a single value are named.

    Args:
        image: `x y z c`, as it would be stored.
        affine: `4 4`.
        files: of the scan; the orientation is that of the first NIfTI among them.
    """
    size = " x ".join(map(str, image.shape[:3]))
    spacing = " x ".join(f"{s:.4g}" for s in affines.spacing(affine))
    text = (
        f"{size} voxels, {spacing} mm, {orientation(affine, files)}, {image.shape[3]} channels, {image.dtype}"
    )
    constant = [c for c in range(image.shape[3]) if np.ptp(image[..., c]) == 0]
    return text + (f"; channels {constant} show nothing" if constant else "")


def orientation(affine: np.ndarray, files: Sequence[str]) -> str:
    """Towards where the axes of `affine` run, and, where it differs, those of the first NIfTI file: RAS (stored LAS)."""
    ours = "".join(nibabel.aff2axcodes(affine))
    path = next((pathlib.Path(path) for path in files if path.lower().endswith(SUFFIXES)), None)
    if path is None:
        return ours
    header = read_header(path)
    theirs = "".join(nibabel.aff2axcodes(header.affine))
    return ours if theirs == ours or not any(header.codes) else f"{ours} (stored {theirs})"
