"""Read every scan of DATA and print a line for each: whether it can be used, and if not, why.

DATA is a scan, a folder of them, a folder of DICOM files, or a data set in a known layout. Exit code 0: all can
be used; 3: none can; 4: some cannot.
"""

import argparse
import pathlib
import warnings
from collections.abc import Callable

import numpy as np

from ukbob_jax.errors import ConfigError, FileError, InputError, SomeFailed
from ukbob_jax.volumes import case, layouts, plausibility
from ukbob_jax.volumes.nifti import read_volume
from ukbob_jax.volumes.scan import check_ids, read_case
from ukbob_jax.volumes.volume import Volume


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("data", help="file or folder")
    parser.add_argument("--labels", help="label map, or folder of them, that belong to DATA by name")
    parser.add_argument("--series", default="", metavar="UID", help="which series of a folder of DICOM files")
    parser.add_argument(
        "--contrasts",
        default="",
        metavar="NAMES",
        help="contrasts of a Dixon scan in a folder of DICOM files that become channels, such as water,fat",
    )
    parser.add_argument("--layout", choices=layouts.names(), help="how the data set lies in DATA")
    parser.add_argument(
        "--nan",
        choices=("refuse", "zero"),
        default="refuse",
        help="NaN or infinite voxels make a scan bad, or count as 0",
    )
    parser.add_argument("--num-classes", type=int, help="label ids are below this number, or 255")


def run(options: argparse.Namespace) -> None:
    """Print a line per scan.

    Raises:
        FileError: no scan can be used.
        SomeFailed: some cannot.
    """
    failed, readers = 0, scans(options)
    for name, read in readers.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                volume = read()
                print(f"ok   {name}: {describe(volume)}", flush=True)
                for doubt in plausibility.doubts(volume.affine):
                    warnings.warn(f"{doubt}. Correct the header.", UserWarning, stacklevel=1)
            except InputError as error:
                failed += 1
                print(f"BAD  {name}: {' '.join(str(error).split())}", flush=True)
        for warning in caught:
            print(f"     {name}: warning: {' '.join(str(warning.message).split())}", flush=True)
    if failed == len(readers):
        raise FileError(f"{options.data}: no scan of {failed} can be used; the lines above say why.")
    if failed:
        raise SomeFailed(
            f"{options.data}: {failed} of {len(readers)} scans cannot be used; the lines above say why."
        )


def scans(options: argparse.Namespace) -> dict[str, Callable[[], Volume]]:
    """Name -> function that reads the scan, and its labels where there are any.

    Raises:
        ConfigError: a series or contrasts are named and DATA is no folder of DICOM files; no Dixon contrasts.
        FileError: no such file or folder.
        MismatchError: images and labels do not match.
    """
    data = pathlib.Path(options.data)
    dicom = data.is_dir() and not any(map(case.is_scan, data.iterdir()))
    for name in ("series", "contrasts"):
        if getattr(options, name) and (not dicom or options.layout or options.labels):
            raise ConfigError(f"{data}: --{name} goes with a folder of DICOM files; leave it out.")
    if options.layout or options.labels:
        paths = (data, options.labels) if options.labels else (data,)
        cases = layouts.list_cases(options.layout or "folders", *paths)
        return {c.subject: lambda c=c: _image(c, options) for c in cases}
    if not data.exists():
        raise FileError(f"{data}: no such file or folder.")
    if data.is_file():
        return {case.stem(data): lambda: read_volume(data, channels=True, nan=options.nan)}
    if not dicom:
        return {
            n: lambda p=p: read_volume(p, channels=True, nan=options.nan) for n, p in case.scans(data).items()
        }
    return {data.name: lambda: _series(data, options)}


def _series(folder: pathlib.Path, options: argparse.Namespace) -> Volume:
    """The series of a folder of DICOM files that is asked for."""
    from ukbob_jax.volumes.dicom import CONTRASTS, dixon_names, read_series  # pydicom is optional

    asked = list(filter(None, options.contrasts.split(",")))
    names = dixon_names(asked)
    if asked and not names:
        raise ConfigError(f"--contrasts {options.contrasts}: expected some of {','.join(CONTRASTS)}.")
    return read_series(folder, options.series, channels=names)


def _image(one: case.Case, options: argparse.Namespace) -> Volume:
    """The image of a case whose labels can be used as well."""
    scan = read_case(one, num_classes=options.num_classes, nan=options.nan)
    check_ids(one, scan)
    return scan.image


def describe(volume: Volume) -> str:
    """Grid and values of a scan that can be used; channels with a single value are named."""
    array = volume.array if volume.array.ndim == 4 else volume.array[..., None]
    size = " x ".join(map(str, volume.shape))
    spacing = " x ".join(f"{s:.4g}" for s in volume.spacing_mm)
    text = f"{size} voxels, {spacing} mm, {volume.orientation}, {array.shape[3]} channels, {array.dtype}"
    constant = [c for c in range(array.shape[3]) if np.ptp(array[..., c]) == 0]
    return text + (f"; channels {constant} show nothing" if constant else "")
