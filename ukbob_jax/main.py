"""Run one job: `python -m ukbob_jax.main --config=configs/swin_bob.py[:variant] --workdir=DIR [--config.field=value]`.

The recipe names its job (or several, in order: `config.job = "ingest,train,predict"`). The exit code says how it
ended (`errors.py`); one line on stderr says what to do. `--debug` shows the traceback as well.
"""

import pathlib
import sys
import traceback
import warnings

from absl import flags, logging

from ukbob_jax import devices, jobs, settings
from ukbob_jax.errors import UkbobError

USAGE = "python -m ukbob_jax.main --config=configs/RECIPE.py[:VARIANT] --workdir=DIR [--config.FIELD=VALUE]"


def run(argv: list[str]) -> None:
    """Read the recipe and run its jobs in order; `argv` is the command line without the program's name.

    Raises:
        UkbobError: anything the user can act on.
    """
    config, options = settings.parse(argv, usage=USAGE)
    workdir = settings.claim(options.workdir, jobs.names(config))
    config = settings.resolve(config, workdir)
    devices.start(config, options)
    for name in jobs.names(config):
        jobs.find(name).run(config, str(workdir))


def main(argv: list[str] | None = None) -> int:
    """`run`, with every failure turned into one line on stderr and an exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(f"{__doc__}\n\nJobs: {', '.join(jobs.JOBS)}.\nRecipes: {', '.join(recipes())}.")
        return 0
    logging.set_verbosity(logging.ERROR)
    warnings.showwarning = warn
    if not flags.FLAGS.is_parsed():  # Grain's workers read absl's flags
        flags.FLAGS.mark_as_parsed()
    return guard(run, argv)


def guard(function, argv: list[str]) -> int:
    """Call `function(argv)`; print what went wrong as one line and return the exit code."""
    debug = "--debug" in argv
    try:
        function(argv)
    except UkbobError as error:
        return fail(str(error), error.exit_code, debug)
    except KeyboardInterrupt:
        return fail("interrupted; the same command goes on from the last checkpoint.", 130, debug)
    except Exception as error:
        what = f"internal error: {type(error).__name__}: {error}"
        return fail(f"{what} Run again with --debug for the traceback.", 1, debug)
    return 0


def warn(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Print our own warnings on one line; those of libraries are for developers."""
    if category is UserWarning:
        print("ukbob: warning: " + " ".join(str(message).split()), file=sys.stderr, flush=True)


def fail(message: str, code: int, debug: bool) -> int:
    """Print `message` on one line of stderr, under the traceback when debugging."""
    if debug:
        traceback.print_exc()
    print("ukbob: " + " ".join(message.split()), file=sys.stderr, flush=True)
    return code


def recipes() -> list[str]:
    """The recipe files beside the package, for the help text."""
    folder = pathlib.Path(__file__).resolve().parents[1] / "configs"
    return sorted(f"configs/{path.name}" for path in folder.glob("*.py") if path.name != "common.py")


if __name__ == "__main__":
    sys.exit(main())
