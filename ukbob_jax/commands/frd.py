"""Tell how far the scans of OTHER are from those of REFERENCE, two stores, in radiomic features.

    ukbob frd STORE OTHER --label auto --contrast water
    ukbob frd STORE STORE --where site=1 --other-where site=2       two parts of one store

Writes OUT/index.html, frd.json, shifts.csv and scores.csv. The features of each scan are kept in its store, so that the
same command goes on where it was stopped. Shares of a large store: the recipe configs/frd.py. Documentation: docs/frd.md.
"""

import argparse
import pathlib
from typing import Any

from ukbob_jax import options as fields_of
from ukbob_jax.errors import FileError
from ukbob_jax.radiomics.frd import VERSIONS
from ukbob_jax.radiomics.frd_options import FrdOptions
from ukbob_jax.radiomics.ood import DISTRIBUTIONS

_HELP = {
    "where": 'which scans are the reference, such as "split=train site=1" (default all)',
    "other_where": "which scans of OTHER",
    "other_label": "label set of OTHER (default that of the reference)",
    "organ": "whose voxels are measured (default all organs together)",
    "contrast": "the one to measure (default the only one)",
    "other_contrast": "of OTHER (default that of the reference)",
    "version": "of the distance",
    "distribution": "of scores of single scans",
    "draws": "of the bootstrap and of chance, each",
}
_CHOICES = {"version": VERSIONS, "distribution": DISTRIBUTIONS}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("reference", metavar="REFERENCE", help="folder of a store")
    parser.add_argument("other", metavar="OTHER", help="folder of a store, also the same one")
    parser.add_argument("--out", default="frd", metavar="OUT", help="folder of the page (default frd)")
    parser.add_argument("--label", default="auto", help="label set (default auto)")
    for name, text in _HELP.items():
        default: Any = getattr(FrdOptions, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, choices=_CHOICES.get(name),
            help=text + (f" (default {default})" if default else ""),
        )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Measure, compare and write the page.

    Raises:
        UkbobError: as the job.
    """
    from ukbob_jax import devices
    from ukbob_jax.jobs import frd  # only now: --help needs no store

    for name in (options.reference, options.other):
        if "://" not in name and not (pathlib.Path(name) / "store.json").is_file():
            raise FileError(f"{name}: no store; give two folders that an ingest job has written.")
    devices.prepare()
    known = set(fields_of.names(FrdOptions)) & set(vars(options))
    settings = FrdOptions(**{name: getattr(options, name) for name in known})
    frd.distance(options.reference, options.label, settings, options.out, pathlib.Path(options.out))
    print(pathlib.Path(options.out) / "index.html")
