"""What a network says of itself, so that nothing outside its own folder names it.

A backbone is a folder `ukbob_jax/models/<name>/`, or one module of a user's own, with a constant `ARCHITECTURE`.
`config.model.name` and a checkpoint's card hold its name; a module path with a dot is the user's own. Patterns are
regular expressions searched for in "/"-joined parameter paths, such as `swin/patch_embed/kernel`.
"""

import dataclasses
import importlib
import pathlib
import pkgutil
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ukbob_jax.errors import ConfigError

Path = tuple[str, ...]  # of a parameter in our tree
Size = tuple[int, ...]  # voxels or strides along x y z; two numbers for a network of slices
Fields = Mapping[str, Any]
Stages = tuple[tuple[str, int], ...]

PACKAGE = "ukbob_jax.models"
CONSTANT = "ARCHITECTURE"
PARTS = ("stem", "encoder", "decoder", "head")
NOTHING = r"(?!)"  # a pattern that finds nothing
# Fields in which a checkpoint and the model it is brought to may differ: shapes are compared one by one.
FREE = ("in_channels", "out_channels", "dtype", "remat", "deep_supervision")


def conv_axes(path: Path, ndim: int) -> tuple[int, ...]:
    """Axes of PyTorch's linear (out, in) and convolution (out, in, x, y, z) kernels in the order of ours, in and out last.

    Transposed convolutions, (in, out, x, y, z), are the modules called `upsample`.
    """
    if path[-1] != "kernel":
        return tuple(range(ndim))
    last = (0, 1) if path[-2] == "upsample" else (1, 0)
    return (*range(2, ndim), *last)


class TorchNames(NamedTuple):
    """How PyTorch files name and lay out the parameters that we keep in a tree; the defaults rename only the leaves.

    Attributes:
        rules: (pattern, replacement) in order, from our path joined with dots, its last word PyTorch's already
            ("weight", "bias", "running_mean", ...), to PyTorch's name.
        axes: path and number of axes of a parameter -> the axes of PyTorch's array in the order of ours.
        auxiliary: pattern of parameters that PyTorch files have no place for, such as heads that only training uses.
        buffers: model -> arrays that a state_dict carries beside the weights; they may be absent, but must agree.
        unused: model -> tensors that a state_dict carries and the network never reads: they may be absent or hold
            anything, and are written as given here.
        copies: model -> further names of tensors that a state_dict holds several times: further name -> first name.
        aliases: (pattern, replacement) in order, from names that other trainers give to PyTorch's.
        pretext: pattern of the tensors, by PyTorch's names, that only pre-training tasks have.
        first: pattern that a tensor's name matches whole where it is the network's first; its group 1 is what a
            trainer put in front. Empty: unknown.
        infer: tensors by PyTorch's names -> fields of the network that shapes and names determine.
        hidden: fields that decide the numbers and that no tensor shows: who brings a file of others must give them.
    """

    rules: tuple[tuple[str, str], ...] = ()
    axes: Callable[[Path, int], tuple[int, ...]] = conv_axes
    auxiliary: str = NOTHING
    buffers: Callable[[Any], dict[str, np.ndarray]] = lambda model: {}
    unused: Callable[[Any], dict[str, np.ndarray]] = lambda model: {}
    copies: Callable[[Any], dict[str, str]] = lambda model: {}
    aliases: tuple[tuple[str, str], ...] = ()
    pretext: str = NOTHING
    first: str = ""
    infer: Callable[[Mapping[str, np.ndarray]], dict[str, Any]] | None = None
    hidden: tuple[str, ...] = ()


def as_built(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """`model`: its fields say all."""
    del shapes
    return model


def without_rates(model: Any) -> Any:
    """`model` with every field whose name ends in `_rate` set to 0."""
    return model.clone(**{name: 0.0 for name in type(model).__dataclass_fields__ if name.endswith("_rate")})


class Architecture(NamedTuple):
    """One network, for those who know none.

    The module is called as `module(x, train=False)`, `x` b x y z c, and gives logits b x y z k, or a list of logits
    when it trains with deep supervision. Its fields `in_channels` and `out_channels` say c and k.

    Attributes:
        name: of the folder in `ukbob_jax/models`, or the module path of a network of one's own.
        build: fields, as from JSON or a recipe -> module; those left out have defaults.
        fields: module -> its fields as JSON values, the inverse of `build`.
        multiple: module -> voxels x y z whose multiples need no padding; a volume of so many initialises it.
        strides: module -> voxels of the input per voxel of each of the logits it gives when training, finest first.
        stages: (pattern, depth) from 0 at the input on, for layer-wise learning rates; the first that is found wins.
            Or a function of the module, where its fields say how many there are.
        parts: "stem" (what sees the input channels), "encoder", "decoder", "head" (what gives the classes) -> pattern.
        features: name of the method that gives the encoder's maps, finest first:
            `model.apply(variables, x, method=features)`; it takes `train` too. Empty: none.
        torch: names in PyTorch files; None where there is no such network in PyTorch.
        without_dropout: module -> the same whose training pass is not random.
        free: fields in which a checkpoint and the model it is brought to may differ.
        classes: names of the PyTorch classes that this network is made after -> fields that each stands for.
        settled: module, and shapes of its weights by PyTorch's names -> the module with the fields filled in that it
            leaves to its weights.
    """

    name: str
    build: Callable[[Fields], Any]
    fields: Callable[[Any], dict[str, Any]]
    multiple: Callable[[Any], Size]
    strides: Callable[[Any], tuple[Size, ...]]
    stages: Stages | Callable[[Any], Stages] = ()
    parts: Mapping[str, str] = {}
    features: str = ""
    torch: TorchNames | None = None
    without_dropout: Callable[[Any], Any] = without_rates
    free: tuple[str, ...] = FREE
    classes: Mapping[str, Fields] = {}
    settled: Callable[[Any, Mapping[str, tuple[int, ...]]], Any] = as_built

    def stages_of(self, model: Any) -> Stages:
        """`stages` of `model`."""
        return self.stages(model) if callable(self.stages) else self.stages

    def input_shape(self, model: Any) -> tuple[int, ...]:
        """The smallest batch, b x y z c, that initialises `model`."""
        return (1, *self.multiple(model), model.in_channels)


def find(name: str, *, imported_only: bool = False) -> Architecture:
    """The architecture called `name`.

    Args:
        name: a folder of `ukbob_jax/models`, or the module path of a network of one's own, which has a dot.
        imported_only: do not import a module path. For names that stand in a file: a file is data and must not
            decide which code runs.
    Raises:
        ConfigError: there is none of this name; the message says which there are, or what to import.
    """
    if not all(word.isidentifier() for word in name.split(".")):
        found = None
    elif "." not in name:
        found = _constant(f"{PACKAGE}.{name}") if _is_folder(name) else None
    else:
        if imported_only and name not in sys.modules:
            raise ConfigError(
                f"network {name!r} is not one of ours, and a file may not choose what is imported. "
                f"If you trust it, import {name} first in Python, or give --config.model.name={name} to "
                "python -m ukbob_jax.main."
            )
        found = _constant(name)
    if found is None:
        raise ConfigError(
            f"network {name!r} is unknown: there are {', '.join(names())}, or the module path of your own, which has "
            f"a constant {CONSTANT}."
        )
    if found.name != name:
        raise ConfigError(f"network {name!r}: its {CONSTANT} is called {found.name!r}; give both one name.")
    return found


def of_class(kind: str) -> tuple[str, Fields] | None:
    """Name and fields of the network of this package that is made after PyTorch's class `kind`, such as "MedNeXt"."""
    if "." in kind or _is_folder(kind):
        return None  # a network's own name: the others need not be imported
    for name in names():
        if (fields := find(name).classes.get(kind)) is not None:
            return name, fields
    return None


def names() -> list[str]:
    """The networks of this package."""
    folders = pkgutil.iter_modules(importlib.import_module(PACKAGE).__path__)
    return [f.name for f in folders if f.ispkg and _constant(f"{PACKAGE}.{f.name}") is not None]


def of(model: nn.Module) -> Architecture:
    """The architecture of a module.

    Raises:
        ConfigError: neither the module that defines its class nor a package around it has one.
    """
    if (found := said_by(model)) is None:
        raise ConfigError(
            f"{type(model).__name__}: {type(model).__module__} has no constant {CONSTANT} that describes this network."
        )
    return found


def said_by(model: nn.Module) -> Architecture | None:
    """The architecture of a module, or None where it does not say one."""
    place = type(model).__module__
    while place:
        found = vars(sys.modules[place]).get(CONSTANT) if place in sys.modules else None
        if isinstance(found, Architecture):
            return found
        place = place.rpartition(".")[0]
    return None


def build_module(module: type, fields: Fields) -> Any:
    """An instance of a Flax module from its fields as JSON values: lists become tuples, `dtype` is a name.

    Raises:
        ConfigError: a field is unknown or missing; the message names it and the valid ones.
    """
    known = {f.name: f for f in dataclasses.fields(module) if f.name not in ("parent", "name")}
    if unknown := [name for name in fields if name not in known]:
        raise ConfigError(f"{module.__name__}: unknown field {unknown[0]!r}; its fields: {', '.join(known)}.")
    needed = (name for name, f in known.items() if f.default is f.default_factory is dataclasses.MISSING)
    if missing := [name for name in needed if name not in fields]:
        raise ConfigError(
            f"{module.__name__}: field {missing[0]!r} is missing; its fields: {', '.join(known)}."
        )
    values = {name: tuples(value) for name, value in fields.items()}
    if "dtype" in values:
        values["dtype"] = jnp.dtype(values["dtype"])
    return module(**values)


def module_fields(model: nn.Module) -> dict[str, Any]:
    """The fields of a Flax module as JSON values; `build_module` builds the same module from them."""
    fields = {
        name: _lists(getattr(model, name))
        for name in type(model).__dataclass_fields__
        if name not in ("parent", "name")
    }
    if "dtype" in fields:
        fields["dtype"] = jnp.dtype(fields["dtype"]).name
    return fields


def _constant(module: str) -> Architecture | None:
    """The ARCHITECTURE of a module, which is imported; None where there is no such module or no such constant."""
    try:
        found = vars(importlib.import_module(module)).get(CONSTANT)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(f"network {module!r} needs {error.name!r}, which is not installed.") from error
        return None
    return found if isinstance(found, Architecture) else None


def _is_folder(name: str) -> bool:
    return (pathlib.Path(__file__).parent / name / "__init__.py").is_file()


def tuples(value: Any) -> Any:
    """Lists as tuples, those inside others too."""
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value


def _lists(value: Any) -> Any:
    return list(map(_lists, value)) if isinstance(value, list | tuple) else value
