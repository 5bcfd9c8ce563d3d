"""Methods that meet a scan from elsewhere, with one interface, so that they can stand beside each other in a table."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from flax import linen as nn

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation import baselines
from ukbob_jax.inference.adaptation.etta import AdaptResult, Compare, etta
from ukbob_jax.inference.adaptation.grade_guard import open_grader
from ukbob_jax.inference.adaptation.method_names import METHODS
from ukbob_jax.inference.adaptation.options import (
    OF_THE_NETWORK,
    Adaptation,
    BatchNorm,
    ScanOptions,
    Tent,
)
from ukbob_jax.options import changed

OPTIONS: dict[str, type[ScanOptions]] = {"etta": Adaptation, "tent": Tent, "bn": BatchNorm}
_RUN: dict[str, Callable[..., AdaptResult]] = {
    "etta": etta, "tent": baselines.tent, "bn": baselines.batch_norm,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Method:
    """A method with its options.

    Attributes:
        name: one of `METHODS`.
        options: of the methods that adapt the network; None for "off" and "tta".
    """

    name: str = "off"
    options: ScanOptions | None = None

    @classmethod
    def parse(cls, given: "MethodLike") -> "Method":
        """Read a method.

        Args:
            given: False is "off" and True "etta"; a name takes the method's default options; a mapping has options,
                and the name as "method" where it is not "etta".

        Raises:
            ConfigError: the method or an option is unknown, or a value cannot be used.
        """
        if isinstance(given, Method):
            return given
        if isinstance(given, bool):
            given = "etta" if given else "off"
        changes = {"method": given} if isinstance(given, str) else dict(given)
        name = changes.pop("method", "etta")
        check((name,))
        if name in OPTIONS:
            return cls(name, changed(OPTIONS[name](), changes, f"method {name!r}", OF_THE_NETWORK))
        if changes:
            raise ConfigError(f"method {name!r} takes no options; got {', '.join(changes)}.")
        return cls(name)

    @property
    def adapts(self) -> bool:
        """Whether the network changes with the scan."""
        return self.options is not None

    def run(
        self,
        network: tuple[nn.Module, Mapping[str, Any], Mapping[str, Any]],
        volume: np.ndarray,
        roi: Sequence[int],
        activation: str,
        exclude: Sequence[int],
        grading: Callable[[Any], Compare] | None = None,
    ) -> AdaptResult | None:
        """Adapt a network to a scan; None where the method leaves the network alone.

        Args:
            network: module, parameters, other collections.
            volume: `x y z c`, preprocessed as in training.
            roi: window, voxels, x y z.
            activation: "softmax", or "sigmoid" for regions that overlap.
            exclude: classes that get no probability.
            grading: grader -> what compares its grades, where labels and image are known.

        Raises:
            ConfigError: the method does not fit the network, or nothing is selected.
        """
        if self.options is None:
            return None
        model, params, model_state = network
        options = dataclasses.replace(self.options, activation=activation, exclude=exclude)
        if isinstance(options, Adaptation) and options.grades and grading is not None:
            compare = grading(open_grader(options.grader))
            return etta(
                model, params, volume, roi=roi, model_state=model_state, options=options, compare=compare
            )
        return _RUN[self.name](model, params, volume, roi=roi, model_state=model_state, options=options)

    def to_json(self) -> dict[str, Any]:
        """The name and the options that were chosen, as `parse` reads them."""
        if self.options is None:
            return {"method": self.name}
        options = {
            field.name: getattr(self.options, field.name) for field in dataclasses.fields(self.options)
        }
        if not (
            isinstance(self.options, Adaptation) and self.options.grades
        ):  # results from before guards stay valid
            options = {name: value for name, value in options.items() if name not in ("guard", "grader")}
        elif not isinstance(options["grader"], str):
            options["grader"] = type(options["grader"]).__name__
        return {"method": self.name, **{k: v for k, v in options.items() if k not in OF_THE_NETWORK}}


MethodLike = bool | str | Mapping[str, Any] | Method


def check(names: Collection[str]) -> None:
    """Refuse unknown methods.

    Raises:
        ConfigError: naming the known ones.
    """
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise ConfigError(f"method {unknown[0]!r} is not one of {', '.join(METHODS)}.")
