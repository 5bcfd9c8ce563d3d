"""Ways to meet a scan from elsewhere, all with one interface, so that they can stand beside each other in a table."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import linen as nn

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation import baselines
from ukbob_jax.inference.adaptation.etta import AdaptResult, etta

# off: the trained network as it is; tta: its mean over `averaging.AUGMENTED` views, without adapting anything
WAYS = ("off", "etta", "tent", "bn", "tta")
_ADAPT = {"etta": etta, "tent": baselines.tent, "bn": baselines.batch_norm}

Adapt = bool | str | Mapping[str, Any]


def parse(given: Adapt) -> tuple[str, dict[str, Any]]:
    """Name of the way, and its options.

    Raises:
        ConfigError: no such way, or options where none are taken.
    """
    if isinstance(given, bool):
        return ("etta" if given else "off"), {}
    options = {"way": given} if isinstance(given, str) else dict(given)
    way = options.pop("way", "etta")
    check((way,))
    if options and way not in _ADAPT:
        raise ConfigError(f"adapt: {way!r} takes no options; got {', '.join(options)}.")
    return way, options


def check(ways: tuple[str, ...]) -> None:
    """Refuse a way there is not.

    Raises:
        ConfigError: with the ones there are.
    """
    unknown = [way for way in ways if way not in WAYS]
    if unknown:
        raise ConfigError(f"adapt: {unknown[0]!r} is not one of {', '.join(WAYS)}.")


def adapt(
    way: str,
    model: nn.Module,
    params: Mapping[str, Any],
    model_state: Mapping[str, Any],
    volume: np.ndarray,
    **options: Any,
) -> AdaptResult | None:
    """What the way makes of the network for this scan; None where it leaves the network alone.

    Args:
        volume: `x y z c`, preprocessed as in training.
        options: of `etta.etta`, `baselines.tent` or `baselines.batch_norm`.

    Raises:
        ConfigError: an option that cannot be used.
    """
    if way not in _ADAPT:
        return None
    try:
        return _ADAPT[way](model, params, volume, model_state=model_state, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ConfigError(f"adapt {way!r}: {error}.") from error
