"""ETTA for networks of nnU-Net: the scale and bias of their norms fitted to one scan, and tiles of several such scans in
one batch, each with its own scan's norms.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation import selection
from ukbob_jax.inference.adaptation.etta import AdaptResult
from ukbob_jax.inference.adaptation.methods import Method
from ukbob_jax.inference.adaptation.options import Adaptation
from ukbob_jax.inference.nnunet.model import NnunetModel
from ukbob_jax.inference.windows import memory, sliding
from ukbob_jax.inference.windows.entropy import voxel_entropy

METHODS = ("off", "etta")
Leaves = dict[str, np.ndarray]  # "/"-joined path -> array


def check(model: NnunetModel, method: Method, field: str) -> None:
    """Refuse a method, or a network that it cannot adapt, before any scan is read.

    Raises:
        ConfigError: another method than `METHODS`, a guard by grades, a network of slices, or one without norms to select.
    """
    if method.name not in METHODS:
        raise ConfigError(f"{field}={method.name!r}: models of nnU-Net take {' or '.join(METHODS)}.")
    if not method.adapts:
        return
    if isinstance(method.options, Adaptation) and method.options.grades:
        raise ConfigError(f"etta: guard {method.options.guard!r}: models of nnU-Net take 'entropy'.")
    if len(model.plans.patch_size) != 3:
        raise ConfigError(f"{field}={method.name!r}: {model.plans.folder} is a network of slices; take off.")
    for member in model.members:
        selection.split(member["params"], selected(method))


def adapt(model: NnunetModel, array: np.ndarray, method: Method) -> list[AdaptResult]:
    """Fit each fold's network to a scan by itself; the model stays as it is.

    Args:
        model: of three axes.
        array: c z y x, as `NnunetModel.preprocess` gives it.
        method: that adapts.
    Returns:
        A result per fold.
    """
    activation = "sigmoid" if model.plans.regions else "softmax"
    volume = np.ascontiguousarray(np.moveaxis(array, 0, -1))
    found = []
    for member in model.members:
        state = {name: tree for name, tree in member.items() if name != "params"}
        network = (model.network, member["params"], state)
        result = method.run(network, volume, model.plans.patch_size, activation, ())
        assert result is not None
        found.append(result)
    return found


def gradient_bytes(model: NnunetModel, method: Method) -> int:
    """Memory of one step on one batch of windows, beside the weights; 0 for a method that leaves the network alone."""
    if method.options is None:
        return 0
    params = model.members[0]["params"]
    state = {name: tree for name, tree in model.members[0].items() if name != "params"}
    shape = (method.options.batch, *model.plans.patch_size, model.plans.in_channels)

    def entropy(chosen: Any, others: Any, x: jax.Array) -> jax.Array:
        variables = {"params": selection.join(chosen, others), **state}
        return voxel_entropy(sliding.ModuleApply(model.network)(variables, x).astype(jnp.float32)).sum()

    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return memory.peak(jax.grad(entropy), *selection.split(params, selected(method)), x)


def selected(method: Method) -> str | None:
    """The regular expression on the paths of the parameters that change; None: all norms."""
    return getattr(method.options, "select", None)


def leaves(results: list[AdaptResult], method: Method) -> tuple[Leaves, ...]:
    """Of each fold's result the parameters that could change."""
    chosen = (selection.split(result.params, selected(method))[0] for result in results)
    return tuple({path: np.asarray(leaf) for path, leaf in one.items()} for one in chosen)


@dataclasses.dataclass(frozen=True)
class EachApply:
    """A network whose tiles differ in some parameters: `(own, others, state), b z y x c` -> `b z y x k`.

    `own` has a leading axis b. Convolutions are shared by all tiles, so they stay one convolution of the batch.
    """

    module: nn.Module

    def __call__(self, variables: tuple[Any, Any, Any], x: jax.Array) -> jax.Array:
        """Logits of tiles, each under its own parameters."""
        own, others, state = variables

        def one(own: Mapping[str, jax.Array], tile: jax.Array) -> jax.Array:
            params = selection.join(own, others)
            return cast(jax.Array, self.module.apply({"params": params, **state}, tile[None]))[0]

        return jax.vmap(one)(own, x)


def facts(results: list[AdaptResult]) -> dict[str, Any]:
    """JSON values for a label set's provenance: means over folds; `entropy_before` is that of the network left alone."""
    values = {
        name: float(np.mean([getattr(result, name) for result in results]))
        for name in ("entropy_before", "entropy_after", "drift")
    }
    reasons = sorted({result.reason for result in results if not result.accepted})
    accepted = all(result.accepted for result in results)
    return {"accepted": accepted, **values, **({"refused": reasons} if reasons else {})}
