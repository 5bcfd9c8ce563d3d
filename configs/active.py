"""What to annotate next, and what annotating it brings.

    python -m ukbob_jax.main --config=configs/active.py --workdir=DIR --config.store=STORE --config.label=manual
                                                             a campaign played through: a label set of the store answers
    python -m ukbob_jax.main --config=configs/active.py:hippocampus --workdir=DIR --config.splits=SPLIT.json \
        --config.source.paths.images=IMAGES --config.source.paths.labels=LABELS          the same on the Decathlon's MR
    python -m ukbob_jax.main --config=configs/active.py:query --workdir=DIR --config.store=STORE \
        --config.query.workdirs='("TRAINED",)' --config.active.strategies='("entropy",)'  a list of what to annotate next

Strategies, and what every file holds: docs/active.md. The network and its training are the recipe's. Numbers are ours.
"""

import ml_collections

from configs import common, hippocampus

VARIANTS = {"campaign": "active", "hippocampus": "ingest,active", "query": "query"}


def get_config(variant: str = "campaign") -> ml_collections.ConfigDict:
    config = hippocampus.get_config() if variant == "hippocampus" else common.base()
    config.job = VARIANTS[variant]
    config.label = (
        "manual"  # answers; of a query, the label set that persons make: scans that have it are left out
    )
    config.data.flagged = "off"
    config.evaluate.split = "val"  # scored after every round
    config.evaluate.name = "val"
    config.evaluate.methods = ("off",)
    config.evaluate.surface = False

    config.active = ml_collections.ConfigDict()
    config.active.strategies = (
        "foreground_random",
        "entropy",
    )  # of ukbob_jax/active/strategies.py; one for a query
    config.active.unit = "scan"  # or "patch"
    config.active.patch = (32, 32, 32)  # voxels x y z, cut to smaller scans
    config.active.budget = 5  # units per round
    config.active.odds = "equal"  # of foreground_random: anywhere, structure, surface; or "4:1:1"
    config.active.overlap = 0.0  # fraction of a patch that other ones may cover
    config.active.ensemble = (
        "seeds"  # networks that score: "seeds", "checkpoints" (best and latest) or "dropout"
    )
    config.active.members = 1  # trainings per round, or draws of dropout
    config.active.grader = ""  # workdir of a trained Sentinel, for the strategies of its grades
    if variant == "query":
        config.query = ml_collections.ConfigDict()
        config.query.workdirs = ()  # of trainings; several for the ensemble "seeds"
        config.query.split = ""  # to choose from; empty: the whole store
        config.query.labelled = ""  # a query.csv of units that are annotated already
        config.query.beta = 1.0  # of noise on scores: the larger, the less chance
        config.query.output = "{workdir}/query"  # folder of the list and the maps of ranks
        return config
    config.active.name = "active"  # label sets of what is labelled are called NAME_STRATEGY_SEED
    config.active.seeds = (0, 1, 2)  # a campaign each
    config.active.start = 5  # units before the first training
    config.active.start_by = "foreground_random"  # or "random"
    config.active.rounds = 4  # after the first training
    config.active.full = True  # also train on all labels, which foreground efficiency compares with
    return config
