"""Learning from labels that a network made, and which of them to keep.

    python -m ukbob_jax.main --config=configs/semi.py --workdir=DIR --config.store=STORE --config.label=manual \
        --config.semi.labelled=20
    python -m ukbob_jax.main --config=configs/semi.py:hippocampus --workdir=DIR --config.splits=SPLIT.json \
        --config.source.paths.images=IMAGES --config.source.paths.labels=LABELS            on the Decathlon's MR

Methods, and what every file holds: docs/active.md. The network and its training are the recipe's. Numbers are ours.
"""

import ml_collections

from configs import active

VARIANTS = {"cohort": "semi", "hippocampus": "ingest,semi"}


def get_config(variant: str = "cohort") -> ml_collections.ConfigDict:
    config = active.get_config("hippocampus" if variant == "hippocampus" else "campaign")
    config.job = VARIANTS[variant]
    scores = config.active
    config.active = ml_collections.ConfigDict()
    for name in ("unit", "ensemble", "members", "grader"):  # of the networks and the grader that judge labels
        config.active[name] = scores[name]
    config.active.members = 8  # draws of dropout

    config.semi = ml_collections.ConfigDict()
    config.semi.methods = ("none", "all", "random", "entropy", "solf")  # and "dropout", "sentinel"
    config.semi.seeds = (0, 1, 2)  # a teacher each
    config.semi.labelled = 20  # scans of the training split whose labels count; published, beside 100 without
    config.semi.keep = (
        0.5  # share of each organ's labels that a method keeps; SOLF keeps what its limits hold
    )
    config.semi.name = "semi"  # label sets are called NAME_SEED
    return config
