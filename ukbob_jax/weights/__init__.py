"""Weights from and to PyTorch files, safetensors and our checkpoints, with a report of what fits.

A parameter tree is a nested dictionary of float32 arrays, as `model.init(...)["params"]` gives; names in reports and
errors are those of the network's PyTorch class, which every file format but our own checkpoints uses.
"""

import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ukbob_jax.errors import ConfigError, MismatchError, ValuesError
from ukbob_jax.models import architecture
from ukbob_jax.models.architecture import Architecture
from ukbob_jax.models.card import PRETRAINING, ModelCard
from ukbob_jax.training.checkpoints import restore_params
from ukbob_jax.training.state import PRETEXT
from ukbob_jax.weights import aliases, coverage, files, tensors
from ukbob_jax.weights.coverage import Report
from ukbob_jax.weights.tensors import ModelTensor, auxiliary, expected, model_tensors, settled, torch_names

Params = dict[str, Any]


class Loaded(NamedTuple):
    """A checkpoint brought to a model."""

    params: Params
    model_state: dict[str, Any]  # {"batch_stats": ...} for norm="batch", else empty
    report: Report
    card: ModelCard | None  # None for files of others


class Contents(NamedTuple):
    """What a checkpoint holds."""

    tensors: dict[str, np.ndarray]  # by the names of the network's PyTorch class
    card: ModelCard | None  # None for files of others
    left_out: tuple[str, ...]  # names as in the file: dropped, or heads of pre-training tasks


def from_torch(state_dict: Mapping[str, Any], model: nn.Module) -> Params:
    """The parameters of `model` with the values of a PyTorch state_dict.

    Args:
        state_dict: PyTorch's names to arrays of any floating type; integer tables and running statistics may be there
            or not, and a tensor may stand under several names.
        model: the network the weights are for.
    Returns:
        The parameter tree, float32. For the running statistics of norm="batch" see `state_from_torch`. Parameters that
        PyTorch files have no place for, such as Swin-UNETR's heads for deep supervision, are not in it: inference
        needs none, and training puts fresh ones in (`{**fresh, **params}`).
    Raises:
        ValueError: names every missing, extra or mis-shaped key.
    """
    model = settled(model, {name: np.shape(value) for name, value in state_dict.items()})
    arrays, report = _compared(state_dict, model)
    statistics = {tensor.name for tensor in model_tensors(model, "batch_stats")}
    report = report._replace(missing=tuple(name for name in report.missing if name not in statistics))
    if not report.complete:
        raise MismatchError(f"state_dict does not fit the model: {report.problems()}.")
    return _tree(arrays, model_tensors(model))


def state_from_torch(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """The running statistics of a state_dict as `model_state`: {"batch_stats": ...}, or {} for other norms.

    Raises:
        ValueError: names every missing, extra or mis-shaped key.
    """
    model = settled(model, {name: np.shape(value) for name, value in state_dict.items()})
    arrays, report = _compared(state_dict, model)
    if not report.complete:
        raise MismatchError(f"state_dict does not fit the model: {report.problems()}.")
    statistics = model_tensors(model, "batch_stats")
    return {"batch_stats": _tree(arrays, statistics)} if statistics else {}


def to_torch(
    params: Mapping[str, Any], model: nn.Module, model_state: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """The state_dict that the network's PyTorch class would have: inverse of `from_torch`, bit for bit.

    Args:
        params: a parameter tree, or one of gradients; any floating type, which is kept.
        model: whose parameters they are.
        model_state: running statistics of norm="batch"; without them their keys are absent.
    Returns:
        Names to arrays in PyTorch's layout, with its integer tables, every name of a tensor that has several, and what it
        carries unused; without parameters that PyTorch files have no place for.
    Raises:
        ValueError: names every missing, extra or mis-shaped parameter.
    """
    model = settled(model, _shapes(params, model))
    state_dict = _named(params, model_tensors(model), model)
    if model_state:
        statistics = _named(model_state["batch_stats"], model_tensors(model, "batch_stats"), model)
        counts = {k: v.astype(np.int64) for k, v in statistics.items() if k.endswith("num_batches_tracked")}
        state_dict |= statistics | counts
    return with_copies(state_dict, model)


def with_copies(tensors: Mapping[str, np.ndarray], model: nn.Module) -> dict[str, np.ndarray]:
    """Tensors by PyTorch's names, all of the network or some, with its further names for them and its integer tables."""
    names = torch_names(model)
    copies = {copy: tensors[first] for copy, first in names.copies(model).items() if first in tensors}
    return {**tensors, **copies, **names.buffers(model), **names.unused(model)}


from_monai, to_monai = from_torch, to_torch  # what they are for `SwinUNETR`


def load(path: str | os.PathLike, model: nn.Module, **options: Any) -> Params:
    """The parameters in a file or checkpoint folder: `read(path, model, **options).params`."""
    return read(path, model, **options).params


def read(
    path: str | os.PathLike,
    model: nn.Module,
    *,
    new: str | Sequence[str] = "",
    drop: str = "",
    head: str = "match",
    stem: str = "match",
    init: Params | None = None,
    seed: int = 0,
    labels: Mapping[int, str] | None = None,
    which: str = "best",
) -> Loaded:
    """Bring a checkpoint to `model`; every tensor of the model must be in it, and no other, unless told so.

    Of a pre-training (`jobs/pretrain`) its encoder must be there, and the decoder is taken if it was trained too; the
    last layer starts afresh.

    Args:
        path: `.pt` or `.pth` (whole networks or encoders, under any of the names the architecture knows),
            `.safetensors`, or a folder of our checkpoints.
        model: the network, merging form included: files of others do not say which one they need.
        new: what may be missing or of another shape and then starts afresh: parts of the architecture, such as
            ("decoder", "head") for a self-supervised encoder, or a regular expression on PyTorch's names.
        drop: regular expression; tensors it finds (names as in the file) are left out, such as "^teacher".
        head: "new" starts the last layer afresh, for other classes.
        stem: "average" or "new" for another number of input channels
            (`coverage.adapt_channels_and_head`).
        init: parameters to start afresh from; by default the model's own initialisation with `seed`.
        seed: of that initialisation.
        labels: the label set the caller works with, id to name; refused if the checkpoint was made for another.
        which: "best" or "latest", for a folder.
    Raises:
        FileError: the file is damaged or of no known kind.
        ValuesError: weights are NaN or infinite.
        MismatchError: names everything missing, unexpected or reshaped, or says which setting differs.
        ConfigError: an option is none of those above.
    """
    found = contents(path, which, drop, model)
    shapes = {name: array.shape for name, array in found.tensors.items()}
    model = settled(model, shapes)
    pretrained = found.card is not None and found.card.task == PRETRAINING
    head = "new" if pretrained else head
    _check_card(path, found.card, model, labels if head != "new" else None, shapes)
    absent = coverage.beside_encoder(model) - found.tensors.keys() if pretrained else set()
    report, arrays = _report(found.tensors, model, new, head, stem, absent)
    report = report._replace(left_out=found.left_out)
    if not report.complete:
        raise MismatchError(
            f"{path}: does not fit the model: {report.problems()}. Name the parts that may be new with new=, "
            "those to leave out with drop=, or head=, stem= for other classes or input channels."
        )
    if bad := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise ValuesError(
            f"{path}: {len(bad)} tensors hold NaN or infinity, such as {bad[0]}. Take an earlier checkpoint."
        )
    values = {**arrays, **_fresh(report.new, model, init, seed)}
    trees = {name: _tree(values, model_tensors(model, name)) for name in ("params", "batch_stats")}
    model_state = {"batch_stats": trees["batch_stats"]} if trees["batch_stats"] else {}
    return Loaded(trees["params"], model_state, report, found.card)


def contents(
    path: str | os.PathLike,
    which: str = "best",
    drop: str = "",
    like: nn.Module | Architecture | None = None,
) -> Contents:
    """What a checkpoint holds.

    Args:
        path: as for `read`; a workdir stands for its `checkpoints` folder.
        which: "best" or "latest", for a folder.
        drop: as for `read`, for a file.
        like: a network or an architecture whose names the tensors of a file without a card get.
    Raises:
        FileError: the file is damaged or of no known kind.
        ConfigError: `drop` is no regular expression, or a file without a card and no `like`.
    """
    path = pathlib.Path(path)
    model = like if isinstance(like, nn.Module) else None
    said = architecture.of(model) if model else like
    if path.is_dir():
        folder = path / "checkpoints"
        params, model_state, meta = restore_params(folder if folder.is_dir() else path, which)
        card = ModelCard.from_json(meta, path)
        if card.task == PRETRAINING:
            return _of_pretraining(params, model_state, card)
        params = {name: tree for name, tree in params.items() if name != PRETEXT}  # of a grader's detector
        return Contents(to_torch(params, card.build(), model_state), card, ())
    file = files.read(path, said.torch.first if said and said.torch else "")
    card = ModelCard.from_json(file.description, path) if file.description is not None else None
    if card is not None and (said is None or card.architecture != said.name):
        said, model = architecture.find(card.architecture, imported_only=True), None
    if said is None:
        raise ConfigError(f"{path}: does not say which network it is for. Give the architecture.")
    own: set[str] = set()
    if model:
        names = torch_names(model)
        own = {*expected(model), *names.copies(model), *names.unused(model)}
    found, left_out = aliases.rename(
        file.tensors,
        said.torch or architecture.TorchNames(),
        str(path),
        coverage.expression(drop, "drop") if drop else None,
        own,
    )
    return Contents(found, card, left_out)


def _of_pretraining(params: Params, model_state: Mapping[str, Any], card: ModelCard) -> Contents:
    """What a pre-training has of its network, perhaps the encoder alone; heads and tokens of its task are left out."""
    model, own = card.build(), params.get(PRETEXT, {})
    network = {name: value for name, value in params.items() if name != PRETEXT}
    found = _named(network, model_tensors(model), model, partly=True)
    if model_state:
        statistics = model_tensors(model, "batch_stats")
        found |= _named(model_state["batch_stats"], statistics, model, partly=True)
    left_out = tuple(f"{PRETEXT}.{'.'.join(path)}" for path in _paths(own))
    return Contents(found, card, left_out)


def save(
    path: str | os.PathLike,
    params: Params,
    model: nn.Module,
    *,
    model_state: Mapping[str, Any] | None = None,
    card: ModelCard | None = None,
) -> None:
    """Write the weights in PyTorch's layout to `.safetensors`, `.pt` or `.pth`, with `card`, by default the model's.

    Raises:
        ValueError: the parameters are not the model's, or the suffix is another.
    """
    card = ModelCard.of(model) if card is None else card
    files.write(path, to_torch(params, model, model_state), {"card": card.to_json()})


def _compared(state_dict: Mapping[str, Any], model: nn.Module) -> tuple[dict[str, np.ndarray], Report]:
    arrays = {name: np.asarray(value) for name, value in state_dict.items()}
    once, differing = coverage.without_copies(arrays, model)
    report = coverage.compare(once, model)
    return once, report._replace(reshaped={**report.reshaped, **differing})


def _report(
    arrays: dict[str, np.ndarray],
    model: nn.Module,
    new: str | Sequence[str],
    head: str,
    stem: str,
    absent: Collection[str] = (),
) -> tuple[Report, dict[str, np.ndarray]]:
    """Report and tensors; those called `absent` may start afresh besides."""
    if head not in ("match", "new") or stem not in ("match", "average", "new"):
        raise ConfigError(
            f"head={head!r}, stem={stem!r}: head is match or new; stem is match, average or new."
        )
    may = coverage.may_be_new(model, new)
    once, differing = coverage.without_copies(arrays, model)
    adapted, fresh, averaged = coverage.adapt_channels_and_head(once, model, head, stem)
    report = coverage.compare(adapted, model)
    report = report._replace(reshaped={**report.reshaped, **differing}, averaged=averaged)
    return coverage.mark_reinitialised(
        report, lambda name: name in fresh or name in absent or may(name)
    ), adapted


def _check_card(
    path: Any,
    card: ModelCard | None,
    model: nn.Module,
    labels: Mapping[int, str] | None,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Refuse weights of another architecture, or of the same with fields that change its numbers, or other labels."""
    if card is None:
        return
    said = architecture.of(model)
    wrong = [] if card.architecture == said.name else [f"network {card.architecture!r}, not {said.name!r}"]
    if labels and dict(labels) != card.labels:
        wrong.append(f"labels {dict(card.labels)!r}, not {dict(labels)!r}")
    theirs = said.fields(settled(said.build(card.fields), shapes)) if not wrong else {}
    ours = said.fields(model)
    for field in theirs:
        if field not in said.free and theirs[field] != ours[field]:
            wrong.append(f"{field} {theirs[field]!r}, not {ours[field]!r}")
    if wrong:
        raise MismatchError(
            f"{path}: was made for {'; '.join(wrong)}. Build the model the checkpoint describes."
        )


def _fresh(names: Sequence[str], model: nn.Module, init: Params | None, seed: int) -> dict[str, np.ndarray]:
    """The tensors `names` of `init`, or of the model's own initialisation where it has none."""
    if not names:
        return {}
    given = _named(init, model_tensors(model), model) if init is not None else {}
    if any(name not in given for name in names):
        shape = architecture.of(model).input_shape(model)
        variables = dict(model.init(jax.random.key(seed), jnp.zeros(shape)))
        given = {**to_torch(variables.pop("params"), model, variables), **given}
    return {name: given[name] for name in names}


def _tree(values: Mapping[str, np.ndarray], wanted: Sequence[ModelTensor]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for tensor in wanted:
        dtype = np.int32 if tensor.path[-1] == "count" else np.float32
        value = np.asarray(values[tensor.name]).astype(dtype).transpose(tensor.axes)
        at = tree
        for key in tensor.path[:-1]:
            at = at.setdefault(key, {})
        at[tensor.path[-1]] = jnp.asarray(value)
    return tree


def _shapes(tree: Mapping[str, Any], model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the leaves of a tree, by PyTorch's names."""
    leaves, names = jax.tree_util.tree_leaves_with_path(tree), torch_names(model)
    return {
        tensors.name(tuple(getattr(key, "key", str(key)) for key in keys), names): np.shape(leaf)
        for keys, leaf in leaves
    }


def _paths(tree: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Path -> leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(getattr(key, "key", str(key)) for key in keys): leaf for keys, leaf in leaves}


def _named(
    tree: Mapping[str, Any], wanted: Sequence[ModelTensor], model: nn.Module, partly: bool = False
) -> dict[str, np.ndarray]:
    """The tensors `wanted` of a tree by PyTorch's names; `partly`: those that it has."""
    given = _paths(tree)
    paths, names = {tensor.path for tensor in wanted}, torch_names(model)
    wanted = [tensor for tensor in wanted if tensor.path in given] if partly else wanted
    wrong = [f"missing {'/'.join(tensor.path)}" for tensor in wanted if tensor.path not in given]
    wrong += [
        f"unexpected {'/'.join(path)}" for path in given if path not in paths and not auxiliary(path, names)
    ]
    wrong += [
        f"{'/'.join(tensor.path)} has shape {np.shape(given[tensor.path])}, the model {tensor.shape}"
        for tensor in wanted
        if tensor.path in given and np.shape(given[tensor.path]) != tensor.shape
    ]
    if wrong:
        raise MismatchError(f"parameters do not fit the model: {', '.join(wrong)}.")
    return {
        tensor.name: np.array(np.asarray(given[tensor.path]).transpose(np.argsort(tensor.axes)), order="C")
        for tensor in wanted
    }
