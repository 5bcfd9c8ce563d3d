"""The section `sentinel` of a recipe: how a grader is trained, evaluated and used. Fields and defaults, written once."""

import dataclasses

from ukbob_jax.errors import ConfigError
from ukbob_jax.sentinel.degradation import KINDS, NOTHING_LEFT
from ukbob_jax.sentinel.preprocessing import MODALITIES, MR_RULES

PAIRINGS = ("host", "neighbours")
DRAWN = tuple(kind for kind in KINDS if kind != "empty")  # an empty mask needs no network


@dataclasses.dataclass(frozen=True)
class SentinelOptions:
    """The configuration's section `sentinel`.

    Attributes:
        modality: of the scans, "MR" or "CT".
        rule: of the window of MR, see `preprocessing.window`.
        embeddings: "taxonomy", "one_hot", "measured" (on the training subjects), "learned", or a file of
            `embeddings.load`; "taxonomy+measured" puts several side by side.
        embedding_noise: of a training's embeddings, deviation in units of each number's own over the classes, so that
            organs are known by what they are like rather than by their exact vector. For organs never trained on.
        size: pixels of a resized slice or voxels of a cube's side; 0: 256 and 48.
        margin: around the mask, pixels of slices or mm of cubes. Slices of training draw theirs, from 10 on.
        held_out_organs: names of organs that are never trained on, to see how the grader does on such.
        kinds: errors to make, of `degradation.KINDS`; empty: all but empty masks.
        lost: share of the pairs whose mask lies on another organ or beside its own.
        per_scan: pairs in a row from one scan, which is then read once.
        checkpoints: workdirs of segmentation trainings, with commas between them, whose kept checkpoints predict the
            training subjects; empty: none.
        predicted: share of the pairs that are such predictions.
        pairing: who finds the partners of the ranking loss: the "host", optimally, or "neighbours" by class on the device.
        ranking: factor on the ranking loss.
        detector: factor on the AUC margin loss of a grader with `config.model.detection`.
        threshold: Dice under which a label needs repair: the detector's positives, and what is flagged in a store.
        recall: at which the detector's precision is told.
        val_pairs: masks of held-out subjects in each evaluation.
        coverage: probability with which the interval holds the true Dice.
        grader: workdir of a trained grader, or a `.pth` file in the released layout, to evaluate or grade with.
        decisions: .json or .csv of the audit page; its decisions overrule the threshold.
        process: which share of the subjects to grade, of
        processes: so many.
    """

    modality: str = "MR"
    rule: str = "percentile"
    embeddings: str = "taxonomy"
    embedding_noise: float = 0.0
    size: int = 0
    margin: float = 20.0
    held_out_organs: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    lost: float = 0.15
    per_scan: int = 4
    checkpoints: str = ""
    predicted: float = 0.5
    pairing: str = "host"
    ranking: float = 1.0
    detector: float = 0.1
    threshold: float = 0.5
    recall: float = 0.9
    val_pairs: int = 240
    coverage: float = 0.9
    grader: str = ""
    decisions: str = ""
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be used, naming the field."""
        for name, known in (("modality", MODALITIES), ("rule", MR_RULES), ("pairing", PAIRINGS)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"config.sentinel.{name}: {getattr(self, name)!r} is unknown; choose one of {', '.join(known)}."
                )
        for kind in self.kinds:
            if kind not in DRAWN:
                raise ConfigError(
                    f"config.sentinel.kinds: {kind!r} is no error to learn from; choose from {', '.join(DRAWN)}."
                )
        if self.kinds and not set(self.kinds) - set(NOTHING_LEFT):
            raise ConfigError(
                f"config.sentinel.kinds: {', '.join(self.kinds)} always leave nothing; add one that leaves a part."
            )
        for name in ("lost", "predicted", "threshold", "recall"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"config.sentinel.{name}: {getattr(self, name)} is not in [0, 1].")
        if not 0 < self.coverage < 1:
            raise ConfigError(f"config.sentinel.coverage: {self.coverage} is not in (0, 1).")
        for name, least in (
            ("per_scan", 1),
            ("val_pairs", 2),
            ("size", 0),
            ("embedding_noise", 0),
            ("margin", 0),
            ("ranking", 0),
            ("detector", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"config.sentinel.{name}: {getattr(self, name)} is less than {least}.")
