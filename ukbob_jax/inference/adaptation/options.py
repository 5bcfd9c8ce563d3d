"""What can be set of each method of adaptation: fields, defaults and checks. Imports no JAX, since recipes read it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.windows.window import fractions

OPTIMIZERS = ("adam", "sgd")
ACTIVATIONS = ("softmax", "sigmoid")
GUARDS = ("entropy", "sentinel", "both")
OF_THE_NETWORK = ("activation", "exclude")  # a segmenter knows these; a recipe does not set them


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """How a scan is visited and its logits are read: what all methods share.

    Attributes:
        overlap: fraction of a window that its neighbour covers; one number, or one per axis.
        batch: windows in a call of the network.
        activation: "softmax", or "sigmoid": the sum of the channels' binary entropies, for overlapping regions.
        exclude: classes that get no probability.

    Raises:
        ConfigError: the activation is unknown.
    """

    overlap: float | Sequence[float] = 0.0
    batch: int = 1
    activation: str = "softmax"
    exclude: Sequence[int] = ()

    def __post_init__(self) -> None:
        """Check the values, and make them hashable."""
        _one_of(self, "activation", ACTIVATIONS)
        _set(self, "exclude", tuple(int(c) for c in self.exclude))
        _set(self, "overlap", fractions(self.overlap))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptation(ScanOptions):
    """Options of ETTA.

    Attributes:
        steps: updates, each over the whole scan.
        learning_rate: of the optimizer; a new value compiles nothing.
        select: regular expression on "/"-joined parameter paths; None takes scale and bias of all norms.
        optimizer: "adam" or "sgd".
        background_weight: weight of a voxel that is surely background (channel 0, or no channel for sigmoid);
            the others' weights lie between it and 1 by their probability. 1 is the plain mean.
        ceiling: voxels with more than this fraction of the largest possible entropy do not count (they are too
            uncertain to learn from); None counts all.
        skip_nonfinite: leave out steps with a non-finite entropy or gradient, and refuse a non-finite result.
        must_fall: keep the step with the lowest entropy, and refuse it unless it is below the source's; else keep
            the last step.
        max_drift: refuse a result that drifted further; None, or inf on a command line, switches the check off.
        windows: for each step, sampled anew from those of the scan; None takes all. A step then costs `windows` in
            place of the whole scan, and one more forward pass over the scan measures what was before. The gradient
            is that of the mean entropy of the voxels sampled, and the last step is the one that is judged.
        seed: of the sampling.
        guard: what must not get worse. "entropy": it must fall, as `must_fall` says. "sentinel": the mean grade of the
            organs must not fall, and entropy may rise; the last step is kept. "both": neither. `skip_nonfinite` and
            `max_drift` hold with each. A grade costs a prediction of the scan before and one after.
        grader: workdir of the grader, or an object with a method `grade`, see `grade_guard.Grader`.

    Raises:
        ConfigError: a value that cannot be used.
    """

    steps: int = 1
    learning_rate: float = 1e-3
    select: str | None = None
    optimizer: str = "adam"
    background_weight: float = 1.0
    ceiling: float | None = None
    skip_nonfinite: bool = True
    must_fall: bool = True
    max_drift: float | None = 0.5
    windows: int | None = None
    seed: int = 0
    guard: str = "entropy"
    grader: Any = ""

    def __post_init__(self) -> None:
        """Check the values, and make them hashable."""
        super().__post_init__()
        _set(self, "background_weight", float(self.background_weight))
        _one_of(self, "optimizer", OPTIMIZERS)
        if self.steps < 0:
            raise ConfigError(f"etta: steps {self.steps} is negative.")
        if not 0 <= self.background_weight < math.inf:
            raise ConfigError(
                f"etta: background_weight {self.background_weight} must be 0 or more; 1 is the plain mean."
            )
        if self.ceiling is not None and not 0 < self.ceiling <= 1:
            raise ConfigError(
                f"etta: ceiling {self.ceiling} is outside 0 to 1, a fraction of the largest entropy."
            )
        if self.windows is not None and self.windows < 1:
            raise ConfigError(f"etta: windows {self.windows} must be at least 1; None takes all.")
        _one_of(self, "guard", GUARDS)
        if self.grades and not self.grader:
            raise ConfigError(f"etta: guard {self.guard!r} needs a grader. Set grader to the workdir of one.")

    @property
    def grades(self) -> bool:
        """Whether grades are compared."""
        return self.guard != "entropy"

    @property
    def entropy_must_fall(self) -> bool:
        """Whether a result is refused, and a step passed over, whose entropy is not lower."""
        return self.must_fall and self.guard != "sentinel"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tent(ScanOptions):
    """Options of Tent.

    Attributes:
        learning_rate: of Adam.
        select: as of `Adaptation`.
    """

    learning_rate: float = 1e-3
    select: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchNorm(ScanOptions):
    """Options of the adaptation of batch norm.

    Attributes:
        fraction: how far statistics move from the training's, 0, to the scan's, 1.

    Raises:
        ConfigError: the fraction is outside 0 to 1.
    """

    fraction: float = 0.5

    def __post_init__(self) -> None:
        """Check the values, and make them hashable."""
        super().__post_init__()
        if not 0 <= self.fraction <= 1:
            raise ConfigError(f"bn: fraction {self.fraction} is outside 0 to 1.")


def _one_of(options: ScanOptions, name: str, known: Sequence[str]) -> None:
    if getattr(options, name) not in known:
        raise ConfigError(
            f"etta: {name} {getattr(options, name)!r} is not known. Use one of {', '.join(known)}."
        )


def _set(options: ScanOptions, name: str, value: Any) -> None:
    object.__setattr__(options, name, value)
