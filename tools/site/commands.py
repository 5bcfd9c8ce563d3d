"""What the programs say of themselves when asked for help, and how they end."""

import argparse
import importlib
import inspect

from tools.site.tables import code, table
from ukbob_jax import cli, errors, jobs, main


def everyday() -> str:
    """`ukbob` and each of its commands."""
    parts = [f"```text\n{cli.__doc__.strip()}\n```"]
    for name in cli.COMMANDS:
        module = importlib.import_module(f"ukbob_jax.commands.{name}")
        summary, _, rest = (module.__doc__ or "").strip().partition("\n")
        parts.append(f"## ukbob {name}\n\n{summary}")
        parts += [f"```text\n{rest.strip(chr(10))}\n```"] if rest.strip() else []
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
            choices = f" One of {', '.join(map(str, action.choices))}." if action.choices else ""
            default = "" if action.default in (None, False, "", [], ()) else code(str(action.default))
            rows.append((code(words + str(takes)), default, f"{action.help or ''}{choices}"))
    return table(("option", "default", "meaning"), rows)


def training() -> str:
    """`python -m ukbob_jax.main` and its jobs."""
    rows = (
        (code(name), (inspect.getdoc(jobs.find(name)) or "").partition("\n")[0]) for name in sorted(jobs.JOBS)
    )
    return f"```text\n{main.__doc__.strip()}\n```\n\n{table(('job', 'what it does'), rows)}"


def exits() -> str:
    """Exit codes, from the classes of errors."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.UkbobError)
    ]
    rows: dict[int, list[str]] = {}
    for kind in kinds:
        rows.setdefault(kind.exit_code, []).append(
            f"`{kind.__name__}`: {(inspect.getdoc(kind) or '').splitlines()[0]}"
        )
    lines = [(code("0"), "The job is done.")]
    lines += [(code(str(number)), "<br>".join(rows[number])) for number in sorted(rows)]
    return table(("exit code", "what happened"), lines)
