"""A network of a model folder on all devices of a mesh: tiles of whatever scans in, the sums of their logits out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation import selection
from ukbob_jax.inference.nnunet import merge
from ukbob_jax.inference.nnunet.adapting import EachApply, Leaves
from ukbob_jax.inference.nnunet.model import NnunetModel
from ukbob_jax.inference.windows import sliding
from ukbob_jax.training import sharding


class Tile(NamedTuple):
    """What a network is given in one place of a batch."""

    array: np.ndarray  # z y x c; y x c for a network of slices
    own: tuple[Leaves, ...]  # of each fold, parameters that this tile's scan has for itself


class TileNetwork:
    """The networks of all folds, a copy on every device, and how their tiles look."""

    def __init__(
        self, model: NnunetModel, mirror: bool, adapts: Sequence[str], mesh: Mesh, places: int
    ) -> None:
        """Put the weights on the devices.

        Args:
            model: whose networks they are.
            mirror: average over flips, where the checkpoint allows any.
            adapts: paths of the parameters that each tile brings; empty: none.
            mesh: the places of a batch are split over it.
            places: tiles in a call.
        """
        self.source = model.members  # kept: callers know networks by its identity
        self.views = merge.flips(len(model.mirror_axes) if mirror else 0)
        self.axes = tuple(axis + 1 for axis in model.mirror_axes) if mirror else ()
        self.shape = (places, *model.plans.patch_size, model.plans.in_channels)
        self.adapts = bool(adapts)
        plain = sliding.ModuleApply(model.network)
        self.k = merge.classes(plain, model.members[0], 1, self.shape[1:-1], self.shape[-1])
        self.apply: Any = EachApply(model.network) if adapts else plain
        members = [_without(member, adapts) for member in self.source] if adapts else self.source
        self.members = jax.device_put(members, sharding.replicated(mesh))
        self.split = sharding.batch_sharding(mesh)

    @property
    def count(self) -> int:
        """Logits that are added up in each tile."""
        return len(self.views) * len(self.source)

    def run(self, tiles: Sequence[Tile | None]) -> jax.Array:
        """The sum of the logits over flips and folds, `b z y x k` split over b, of a tile or nothing in each place."""
        x = np.zeros(self.shape, np.float32)
        for place, tile in enumerate(tiles):
            if tile is not None:
                x[place] = tile.array
        on_devices = jax.device_put(x, self.split)
        total = jnp.zeros((*self.shape[:-1], self.k), jnp.float32, device=self.split)
        for number, member in enumerate(self.members):
            variables = (self._own(tiles, number), *member) if self.adapts else member
            for view in self.views:
                total = merge.add_view(self.apply, self.axes, variables, on_devices, view, total)
        return total

    def _own(self, tiles: Sequence[Tile | None], member: int) -> Any:
        """The parameters that differ from place to place, each with a leading axis b."""
        some = next(tile for tile in tiles if tile is not None)
        each = [(tile or some).own[member] for tile in tiles]
        stacked = {path: np.stack([own[path] for own in each]) for path in each[0]}
        return jax.device_put(stacked, self.split)


def _without(member: dict[str, Any], paths: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A fold's parameters but those at `paths`, by path, and its other collections."""
    everything = selection.split(member["params"], ".")[0]
    state = {name: tree for name, tree in member.items() if name != "params"}
    return {path: leaf for path, leaf in everything.items() if path not in paths}, state


def told(error: BaseException) -> BaseException:
    """The error, and for a device without memory what to do."""
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        return ConfigError(
            "the devices have too little memory for a batch of tiles; take a smaller labeller.batch or more mesh.data."
        )
    return error
