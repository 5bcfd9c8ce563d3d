"""The console command `ukbob`: everyday things without a recipe.

    ukbob segment IN OUT --model WORKDIR    label a scan, a folder of scans, or a DICOM series
    ukbob check DATA                        read every scan and tell what is wrong with it
    ukbob labels                            structures, their ids, and those of other label sets
    ukbob export2d STORE OUT                a store's slices as 2D images and masks
    ukbob radiomics IMAGE LABELS OUT.csv    radiomic features of every structure of a label map
    ukbob frd REFERENCE OTHER               how far the scans of two stores are apart, in radiomic features
    ukbob info [WORKDIR]                    versions, devices, caches, and what a trained network is
    ukbob compare RUN RUN ...               one page that puts the evaluations of several runs beside each other
    ukbob card STORE                        what a store holds: counts, contrasts, labels, licences, known issues
    ukbob doctor                            what this installation can do, and what is missing for what
    ukbob cite                              BibTeX of the papers whose methods are implemented
    ukbob --version

`ukbob COMMAND --help` lists the options. Training and all else: python -m ukbob_jax.main --help. Nothing is downloaded
and nothing is sent.
"""

import argparse
import importlib
import sys

from ukbob_jax import __version__, advice, console
from ukbob_jax.errors import ConfigError

COMMANDS = (
    "segment", "check", "labels", "radiomics", "frd", "info", "compare", "card", "export2d", "doctor", "cite",
)  # fmt: skip


class Parser(argparse.ArgumentParser):
    """Answers a mistake with one line."""

    def error(self, message: str) -> None:
        """Raise instead of printing the usage; the message names the command."""
        raise ConfigError(f"{message}. See {self.prog} --help.")


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code is that of `errors.py`."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(__doc__)
        return 0
    if argv[0] == "--version":
        print(f"ukbob-jax {__version__}")
        return 0
    return console.run(run, argv)


def run(argv: list[str]) -> None:
    """Parse the options of `argv[0]` and call its module.

    Raises:
        UkbobError: anything the user can act on.
    """
    if argv[0] not in COMMANDS:
        raise ConfigError(f"{argv[0]!r} is no command; there are {', '.join(COMMANDS)}. See ukbob --help.")
    module = importlib.import_module(f"ukbob_jax.commands.{argv[0]}")  # only what this command needs
    parser = Parser(
        prog=f"ukbob {argv[0]}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_options(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    try:
        options = parser.parse_args(argv[1:])
    except SystemExit:  # after --help
        return
    with advice.options(vars(options)):
        module.run(options)


if __name__ == "__main__":
    sys.exit(main())
