"""Run one job: `python -m ukbob_jax.main --config=configs/swin_bob.py[:variant] --workdir=DIR [--config.field=value]`.

The recipe names its job (or several, in order: `config.job = "ingest,train,predict"`). The exit code says how it
ended (`errors.py`); one line on stderr says what to do. `--debug` shows the traceback as well. A workdir takes one run
at a time; `--take-over` takes it from one that was killed and could not let go of it.
"""

import contextlib
import pathlib
import sys

from absl import flags, logging

from ukbob_jax import console, devices, jobs, run_lock, settings, stopping

USAGE = "python -m ukbob_jax.main --config=configs/RECIPE.py[:VARIANT] --workdir=DIR [--config.FIELD=VALUE]"


def run(argv: list[str]) -> None:
    """Read the recipe and run its jobs in order; `argv` is the command line without the program's name.

    Raises:
        UkbobError: anything the user can act on.
    """
    config, options = settings.parse(argv, usage=USAGE)
    workdir = settings.prepare_workdir(options.workdir, jobs.names(config))
    config = settings.resolve(config, workdir)
    devices.start(config, options)
    names = jobs.names(config)
    share = run_lock.share_of(config.get(names[0])) if len(names) == 1 else ""
    with contextlib.ExitStack() as stack:
        devices.on_first_process(
            lambda: stack.enter_context(run_lock.held(workdir, ",".join(names), share, options.take_over))
        )
        # several have JAX's own handler, by which all agree on a step and which ours would replace
        if not devices.several_processes():
            stack.enter_context(stopping.ending_soon())
        for name in names:
            jobs.find(name).run(config, str(workdir))


def main(argv: list[str] | None = None) -> int:
    """`run`, with every failure turned into one line on stderr and an exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(f"{__doc__}\n\nJobs: {', '.join(jobs.JOBS)}.\nRecipes: {', '.join(recipes())}.")
        return 0
    logging.set_verbosity(logging.ERROR)
    if not flags.FLAGS.is_parsed():  # Grain's workers read absl's flags
        flags.FLAGS.mark_as_parsed()
    return console.run(run, argv)


def recipes() -> list[str]:
    """The recipe files beside the package, for the help text."""
    folder = pathlib.Path(__file__).resolve().parents[1] / "configs"
    return sorted(
        f"configs/{path.name}" for path in folder.glob("*.py") if path.stem not in ("common", "networks")
    )


if __name__ == "__main__":
    sys.exit(main())
