"""The whole loop on the embedded cohort: noisy labels filtered, networks trained, other scanners met, pictures made."""

import pathlib

import ml_collections

from ukbob_jax.jobs import audit, evaluate, ingest, report, solf, train
from ukbob_jax.settings import with_fields

WITHOUT_SOLF = "without_solf"


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Run every stage in order; a stage that is done is passed over, so the same command resumes."""
    ingest.run(config, workdir)
    solf.run(config, workdir)
    audit.run(config, workdir)
    train.run(config, workdir)
    train.run(with_fields(config, {"data.flagged": "off"}), str(pathlib.Path(workdir) / WITHOUT_SOLF))
    for name, scanner in tests(config).items():
        here = with_fields(config, {**scanner, "store": f"{workdir}/stores/{name}", "evaluate.name": name})
        ingest.run(here, workdir)
        evaluate.run(here, workdir)
    unfiltered = {"store": f"{workdir}/stores/clean", "evaluate.name": "clean", "evaluate.methods": ("off",)}
    evaluate.run(with_fields(config, unfiltered), str(pathlib.Path(workdir) / WITHOUT_SOLF))
    report.run(config, workdir)


def tests(config: ml_collections.ConfigDict) -> dict[str, dict[str, object]]:
    """Store name -> changes of the recipe: the same held-out bodies, on the scanner of training and on each other."""
    held_out = {
        "source.count": config.evaluate.subjects,
        "source.first": config.source.first + config.source.count,  # bodies no training subject has
        "source.errors": 0.0,
        "source.splits": {"test": config.evaluate.subjects},
    }
    return {
        scanner or "clean": {**held_out, "source.scanner": scanner}
        for scanner in ("", *config.evaluate.scanners)
    }
