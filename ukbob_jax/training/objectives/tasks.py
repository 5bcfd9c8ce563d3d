"""Tasks without labels, by the names that `config.pretrain.method` may have: what learns, and from which rows."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ukbob_jax.errors import ConfigError
from ukbob_jax.models import architecture
from ukbob_jax.models.blocks import Norm
from ukbob_jax.training import state as states
from ukbob_jax.training.objectives import (
    contrast,
    forward,
    fusion,
    genesis,
    masked,
    rasd,
    s3d,
    swin,
    synthesis,
    voco,
)
from ukbob_jax.training.optimizer import path_name
from ukbob_jax.training.state import PRETEXT
from ukbob_jax.training.step import Batch, Objective

Variables = Callable[[jax.Array], Mapping[str, Any]]
Network = Callable[[int], nn.Module]  # output channels -> the network of the recipe
Crop = Sequence[int]  # voxels x y z


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What a pre-training learns.

    Attributes:
        model: the network, with the output channels that the task wants.
        objective: what is learnt.
        variables: key -> the parameters that learn (the network's, or its encoder's alone, and the task's own under
            `PRETEXT`) and the other collections.
        views: crops of each sample, as neighbouring rows of the batch.
        rows: neighbouring rows that the task looks at together; they stay in one pass.
        samples: of a batch that the loss needs at least: what compares a sample with others has none in a batch of one.
        compares: whether the loss compares all rows of a pass, so that passes may not be cut.
        teacher: whether the objective needs the running average of the parameters.
        cut: (key, batch) -> batch, on the device, before every row is augmented.
        show: (params, state, batch, key) -> what was seen, rebuilt and true; None: the task rebuilds nothing.
    """

    model: nn.Module
    objective: Objective
    variables: Variables
    views: int = 1
    rows: int = 1
    samples: int = 1
    compares: bool = False
    teacher: bool = False
    cut: Callable[[jax.Array, Batch], Batch] | None = None
    show: forward.Show | None = None


class Method(NamedTuple):
    """A task before it has a network: the class of its options, and how it is built.

    makes: whether its `cut` makes the images; of a batch it looks at the number of rows alone.
    """

    options: type
    build: Callable[[Any, Network, int, Crop], Task]  # (options, network, input channels, crop)
    makes: bool = False


def build(method: str, fields: Mapping[str, Any], network: Network, in_channels: int, crop: Crop) -> Task:
    """Build the task `method`.

    Args:
        method: a key of `METHODS`.
        fields: of its options.
        network: output channels -> module.
        in_channels: contrasts of the images.
        crop: voxels x y z of a row.
    Raises:
        ConfigError: an unknown method or field, one that cannot be used, or a network that does not fit.
    """
    _check(method)
    known = [field.name for field in dataclasses.fields(METHODS[method].options)]
    if unknown := [name for name in fields if name not in known]:
        raise ConfigError(
            f"config.pretrain: {method!r} has no field {unknown[0]!r}; it has {', '.join(known)}. "
            f"Name the method behind the recipe: configs/pretrain.py:{method}."
        )
    return METHODS[method].build(METHODS[method].options(**fields), network, in_channels, crop)


def makes(method: str) -> bool:
    """Return whether the task `method` makes its images, and so needs no store.

    Raises:
        ConfigError: an unknown method.
    """
    _check(method)
    return METHODS[method].makes


def _check(method: str) -> None:
    if method not in METHODS:
        raise ConfigError(
            f"config.pretrain.method: {method!r} is unknown; choose one of {', '.join(METHODS)}."
        )


def whole(model: nn.Module) -> Variables:
    """All parameters of the network."""
    return states.variables_of(model, architecture.of(model).input_shape(model))


def encoder(model: nn.Module, head: nn.Module, inputs: Sequence[jax.ShapeDtypeStruct]) -> Variables:
    """The parameters of the network's encoder, and those of the task's own module `head`, called with `inputs`."""
    pattern = re.compile(architecture.of(model).parts["encoder"])
    network = whole(model)

    def part(key: jax.Array) -> Mapping[str, Any]:
        return {name: _kept(tree, pattern) for name, tree in network(key).items()}

    return beside(
        part, lambda key: head.init(key, *(jnp.zeros(shape.shape, shape.dtype) for shape in inputs))
    )


def beside(network: Variables, own: Variables) -> Variables:
    """The variables of a network, and the parameters of the task's own."""

    def variables(key: jax.Array) -> Mapping[str, Any]:
        network_key, own_key = jax.random.split(key)
        made = network(network_key)
        return {**made, "params": {**made["params"], PRETEXT: own(own_key)["params"]}}

    return variables


def maps_of(model: nn.Module, crop: Crop) -> list[jax.ShapeDtypeStruct]:
    """Shapes of the encoder's maps of one crop, finest first; nothing is computed.

    Raises:
        ConfigError: the network does not say what its encoder is.
    """
    features, said = forward.features_of(model), architecture.of(model)
    smallest = jax.ShapeDtypeStruct(said.input_shape(model), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), smallest)
    image = jax.ShapeDtypeStruct((1, *crop, said.input_shape(model)[-1]), jnp.float32)
    return jax.eval_shape(lambda v, x: model.apply(v, x, method=features), variables, image)


def last_map(model: nn.Module, crop: Crop) -> jax.ShapeDtypeStruct:
    """Shape of the encoder's last map of one crop, which alone answers for the crop.

    Raises:
        ConfigError: the map says nothing of the crop: it has one cell, and instance norm makes that a constant.
    """
    single: list[bool] = []

    def note(call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], at: Any) -> Any:
        if isinstance(at.module, Norm) and at.module.kind in ("instance", "instance_affine"):
            size = (args[0][0] if isinstance(args[0], tuple) else args[0]).shape[1:-1]
            single.append(math.prod(size) == 1)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        last = maps_of(model, crop)[-1]
    if math.prod(last.shape[1:4]) == 1 and any(single[-1:]) and _is_constant(model, crop):
        raise ConfigError(
            f"config.data.crop: {tuple(crop)} voxels leave one cell of the network's last map, which instance norm makes "
            "the same for every scan; take a larger crop."
        )
    return last


def _is_constant(model: nn.Module, crop: Crop) -> bool:
    """Whether an untrained encoder's last map is the same for two crops of noise; residual paths may keep them apart."""
    said, (start, draw) = architecture.of(model), jax.random.split(jax.random.key(0))
    smallest = jnp.zeros(said.input_shape(model))
    noise = jax.random.normal(draw, (2, *crop, smallest.shape[-1]))
    variables = jax.jit(model.init)(start, smallest)
    maps = jax.jit(lambda v, x: model.apply(v, x, method=forward.features_of(model)))(variables, noise)
    return bool(jnp.all(maps[-1][0] == maps[-1][1]))


def stride_of(last: jax.ShapeDtypeStruct, crop: Crop) -> tuple[int, ...]:
    """Voxels of the crop per cell of a map, x y z.

    Raises:
        ConfigError: the cells do not divide the crop.
    """
    sizes = last.shape[1:4]
    if any(side % n for side, n in zip(crop, sizes)):
        raise ConfigError(
            f"config.data.crop: {tuple(crop)} voxels are no multiple of the {tuple(sizes)} cells of the network's last "
            "map, from which they are rebuilt."
        )
    return tuple(side // n for side, n in zip(crop, sizes))


def pooled_width(model: nn.Module, crop: Crop) -> tuple[jax.ShapeDtypeStruct]:
    """Shape of the pooled maps of one crop, `1 d`."""
    return (jax.ShapeDtypeStruct((1, sum(level.shape[-1] for level in maps_of(model, crop))), jnp.float32),)


def _kept(tree: Mapping[str, Any], pattern: re.Pattern[str]) -> dict[str, Any]:
    """The leaves of a tree whose paths the pattern finds."""
    kept: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *parents, last = names = path_name(path).split("/")
        if not pattern.search("/".join(names)):
            continue
        at = kept
        for name in parents:
            at = at.setdefault(name, {})
        at[last] = leaf
    return kept


def _first(rebuild: Callable[..., tuple]) -> forward.Show:
    """What a pass shows, which is the first that it returns."""
    return lambda *args: rebuild(*args)[0]


def _mae(options: masked.MaskedOptions, network: Network, channels: int, crop: Crop) -> Task:
    masked.grid_of(crop, (options.block,) * 3, options.ratio)
    model = network(channels)
    return Task(
        model=model,
        objective=masked.mae(model, options),
        variables=whole(model),
        show=_first(masked.mae_pass(model, options)),
    )


def _simmim(options: masked.MaskedOptions, network: Network, channels: int, crop: Crop) -> Task:
    masked.grid_of(crop, (options.block,) * 3, options.ratio)
    model = network(channels)
    last = last_map(model, crop)
    stride = stride_of(last, crop)
    parts = masked.SimMimParts((options.block,) * 3, channels, stride)
    smallest = jax.ShapeDtypeStruct((1, *(options.block,) * 3, channels), jnp.float32)
    cell = jax.ShapeDtypeStruct((1, 1, 1, 1, last.shape[-1]), jnp.float32)
    return Task(
        model=model,
        objective=masked.simmim(model, parts, options),
        variables=encoder(model, parts, (smallest, cell)),
        show=_first(masked.simmim_pass(model, parts, options)),
    )


def _s3d(options: s3d.S3dOptions, network: Network, channels: int, crop: Crop) -> Task:
    model = network(channels)
    parts = s3d.Densify(getattr(model, "dtype", jnp.float32))
    levels = s3d.levels(model, channels, crop, options.block)
    masked.grid_of(crop, (options.block,) * 3, options.ratio)
    return Task(
        model=model,
        objective=s3d.s3d(model, parts, options),
        variables=beside(whole(model), lambda key: parts.init(key, *s3d.one_cell(levels))),
        show=_first(s3d.s3d_pass(model, parts, options)),
    )


def _genesis(options: genesis.GenesisOptions, network: Network, channels: int, crop: Crop) -> Task:
    if min(crop) < genesis.SMALLEST:
        raise ConfigError(
            f"config.data.crop: {tuple(crop)} has a side below {genesis.SMALLEST} voxels, too short for painting."
        )
    model = network(channels)
    return Task(
        model=model,
        objective=genesis.genesis(model, options),
        variables=whole(model),
        show=_first(genesis.genesis_pass(model, options)),
    )


def _fusion(options: fusion.FusionOptions, network: Network, channels: int, crop: Crop) -> Task:
    if min(crop) < options.smallest:
        raise ConfigError(
            f"config.pretrain.smallest: {options.smallest} voxels do not fit config.data.crop {tuple(crop)}."
        )
    model = network(options.classes)
    return Task(
        model=model,
        objective=fusion.fusion(model, options),
        variables=whole(model),
        views=fusion.PAIR if options.form == "paper" else 1,
        rows=fusion.PAIR,
        show=fusion.shown(fusion.fusion_pass(model, options)),
    )


def _simclr(options: contrast.SimClrOptions, network: Network, channels: int, crop: Crop) -> Task:
    model = network(channels)
    head = contrast.Projection(options.width)
    return Task(
        model=model,
        objective=contrast.simclr(model, head, options),
        variables=encoder(model, head, pooled_width(model, crop)),
        views=contrast.VIEWS,
        rows=contrast.VIEWS,
        samples=2,
        compares=True,
    )


def _voco(options: voco.VocoOptions, network: Network, channels: int, crop: Crop) -> Task:
    model = network(channels)
    head = contrast.Projection(options.width)
    size = voco.crop_size(crop, options.grid)
    return Task(
        model=model,
        objective=voco.objective_of(model, head, options),
        variables=encoder(model, head, pooled_width(model, size)),
        samples=2 if options.form == voco.AUTHORS else 1,
        compares=True,
        teacher=options.form == voco.AUTHORS,
        cut=functools.partial(voco.cut, grid=options.grid, targets=options.targets),
    )


def _swin(options: swin.SwinOptions, network: Network, channels: int, crop: Crop) -> Task:
    first, second = options.axes
    if crop[first] != crop[second]:
        raise ConfigError(
            f"config.data.crop: {tuple(crop)} is not square in its axes {options.axes}, so it cannot be turned there."
        )
    model = network(channels)
    last = last_map(model, crop)
    stride = stride_of(last, crop)
    if any(s & (s - 1) for s in stride):
        raise ConfigError(
            f"config.data.crop: {tuple(crop)} voxels are {stride} to a cell of the network's last map; these must be powers "
            "of 2; take sides that the network halves without remainder."
        )
    if options.form == "nnssl" and math.prod(last.shape[1:4]) < 2:
        raise ConfigError(f"config.data.crop: {tuple(crop)} voxels leave one cell; two heads want one each.")
    dtype = getattr(model, "dtype", jnp.float32)
    heads = swin.SwinHeads(channels, stride, options.width, options.form == "paper", dtype)
    return Task(
        model=model,
        objective=swin.swin(model, heads, options),
        variables=encoder(model, heads, (jax.ShapeDtypeStruct((1, 1, 1, 2, last.shape[-1]), jnp.float32),)),
        samples=2,
        compares=True,
        show=_first(swin.swin_pass(model, heads, options)),
    )


def _rasd(options: rasd.RasdOptions, network: Network, channels: int, crop: Crop) -> Task:
    model = network(options.width)
    return Task(
        model=model,
        objective=rasd.rasd(model, options),
        variables=whole(model),
        views=synthesis.VIEWS,
        rows=synthesis.VIEWS,
        cut=functools.partial(synthesis.pairs, size=tuple(crop), channels=channels, options=options),
    )


METHODS = {
    "mae": Method(masked.MaskedOptions, _mae),
    "simmim": Method(masked.MaskedOptions, _simmim),
    "s3d": Method(s3d.S3dOptions, _s3d),
    "genesis": Method(genesis.GenesisOptions, _genesis),
    "fusion": Method(fusion.FusionOptions, _fusion),
    "voco": Method(voco.VocoOptions, _voco),
    "swinunetr": Method(swin.SwinOptions, _swin),
    "simclr": Method(contrast.SimClrOptions, _simclr),
    "rasd": Method(rasd.RasdOptions, _rasd, makes=True),
}
