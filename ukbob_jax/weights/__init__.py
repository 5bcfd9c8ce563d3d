"""Weights from and to MONAI, PyTorch files, safetensors and our checkpoints, with a report of what fits.

A parameter tree is a nested dictionary of float32 arrays, as `SwinUNETR.init(...)["params"]` gives; names in reports
and errors are MONAI's, which every file format but our own checkpoints uses.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax.errors import ConfigError, FileError, MismatchError, ValuesError
from ukbob_jax.models.swin_unetr import aliases, torch_names
from ukbob_jax.models.swin_unetr.network import MULTIPLE, SwinUNETR
from ukbob_jax.weights import coverage, files
from ukbob_jax.weights.coverage import Report

ARCHITECTURE = 1  # version of what the parameters mean; another number is refused
AXES = "x y z c, RAS+"
Params = dict[str, Any]

# Fields of the model that change its numbers but not necessarily the shapes of its weights.
_DEFINING = (
    *(
        "feature_size",
        "depths",
        "num_heads",
        "window_size",
        "norm",
        "norm_groups",
        "norm_affine",
        "mlp_ratio",
    ),
    *("downsample", "use_v2", "qkv_bias", "normalize", "patch_norm"),
)


class Loaded(NamedTuple):
    """A checkpoint brought to a model."""

    params: Params
    model_state: dict[str, Any]  # {"batch_stats": ...} for norm="batch", else empty
    report: Report
    description: dict[str, Any] | None  # see `describe`; None for files of others


def from_monai(state_dict: Mapping[str, Any], model: SwinUNETR) -> Params:
    """The parameters of `model` with the values of a MONAI state_dict.

    Args:
        state_dict: MONAI's names to arrays of any floating type; the integer tables of relative positions and running
            statistics may be there or not.
        model: the architecture the weights are for.
    Returns:
        The parameter tree, float32. For the running statistics of norm="batch" see `state_from_monai`. Heads for deep
        supervision are not in it: inference needs none, and training puts fresh ones in (`{**fresh, **params}`).
    Raises:
        ValueError: names every missing, extra or mis-shaped key.
    """
    arrays = {name: np.asarray(value) for name, value in state_dict.items()}
    report = coverage.compare(arrays, model)
    statistics = {tensor.name for tensor in torch_names.tensors(model, "batch_stats")}
    report = report._replace(missing=tuple(name for name in report.missing if name not in statistics))
    if not report.complete:
        raise MismatchError(f"state_dict does not fit the model: {report.problems()}.")
    return _tree(arrays, torch_names.tensors(model))


def state_from_monai(state_dict: Mapping[str, Any], model: SwinUNETR) -> dict[str, Any]:
    """The running statistics of a MONAI state_dict as `model_state`: {"batch_stats": ...}, or {} for other norms.

    Raises:
        ValueError: names every missing, extra or mis-shaped key.
    """
    arrays = {name: np.asarray(value) for name, value in state_dict.items()}
    report = coverage.compare(arrays, model)
    if not report.complete:
        raise MismatchError(f"state_dict does not fit the model: {report.problems()}.")
    tensors = torch_names.tensors(model, "batch_stats")
    return {"batch_stats": _tree(arrays, tensors)} if tensors else {}


def to_monai(
    params: Mapping[str, Any], model: SwinUNETR, model_state: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """The state_dict MONAI's `SwinUNETR` would have: inverse of `from_monai`, bit for bit.

    Args:
        params: a parameter tree, or one of gradients; any floating type, which is kept.
        model: whose parameters they are.
        model_state: running statistics of norm="batch"; without them their keys are absent.
    Returns:
        Names to arrays in MONAI's layout, with the int64 tables `relative_position_index`, without heads for deep
        supervision.
    Raises:
        ValueError: names every missing, extra or mis-shaped parameter.
    """
    state_dict = _named(params, torch_names.tensors(model))
    if model_state:
        statistics = _named(model_state["batch_stats"], torch_names.tensors(model, "batch_stats"))
        counts = {k: v.astype(np.int64) for k, v in statistics.items() if k.endswith("num_batches_tracked")}
        state_dict |= statistics | counts
    return state_dict | torch_names.index_buffers(model)


def load(path: str | os.PathLike, model: SwinUNETR, **options: Any) -> Params:
    """The parameters in a file or checkpoint folder: `read(path, model, **options).params`."""
    return read(path, model, **options).params


def read(
    path: str | os.PathLike,
    model: SwinUNETR,
    *,
    new: str = "",
    drop: str = "",
    head: str = "match",
    stem: str = "match",
    init: Params | None = None,
    seed: int = 0,
    labels: Mapping[str, str] | None = None,
    which: str = "best",
) -> Loaded:
    """Bring a checkpoint to `model`; every tensor of the model must be in it, and no other, unless told so.

    Args:
        path: `.pt` or `.pth` (whole networks or encoders, in any of the layouts `aliases.py` knows), `.safetensors`,
            or a folder of our checkpoints.
        model: the architecture, merging form included: files of others do not say which one they need.
        new: regular expression; tensors it finds (MONAI's names) may be missing or of another shape and start afresh.
            "^(encoder|decoder|out)" for a self-supervised encoder.
        drop: regular expression; tensors it finds (names as in the file) are left out, such as "^teacher".
        head: "new" starts the last layer afresh, for other classes.
        stem: "average" or "new" for another number of input channels (`coverage.fit`).
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
    tensors, description, left_out = contents(path, which, drop)
    _check_description(path, description, model, labels if head != "new" else None)
    report, tensors = _report(tensors, model, new, head, stem)
    report = report._replace(left_out=left_out)
    if not report.complete:
        raise MismatchError(
            f"{path}: does not fit the model: {report.problems()}. Name the parts that may be new with new=, "
            "those to leave out with drop=, or head=, stem= for other classes or input channels."
        )
    if bad := [name for name, array in tensors.items() if not np.isfinite(array).all()]:
        raise ValuesError(
            f"{path}: {len(bad)} tensors hold NaN or infinity, such as {bad[0]}. Take an earlier checkpoint."
        )
    values = {**tensors, **_fresh(report.new, model, init, seed)}
    trees = {name: _tree(values, torch_names.tensors(model, name)) for name in ("params", "batch_stats")}
    model_state = {"batch_stats": trees["batch_stats"]} if trees["batch_stats"] else {}
    return Loaded(trees["params"], model_state, report, description)


def contents(
    path: str | os.PathLike, which: str = "best", drop: str = ""
) -> tuple[dict[str, np.ndarray], dict[str, Any] | None, tuple[str, ...]]:
    """What a checkpoint holds, for no model in particular.

    Args:
        path: as for `read`; a workdir stands for its `checkpoints` folder.
        which: "best" or "latest", for a folder.
        drop: as for `read`, for a file.
    Returns:
        Tensors under MONAI's names; our description or None; names left out: dropped, or heads of pre-training tasks.
    Raises:
        FileError: the file is damaged or of no known kind.
        ConfigError: `drop` is no regular expression.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        file = files.read(path)
        tensors, left_out = aliases.rename(
            file.tensors, str(path), coverage.expression(drop, "drop") if drop else None
        )
        return tensors, file.description, left_out
    # Rooms import from those above them; checkpoints lie below, and only this call needs them.
    from ukbob_jax.training.checkpoints import restore_params

    folder = path / "checkpoints"
    params, model_state, description = restore_params(folder if folder.is_dir() else path, which)
    return to_monai(params, SwinUNETR.from_config(description["model"]), model_state), description, ()


def load_report(
    path: str | os.PathLike, model: SwinUNETR, *, new: str = "", drop: str = "", head: str = "match",
    stem: str = "match",
) -> Report:  # fmt: skip
    """What of `model` a checkpoint gives, without refusing; print it to see the names. Options as `read`.

    Raises:
        FileError: the file is damaged or of no known kind.
    """
    tensors, _, left_out = contents(path, drop=drop)
    return _report(tensors, model, new, head, stem)[0]._replace(left_out=left_out)


def save(
    path: str | os.PathLike,
    params: Params,
    model: SwinUNETR,
    *,
    model_state: Mapping[str, Any] | None = None,
    **facts: Any,
) -> None:
    """Write the weights in MONAI's layout to `.safetensors`, `.pt` or `.pth`, with `describe(model, **facts)`.

    Raises:
        ValueError: the parameters are not the model's, or the suffix is another.
    """
    files.write(path, to_monai(params, model, model_state), describe(model, **facts))


def describe(model: SwinUNETR, **facts: Any) -> dict[str, Any]:
    """What must travel with weights for others to use them, as JSON values.

    Args:
        model: its fields are all kept, the merging form among them.
        **facts: any of labels (id to name), regions (`Regions.to_json`), spacing_mm, normalize, contrasts, roi, provenance.
    Raises:
        ConfigError: a fact of another name.
    """
    known = ("labels", "regions", "spacing_mm", "normalize", "contrasts", "roi", "provenance")
    if unknown := set(facts) - set(known):
        raise ConfigError(f"describe: unknown {', '.join(sorted(unknown))}; known are {', '.join(known)}.")
    return {"model": model.config(), "architecture": ARCHITECTURE, "axes": AXES, **facts}


def _report(
    tensors: dict[str, np.ndarray], model: SwinUNETR, new: str, head: str, stem: str
) -> tuple[Report, dict[str, np.ndarray]]:
    if head not in ("match", "new") or stem not in ("match", "average", "new"):
        raise ConfigError(
            f"head={head!r}, stem={stem!r}: head is match or new; stem is match, average or new."
        )
    tensors, fresh, averaged = coverage.fit(tensors, model, head, stem)
    report = coverage.allow_new(coverage.compare(tensors, model), "|".join(filter(None, (new, fresh))))
    return report._replace(averaged=averaged), tensors


def _check_description(
    path: Any, description: Mapping[str, Any] | None, model: SwinUNETR, labels: Mapping[str, str] | None
) -> None:
    if description is None:
        return
    if not isinstance(description.get("model"), dict):
        raise FileError(f"{path}: its description does not say which model it is for. Convert it again.")
    facts = {"architecture": ARCHITECTURE, "axes": AXES, **({"labels": dict(labels)} if labels else {})}
    wrong = [f"{k} {description.get(k)!r}, not {v!r}" for k, v in facts.items() if description.get(k) != v]
    theirs, ours = SwinUNETR.from_config(description["model"]), model
    for field in _DEFINING:
        a, b = (m.window if field == "window_size" else getattr(m, field) for m in (theirs, ours))
        if a != b and list(np.ravel(a)) != list(np.ravel(b)):
            wrong.append(f"{field} {a!r}, not {b!r}")
    if wrong:
        raise MismatchError(
            f"{path}: was made for {'; '.join(wrong)}. Build the model the checkpoint describes."
        )


def _fresh(names: Sequence[str], model: SwinUNETR, init: Params | None, seed: int) -> dict[str, np.ndarray]:
    """The tensors `names` of `init`, or of the model's own initialisation where it has none."""
    if not names:
        return {}
    params = torch_names.tensors(model)
    given = _named(init, params) if init is not None else {}
    if any(name not in given for name in names):
        variables = dict(
            model.init(jax.random.key(seed), jnp.zeros((1, *(MULTIPLE,) * 3, model.in_channels)))
        )
        given = {**to_monai(variables.pop("params"), model, variables), **given}
    return {name: given[name] for name in names}


def _tree(values: Mapping[str, np.ndarray], tensors: Sequence[torch_names.Tensor]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for tensor in tensors:
        dtype = np.int32 if tensor.path[-1] == "count" else np.float32
        value = np.asarray(values[tensor.name]).astype(dtype).transpose(tensor.axes)
        at = tree
        for key in tensor.path[:-1]:
            at = at.setdefault(key, {})
        at[tensor.path[-1]] = jnp.asarray(value)
    return tree


def _named(tree: Mapping[str, Any], tensors: Sequence[torch_names.Tensor]) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    given = {tuple(getattr(key, "key", str(key)) for key in keys): leaf for keys, leaf in leaves}
    wrong = [f"missing {'/'.join(tensor.path)}" for tensor in tensors if tensor.path not in given]
    wrong += [
        f"unexpected {'/'.join(path)}"
        for path in given
        if path not in {tensor.path for tensor in tensors} and not torch_names.auxiliary(path)
    ]
    wrong += [
        f"{'/'.join(tensor.path)} has shape {np.shape(given[tensor.path])}, the model {tensor.shape}"
        for tensor in tensors
        if tensor.path in given and np.shape(given[tensor.path]) != tensor.shape
    ]
    if wrong:
        raise MismatchError(f"parameters do not fit the model: {', '.join(wrong)}.")
    return {
        tensor.name: np.array(np.asarray(given[tensor.path]).transpose(np.argsort(tensor.axes)), order="C")
        for tensor in tensors
    }
