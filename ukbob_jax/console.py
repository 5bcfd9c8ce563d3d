"""What a command prints: tables as aligned columns, and one line on stderr for every failure, with its exit code."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence

from ukbob_jax.errors import Preempted, UkbobError
from ukbob_jax.stopping import Terminated


def run(function: Callable[[list[str]], None], argv: list[str]) -> int:
    """Call `function(argv)`; print what went wrong as one line and return the exit code."""
    warnings.showwarning = warn
    debug = "--debug" in argv
    try:
        function(argv)
    except UkbobError as error:
        return fail(str(error), error.exit_code, debug)
    except Terminated:
        return fail(
            "stopped as asked; the same command goes on from what is written.", Preempted.exit_code, debug
        )
    except KeyboardInterrupt:
        return fail("interrupted; the same command goes on from the last checkpoint.", 130, debug)
    except BrokenPipeError:  # the reader of our output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        what = f"internal error: {type(error).__name__}: {error}"
        return fail(f"{what} Run again with --debug for the traceback.", 1, debug)
    return 0


def aligned(lines: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """Return cells as aligned columns, two spaces apart.

    Args:
        lines: rows of cells, the header first, all of one length.
        numbers: align all columns but the first on the right.
    """
    widths = [max(map(len, column)) for column in zip(*lines)]

    def pad(cell: str, column: int) -> str:
        return cell.rjust(widths[column]) if numbers and column else cell.ljust(widths[column])

    return "\n".join("  ".join(pad(cell, i) for i, cell in enumerate(line)).rstrip() for line in lines)


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
