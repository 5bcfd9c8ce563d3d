"""Compute the radiomic features of every structure of a label map.

    ukbob radiomics scan.nii.gz labels.nii.gz features.csv
    ukbob radiomics scan.nii.gz labels.nii.gz features.csv --bin-count 32 --families firstorder glcm
    ukbob radiomics scan.nii.gz labels.nii.gz features.csv --normalise-scale 100 --bin-width 5 --resample-mm 2

Writes a row per structure, with pyradiomics' names of features (docs/radiomics.md). Structures are named by the table in
the labels' header, or else by our own ids (`ukbob labels`).
"""

import argparse
import dataclasses
import pathlib
import sys
import warnings

import numpy as np

from ukbob_jax import anatomy, files
from ukbob_jax.errors import FileError, ValuesError
from ukbob_jax.radiomics import table
from ukbob_jax.radiomics.discretisation import DEFINITIONS
from ukbob_jax.radiomics.features import ALL, features
from ukbob_jax.radiomics.options import RadiomicsOptions
from ukbob_jax.volumes import nifti

_OURS = ("contrast", "process", "processes")  # of a store


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    default = RadiomicsOptions()
    parser.add_argument("image", help="a scan of one contrast")
    parser.add_argument("labels", help="its label map")
    parser.add_argument("output", help="the table, .csv")
    parser.add_argument(
        "--families", nargs="+", choices=ALL, default=list(ALL), help="of features (default all)"
    )
    parser.add_argument(
        "--bin-width", type=float, default=default.bin_width, help="of grey levels (default 25)"
    )
    parser.add_argument(
        "--bin-count", type=int, default=default.bin_count, help="number of grey levels instead"
    )
    parser.add_argument(
        "--definition", choices=DEFINITIONS, default=default.definition, help="where the two differ"
    )
    parser.add_argument(
        "--normalise-scale", type=float, default=default.normalise_scale, metavar="SD",
        help="bring the whole image to mean 0 and this standard deviation first",
    )  # fmt: skip
    parser.add_argument("--voxel-shift", type=float, default=default.voxel_shift, help="added in energies")
    parser.add_argument(
        "--distances", type=int, nargs="+", default=list(default.distances), help="of neighbours"
    )
    parser.add_argument(
        "--alpha", type=int, default=default.alpha, help="difference of levels that depend on each other"
    )
    parser.add_argument(
        "--weighting", default=default.weighting, help="of directions: manhattan, euclidean, infinity"
    )
    parser.add_argument("--merge", action="store_true", help="the matrices of all directions into one")
    parser.add_argument(
        "--resample-mm", type=float, default=default.resample_mm, help="spacing to resample to first"
    )


def run(options: argparse.Namespace) -> None:
    """Read the pair and write the table.

    Raises:
        UkbobError: see `volumes.nifti.read_pair` and `radiomics.features`.
    """
    from ukbob_jax import devices

    output = pathlib.Path(options.output)
    if output.suffix.lower() != ".csv":
        raise FileError(f"{output}: the table is written as CSV; give it a name that ends with .csv.")
    image, labels = nifti.read_pair(options.image, options.labels)
    devices.prepare()
    chosen = [f.name for f in dataclasses.fields(RadiomicsOptions) if f.name not in _OURS]
    settings = RadiomicsOptions(**{name: getattr(options, name) for name in chosen})
    organs = [i for i in np.unique(labels.array).tolist() if i not in (0, anatomy.IGNORE)]
    if not organs:
        raise ValuesError(f"{options.labels}: no structure, every voxel is background. Give its label map.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        found = features(image.array, labels.array, image.spacing_mm, classes=organs, **settings.arguments())
    for told in caught:
        print(f"warning: {told.message}", file=sys.stderr)
    names = nifti.read_label_names(options.labels) or anatomy.NAMES
    header = ["organ", "name", *table.columns(settings.families)]
    files.write_csv(output, header, table.rows(found, organs, names))
    print(f"{output}: {len(header) - 2} features of {len(organs)} structures")
