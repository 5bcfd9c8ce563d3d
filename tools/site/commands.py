"""What the programs say of themselves when asked for help, and how they end."""

import argparse
import importlib
import inspect

from tools.site.tables import code, plain, prose, table
from ukbob_jax import cli, errors, jobs, main


def everyday() -> str:
    """`ukbob` and each of its commands."""
    parts = [prose(cli.__doc__ or "")]
    for name in cli.COMMANDS:
        module = importlib.import_module(f"ukbob_jax.commands.{name}")
        parts.append(f"## ukbob {name}\n\n{prose(module.__doc__ or '')}")
        parts.append(options(parser(name)))
    return "\n\n".join(parts)


def parser(name: str) -> argparse.ArgumentParser:
    """The options of a command."""
    made = argparse.ArgumentParser(prog=f"ukbob {name}", allow_abbrev=False)
    importlib.import_module(f"ukbob_jax.commands.{name}").add_options(made)
    made.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    return made


def options(made: argparse.ArgumentParser) -> str:
    """A table of what a parser takes."""
    rows = []
    for action in made._actions:
        if action.dest != "help":
            words = ", ".join(action.option_strings) or str(action.metavar or action.dest)
            value = action.metavar or action.dest.upper()
            takes = "" if action.nargs == 0 or not action.option_strings else f" {value}"
            choices = (
                f"; one of {', '.join(code(str(c)) for c in action.choices if c)}" if action.choices else ""
            )
            default = "" if action.default in (None, False, "", [], ()) else code(str(action.default))
            rows.append(
                (code(words + str(takes)), default, plain((action.help or "") % vars(action)) + choices)
            )
    return table(("option", "default", "meaning"), rows)


def training() -> str:
    """`python -m ukbob_jax.main` and its jobs."""
    rows = (
        (code(name), (inspect.getdoc(jobs.find(name)) or "").partition("\n")[0]) for name in sorted(jobs.JOBS)
    )
    return f"{prose(main.__doc__ or '')}\n\n{table(('job', 'what it does'), rows)}"


def exits() -> str:
    """Exit codes, from the classes of errors."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.UkbobError)
    ]
    rows: dict[int, list[str]] = {}
    for kind in kinds:
        if kind is errors.UkbobError:
            rows[1] = ["An error that nobody foresaw, or one of no kind below; `--debug` shows where."]
            continue
        rows.setdefault(kind.exit_code, []).append(
            f"`{kind.__name__}`: {(inspect.getdoc(kind) or '').splitlines()[0]}"
        )
    lines = [(code("0"), "The job is done.")]
    lines += [(code(str(number)), "<br>".join(rows[number])) for number in sorted(rows)]
    return table(("exit code", "what happened"), lines)
