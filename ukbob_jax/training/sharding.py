"""Where arrays lie: the mesh of devices and one table of rules. The only file that names a mesh axis.

`data` splits the batch; `fsdp` splits the batch too and, besides, the parameters and the optimizer's moments.
The same step runs on any mesh, one device included.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ukbob_jax.errors import ConfigError
from ukbob_jax.training.optimizer import path_name

AXES = ("data", "fsdp")
BATCH = PartitionSpec(AXES)  # b over all devices; x y z c whole

# The first pattern found in a path wins; the right side says how the last axes of that array are split.
# Optimizer moments have their parameter's path inside their own, so the same rules place them.
PARAM_RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"(^|/)(bias|scale|mean|var|relative_position_bias_table)$", ()),  # small: a copy on every device
    (r"(^|/)kernel$", ("fsdp",)),  # dense i o, convolution kx ky kz i o: split over o
    (r"", ()),
)


def make_mesh(
    *, data: int = -1, fsdp: int = 1, batch_size: int, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """The mesh of the configuration's section `mesh`.

    Args:
        data: devices along `data`. -1: all that are left, but on one host no more than share the batch evenly.
        fsdp: devices along `fsdp`.
        batch_size: global, cases.
        devices: to choose from; None: all there are.
    Raises:
        ConfigError: more devices than there are, or a batch they cannot share evenly.
    """
    devices = jax.devices() if devices is None else devices
    several_hosts = jax.process_count() > 1
    if data == -1:
        data = len(devices) // fsdp
        while not several_hosts and data > 1 and batch_size % (data * fsdp):
            data -= 1
    needed = data * fsdp
    if not 1 <= needed <= len(devices) or (several_hosts and needed != len(devices)):
        raise ConfigError(
            f"mesh: data {data} x fsdp {fsdp} does not fit {len(devices)} devices; change either."
        )
    if batch_size % needed:
        raise ConfigError(
            f"data.batch_size: {batch_size} cases do not divide over {needed} devices; take a multiple of {needed} "
            "or lower mesh.data or mesh.fsdp."
        )
    # Auto, not make_mesh's default of Explicit: under that, cutting a volume into windows would not compile.
    return jax.make_mesh((data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices[:needed])


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(shapes: Any, mesh: Mesh) -> Any:
    """The sharding of every array of a tree, by `PARAM_RULES`.

    Args:
        shapes: a tree of arrays, or of shapes from `jax.eval_shape`.
        mesh: of `make_mesh`.
    Returns:
        A tree of NamedSharding. An axis that its mesh axis does not divide stays whole.
    """
    return jax.tree.map_with_path(
        lambda path, leaf: NamedSharding(mesh, _spec(path_name(path), leaf, mesh)), shapes
    )


def batch(mesh: Mesh) -> NamedSharding:
    """Of every array of a batch, `b ...`: cases over all devices."""
    return NamedSharding(mesh, BATCH)


def local_copy(tree: Any, mesh: Mesh) -> Any:
    """The whole of every array on this process's first device, for work that each process does by itself."""
    whole = jax.jit(lambda arrays: arrays, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda array: array.addressable_data(0), whole)


def compile_step(step: Callable, state_sharding: Any, mesh: Mesh) -> Callable:
    """(state, batch, key) -> (state, metrics), compiled for the mesh; the old state's memory is reused."""
    one = replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(state_sharding, batch(mesh), one),
        out_shardings=(state_sharding, one),
        donate_argnums=0,
    )


def _spec(name: str, leaf: Any, mesh: Mesh) -> PartitionSpec:
    split = next(split for pattern, split in PARAM_RULES if re.search(pattern, name))
    split = (None,) * (leaf.ndim - len(split)) + split
    return PartitionSpec(
        *(axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(split, leaf.shape))
    )
