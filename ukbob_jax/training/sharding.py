"""Where arrays lie: the mesh of devices and two tables of rules. The only file that names a mesh axis.

`data` splits the batch; `fsdp` splits the batch too and, besides, the parameters and the optimizer's moments; `space`
splits every crop along x, for crops too large for one device. The same step runs on any mesh, one device included.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ukbob_jax.errors import ConfigError
from ukbob_jax.training.optimizer import path_name

AXES = ("data", "fsdp", "space")
Rules = tuple[tuple[str, PartitionSpec], ...]

# The first pattern found in a parameter's path wins; the right side says how the LAST axes of that array are split.
# Optimizer moments and averages have their parameter's path inside their own, so the same rules place them.
PARAM_RULES: Rules = (
    (r"(^|/)(bias|scale|mean|var|relative_bias)$", PartitionSpec()),  # small: a copy on every device
    (r"(^|/)kernel$", PartitionSpec("fsdp")),  # dense i o, convolution kx ky kz i o: split over o
    (r"", PartitionSpec()),
)
# The same for the arrays of a batch by their names, but of the FIRST axes.
BATCH_RULES: Rules = (
    (r"^(image|label|anonymised)$", PartitionSpec(("data", "fsdp"), "space")),  # b x y z c, b x y z twice
    (r"^stored$", PartitionSpec(("data", "fsdp"), None, "space")),  # b c x y z
    (r"", PartitionSpec(("data", "fsdp"))),  # b ...
)


def make_mesh(
    *,
    data: int = -1,
    fsdp: int = 1,
    space: int = 1,
    batch_size: int,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """Make the mesh of the configuration's section `mesh`.

    Args:
        data: devices along `data`. -1: all that are left, but on one host no more than share the batch evenly.
        fsdp: devices along `fsdp`.
        space: devices that share each case; they must belong to one process.
        batch_size: global, cases in one pass of the network.
        devices: to choose from; None: all there are.
    Raises:
        ConfigError: more devices than there are, or a batch they cannot share evenly.
    """
    devices = jax.devices() if devices is None else devices
    several_hosts = jax.process_count() > 1
    if data == -1:
        data = len(devices) // (fsdp * space)
        while not several_hosts and data > 1 and batch_size % (data * fsdp):
            data -= 1
    needed = data * fsdp * space
    if not 1 <= needed <= len(devices) or (several_hosts and needed != len(devices)):
        raise ConfigError(
            f"mesh: data {data} x fsdp {fsdp} x space {space} does not fit {len(devices)} devices; change one."
        )
    if batch_size % (data * fsdp):
        raise ConfigError(
            f"data.batch_size: {batch_size} cases do not divide over {data * fsdp} devices; take a multiple of "
            f"{data * fsdp} (times train.accumulate) or lower mesh.data or mesh.fsdp."
        )
    if several_hosts and jax.local_device_count() % space:
        raise ConfigError(
            f"mesh.space: {space} devices share a case, but a process has {jax.local_device_count()}; take a divisor."
        )
    # Auto, not make_mesh's default of Explicit: under that, cutting a volume into windows would not compile.
    return jax.make_mesh((data, fsdp, space), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:needed])


def cases_share(mesh: Mesh) -> bool:
    """Return whether several devices share each case."""
    return mesh.shape["space"] > 1


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array with a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(shapes: Any, mesh: Mesh) -> Any:
    """Return the sharding of every array of a tree, by `PARAM_RULES`.

    Args:
        shapes: a tree of arrays, or of shapes from `jax.eval_shape`.
        mesh: of `make_mesh`.
    Returns:
        A tree of NamedSharding. An axis that its mesh axis does not divide stays whole.
    """
    return jax.tree.map_with_path(
        lambda path, leaf: NamedSharding(mesh, _spec(path_name(path), leaf, mesh)), shapes
    )


def batch_sharding(mesh: Mesh, name: str = "") -> NamedSharding:
    """Return the sharding of the array called `name` in a batch, by `BATCH_RULES`."""
    return NamedSharding(mesh, _rule(BATCH_RULES, name))


def shard_batch(arrays: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Put a whole batch that this process holds onto the devices."""
    return {name: jax.device_put(array, batch_sharding(mesh, name)) for name, array in arrays.items()}


def local_copy(tree: Any, mesh: Mesh) -> Any:
    """Return the whole of every array on this process's first device, for work that each process does by itself."""
    whole = jax.jit(lambda arrays: arrays, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda array: array.addressable_data(0), whole)


def compile_step(step: Callable, state_shardings: Any, mesh: Mesh) -> Callable:
    """Compile (state, batch, key) -> (state, metrics) for the mesh; the old state's memory is reused.

    The batch stays where it lies: `batch_sharding` says where that should be.
    """
    return jax.jit(
        step,
        in_shardings=(state_shardings, None, replicated(mesh)),
        out_shardings=(state_shardings, replicated(mesh)),
        donate_argnums=0,
    )


def _rule(rules: Rules, name: str) -> PartitionSpec:
    return next(spec for pattern, spec in rules if re.search(pattern, name))


def _spec(name: str, leaf: Any, mesh: Mesh) -> PartitionSpec:
    rule = _rule(PARAM_RULES, name)
    split = (None,) * (leaf.ndim - len(rule)) + tuple(rule)
    return PartitionSpec(
        *(axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(split, leaf.shape))
    )
