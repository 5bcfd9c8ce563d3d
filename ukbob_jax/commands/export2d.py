"""Write the slices of STORE into the folder OUT as 2D images and masks, in the layout of SA-Med2D-20M.

The same command goes on where it was stopped, and exports subjects that are new. Shares of a large store and dask: the
recipe configs/export2d.py. Documentation: docs/export2d.md.
"""

import argparse
import pathlib
import typing
from typing import Any

from ukbob_jax import options as dataclasses_of
from ukbob_jax.errors import FileError
from ukbob_jax.export2d.options import INTENSITIES, PIXELS, STYLES, Export2dOptions

_HELP = {
    "dataset": "second part of every file's name",
    "style": "the layout: SA-Med2D-20M's, or the one that SAM-Med2D's loader reads",
    "axes": "of the volume, that are cut",
    "contrasts": "names to export (default all)",
    "codes": "CONTRAST=CODE where the modality code of a contrast is not known",
    "classes": "names to export (default all)",
    "mapping": "JSON file of class name and four-digit id (default: the ids of `ukbob labels`)",
    "intensity": "what becomes 0 and 255",
    "window": "lowest and highest value, with --intensity window",
    "pixels": "a pixel per voxel, or square ones",
    "merge_pixels": "components at most so many pixels apart are one instance",
    "min_area": "least share of the slice that an instance covers",
    "aspect": "least ratio of a slice's sides",
    "split": "of the store (default all)",
    "test_split": "of the store, for testing in style demo",
}
_CHOICES = {"style": STYLES, "intensity": INTENSITIES, "pixels": PIXELS}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("store", help="folder of the volume store")
    parser.add_argument("output", metavar="OUT", help="folder to write")
    parser.add_argument("--label", default="auto", help="label set (default auto)")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one per core)")
    kinds = typing.get_type_hints(Export2dOptions)
    for name, text in _HELP.items():
        default, kind = getattr(Export2dOptions, name), kinds[name]
        many: dict[str, Any] = {"nargs": 2 if name == "window" else "+"} if isinstance(default, tuple) else {}
        scalar: Any = typing.get_args(kind)[0] if many else kind
        shown = " ".join(map(str, default)) if many else default
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=scalar, default=default, choices=_CHOICES.get(name),
            help=text + (f" (default {shown})" if shown and "default" not in text else ""), **many,
        )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Export, and print what was written.

    Raises:
        UkbobError: as the job.
    """
    from ukbob_jax.jobs import export2d  # only now: --help needs no store

    if "://" not in options.store and not (pathlib.Path(options.store) / "store.json").is_file():
        raise FileError(f"{options.store}: no store; STORE is the folder that an ingest job has written.")

    known = set(dataclasses_of.names(Export2dOptions)) & set(vars(options))
    settings = Export2dOptions(**{name: getattr(options, name) for name in known})
    counted = export2d.export(options.store, options.label, settings, options.output, options.workers)
    if counted:
        print(f"{counted['images']} images, {counted['masks']} masks of {counted['subjects']} subjects")
