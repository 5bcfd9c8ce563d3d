"""How a command ends: one line on stderr for every failure, and the exit code of `errors.py`."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable

from ukbob_jax.errors import UkbobError


def run(function: Callable[[list[str]], None], argv: list[str]) -> int:
    """Call `function(argv)`; print what went wrong as one line and return the exit code."""
    warnings.showwarning = warn
    debug = "--debug" in argv
    try:
        function(argv)
    except UkbobError as error:
        return fail(str(error), error.exit_code, debug)
    except KeyboardInterrupt:
        return fail("interrupted; the same command goes on from the last checkpoint.", 130, debug)
    except BrokenPipeError:  # the reader of our output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
