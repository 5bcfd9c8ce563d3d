"""Put the evaluations of several runs beside each other on one page: OUT/index.html, which needs nothing beside it.

RUN is the workdir of a training that the job evaluate has scored. The page has Dice per organ with intervals, every two
runs compared scan by scan with p values corrected for the number of comparisons, time and memory of the predictions,
groups of people where the store knows them, and pictures of the scans on which the runs differ most. Runs are compared on
the scans and organs that all of them have; what was left out is told. OUT/compare.json holds the same numbers.

Pictures need label maps of all runs: score them with --config.evaluate.pictures=N, for those of the first N scans.
"""

import argparse
import pathlib
import sys

from ukbob_jax import files
from ukbob_jax.errors import ConfigError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="workdirs; the first is what others are compared with"
    )
    parser.add_argument(
        "--out", default="compare", metavar="OUT", help="folder of the page (default compare)"
    )
    parser.add_argument(
        "--name", default="test", help="of the evaluation, config.evaluate.name (default test)"
    )
    parser.add_argument(
        "--method", nargs="+", default=["off"], metavar="METHOD",
        help="of adaptation: off, etta, ...; each run appears once per method (default off)",
    )  # fmt: skip
    parser.add_argument(
        "--correction", choices=("holm", "bh"), default="holm",
        help="of p for many comparisons: Holm (any false finding) or Benjamini-Hochberg (their share)",
    )  # fmt: skip
    parser.add_argument("--level", type=float, default=0.05, help="of significance (default 0.05)")
    parser.add_argument("--pictures", type=int, default=4, help="scans that are drawn (default 4)")


def run(options: argparse.Namespace) -> None:
    """Write the page.

    Raises:
        ConfigError: runs or options that do not go together.
        FileError: a run without evaluation, or an output folder that cannot be written.
        MismatchError: runs that share no scan or organ.
    """
    from ukbob_jax.evaluation import comparison, report, significance
    from ukbob_jax.evaluation.pages import compare

    if not 0 < options.level < 1:
        raise ConfigError(f"--level {options.level:g}: expected a number between 0 and 1.")
    if options.pictures < 0:
        raise ConfigError(f"--pictures {options.pictures}: expected 0 or more.")
    found = comparison.compare(comparison.load(options.runs, options.name, options.method))
    for remark in found.remarks:
        print(f"compare: {remark}", file=sys.stderr)
    sections = compare.sections(found, options.correction, options.level, options.pictures)
    lead = f"{len(found.runs)} runs on {len(found.subjects)} scans: {', '.join(run.title for run in found.runs)}."
    page = report.write(options.out, "Runs compared", lead, sections)
    first = found.runs[0]
    numbers = {
        "runs": [{"title": run.title, "method": run.method, "costs": dict(run.costs)} for run in found.runs],
        "subjects": list(found.subjects),
        "organs": list(found.organs),
        "remarks": list(found.remarks),
        "pairs": comparison.pairs(found, options.correction),
        "organs_against_first": {
            run.title: significance.differences(first.scores, run.scores) for run in found.runs[1:]
        },
    }
    files.write_json(pathlib.Path(options.out) / "compare.json", numbers)
    print(page)
