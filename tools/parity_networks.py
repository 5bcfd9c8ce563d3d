"""The networks of the nnU-Net family beside the PyTorch classes they are made after, on random configurations, as a table.

    python -m tools.parity_networks                                  ten of plain_unet, resenc_unet and primus each
    python -m tools.parity_networks --networks mednext --mednext CLONE --first 10 --count 5
    python -m tools.parity_networks --reference REFERENCE --tags plain4 stunet_s     configurations of the reference

Needs PyTorch and the package dynamic-network-architectures; CLONE is a checkout of MIC-DKFZ/MedNeXt or uni-medical/STU-Net
(whose class stands in a trainer: needs nnunetv2 too). Columns: parameters; largest and mean absolute difference of all
logits in float32, beside PyTorch's own from its float64; largest difference in float64; largest relative difference of a
parameter's gradient in float64, both sides whole. Names, shapes and numbers of parameters must be equal, and weights come
back bit for bit. Exit code 1 where a row differs by more than the rules below.

Primus turns queries and keys by float32 sines, which PyTorch takes from a library whose last digits are its own; ours are
rounded once. Both networks get PyTorch's, so that the columns show everything else; --own-sines leaves ours.
"""

import argparse
import functools
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from tools import parity_configs
from tools.parity_configs import Configuration
from tools.parity_originals import build
from ukbob_jax import networks, weights
from ukbob_jax.models.primus import eva

# Logits of the configurations have a standard deviation of about 1; larger ones may differ in proportion. Where PyTorch,
# in float32, is more than half of a limit off its float64, the limit is twice that: two of its kind may differ by so much.
FLOAT32 = {"ResidualEncoderUNet": 1e-4, "STUNet": 1e-4}  # largest difference; 4e-5 for the others
MEAN = 1e-5
FLOAT64 = 1e-6
NOTHING = 1e-6  # share of the largest gradient below which one is zero in theory, as of a bias before a norm
Tensors = dict[str, np.ndarray]


class Row(NamedTuple):
    """What one comparison gave."""

    parameters: int
    largest: float
    mean: float
    theirs: float  # PyTorch's float32 from its float64, at most
    double: float
    gradient: float
    worst: str  # the parameter whose gradient differs most
    wrong: tuple[str, ...]  # which rules are broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--networks", nargs="+", choices=tuple(parity_configs.NETWORKS), default=["plain_unet", "resenc_unet", "primus"]
    )  # fmt: skip
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--mednext", type=Path, help="checkout of MIC-DKFZ/MedNeXt")
    parser.add_argument("--stunet", type=Path, help="checkout of uni-medical/STU-Net")
    parser.add_argument("--reference", type=Path, help="folder with nnunet_networks/TAG.json")
    parser.add_argument("--tags", nargs="+", default=[])
    parser.add_argument("--own-sines", action="store_true", help="Primus with our own rotations")
    parser.add_argument("--show", action="store_true", help="print each configuration")
    options = parser.parse_args()
    jax.config.update("jax_disable_most_optimizations", True)  # of XLA's compiler: minutes less
    if not options.own_sines:
        eva.rotations = rotations_of_torch
    clones = {"MedNeXt": options.mednext, "STUNet": options.stunet}
    print(
        "| network | input | parameters | float32 max | mean | PyTorch's own | float64 | gradients | wrong |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    failed = 0
    for name, configuration in chosen(options):
        if options.show:
            print(name, json.dumps(configuration._asdict()), flush=True)
        row = compared(configuration, clones, zlib.crc32(name.encode()))
        size = " x ".join(map(str, (configuration.batch, *configuration.size, configuration.channels)))
        numbers = " | ".join(f"{number:.1e}" for number in row[1:6])
        print(f"| {name} | {size} | {row.parameters:,} | {numbers} | {'; '.join(row.wrong)} |", flush=True)
        failed += bool(row.wrong)
        if row.wrong and not options.show:
            print(name, json.dumps(configuration._asdict()), flush=True)
        jax.clear_caches()
    print(f"{failed} differ")
    return int(failed > 0)


def chosen(options: argparse.Namespace) -> Iterator[tuple[str, Configuration]]:
    """Names and configurations that the command asks for."""
    for tag in options.tags:
        facts = json.loads((options.reference / "nnunet_networks" / f"{tag}.json").read_text())
        config = facts["config"]
        ends = config["in_channels"], config["num_classes"], config["batch"]
        arguments = {**facts["fixed_arguments"], **config["model"]}
        if config["kind"] == "MedNeXt":
            arguments.setdefault("deep_supervision", True)
        yield tag, Configuration(config["kind"], *ends, tuple(config["spatial"]), arguments)
    for network in options.networks if not options.tags else ():
        for number in range(options.first, options.first + options.count):
            yield f"{network} {number}", parity_configs.drawn(network, number)


def compared(configuration: Configuration, clones: dict[str, Path | None], seed: int) -> Row:
    """Both networks with the same weights and input."""
    rng = np.random.default_rng(seed)
    original = build(configuration, clones).eval()
    named = {name: _drawn(name, tensor, rng) for name, tensor in _once(original).items()}
    original.load_state_dict({name: torch.from_numpy(array) for name, array in named.items()}, strict=False)
    whole = {name: tensor.numpy().copy() for name, tensor in original.state_dict().items()}
    x = rng.normal(size=(configuration.batch, configuration.channels, *configuration.size)).astype(np.float32)
    model = networks.build(
        configuration.kind, configuration.channels, configuration.classes, **configuration.arguments
    )
    params, state = weights.from_torch(whole, model), weights.state_from_torch(whole, model)
    wrong = _names(original, params, weights.to_torch(params, model, state), whole)
    with torch.no_grad():
        narrow = [y.numpy() for y in _list(original(torch.from_numpy(x)))]
    targets = [rng.normal(size=y.shape) for y in narrow]
    wide, gradients = _of_torch(original.double(), x, targets)
    found = [np.moveaxis(y, -1, 1) for y in _float32(model, params, state, np.moveaxis(x, 1, -1))]
    found64, gradients64 = _float64(model, params, state, x, targets)
    if [y.shape for y in found] != [y.shape for y in narrow]:
        return Row(0, 0, 0, 0, 0, 0, "", (*wrong, f"shapes {[y.shape for y in found]}"))
    scale = [max(1, float(y.std())) for y in wide]
    largest, mean, theirs, their_mean, double = (
        max(measure(a, b) / s for a, b, s in zip(ours, others, scale))
        for measure, ours, others in (
            (_largest, found, narrow),
            (_mean, found, narrow),
            (_largest, narrow, wide),
            (_mean, narrow, wide),
            (_largest, found64, wide),
        )
    )
    gradient, worst = _gradients(gradients64, gradients)
    for what, value, most in (
        ("float32 max", largest, max(FLOAT32.get(configuration.kind, 4e-5), 2 * theirs)),
        ("float32 mean", mean, max(MEAN, 2 * their_mean)),
        ("float64", double, FLOAT64),
        (f"gradient of {worst}", gradient, FLOAT64),
    ):
        if not value <= most:
            wrong += (what,)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return Row(count, largest, mean, theirs, double, gradient, worst, wrong)


@functools.lru_cache(maxsize=64)
def rotations_of_torch(grid: tuple[int, ...], width: int) -> tuple[np.ndarray, np.ndarray]:
    """`eva.rotations` with the original's numbers."""
    from timm.layers import RotaryEmbeddingCat

    rope = RotaryEmbeddingCat(round(width / 1.5), in_pixels=False, feat_shape=grid, ref_feat_shape=grid)
    sin, cos = np.split(rope.get_embed().numpy(), 2, -1)  # each number twice
    return sin[:, ::2], cos[:, ::2]


def _once(original: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Each parameter once, under its first name, and running statistics."""
    statistics = {name: tensor for name, tensor in original.named_buffers() if "running_" in name}
    return {**dict(original.named_parameters()), **statistics}


def _drawn(name: str, tensor: torch.Tensor, rng: np.random.Generator) -> np.ndarray:
    """Weights that keep the size of what passes, and under which every parameter counts."""
    shape = tuple(tensor.shape)
    u = rng.uniform(-1, 1, shape)
    if name.endswith(("pos_embed", "register_tokens", "gamma_1", "gamma_2", "grn_gamma", "grn_beta")):
        return (0.5 * u).astype(np.float32)
    if len(shape) > 1:
        return (u * np.sqrt(3 / np.prod(shape[1:]))).astype(np.float32)
    if name.endswith(("weight", "running_var")):
        return (1 + 0.25 * u).astype(np.float32)
    return np.asarray(0.125 * u, np.float32)


def _names(original: torch.nn.Module, params: Any, again: Tensors, whole: Tensors) -> tuple[str, ...]:
    wrong = ()
    ours, theirs = (
        sum(leaf.size for leaf in jax.tree.leaves(params)),
        sum(p.numel() for p in original.parameters()),
    )
    if ours != theirs:
        wrong += (f"{ours} parameters, not {theirs}",)
    if again.keys() != whole.keys():
        wrong += (f"names {sorted(again.keys() ^ whole.keys())[:4]}",)
    if any(not np.array_equal(again[name], whole[name]) for name in again.keys() & whole.keys()):
        wrong += ("weights do not come back",)
    return wrong


def _list(logits: Any) -> list[Any]:
    return list(logits) if isinstance(logits, list | tuple) else [logits]


def _of_torch(
    original: torch.nn.Module, x: np.ndarray, targets: list[np.ndarray]
) -> tuple[list[np.ndarray], Tensors]:
    """Logits and gradients in float64 of `sum_i 2^-i mean((logits_i - target_i)^2)`."""
    logits = _list(original(torch.from_numpy(x).double()))
    loss = sum(
        0.5**i * ((y - torch.from_numpy(t)) ** 2).mean() for i, (y, t) in enumerate(zip(logits, targets))
    )
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    gradients = {name: p.grad.numpy() for name, p in original.named_parameters() if p.grad is not None}
    return [y.detach().numpy() for y in logits], gradients


def _float32(model: Any, params: Any, state: Any, x: np.ndarray) -> list[np.ndarray]:
    run = jax.jit(functools.partial(model.apply, deep=True))
    return [np.asarray(y) for y in run({"params": params, **state}, x)]


def _float64(
    model: Any, params: Any, state: Any, x: np.ndarray, targets: list[np.ndarray]
) -> tuple[list[np.ndarray], Tensors]:
    """As `_of_torch`."""
    wanted = [np.moveaxis(t, 1, -1) for t in targets]

    def loss(params: Any, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        logits = model.clone(dtype=jnp.float64).apply({"params": params, **state}, x, deep=True)
        return sum(0.5**i * jnp.square(y - t).mean() for i, (y, t) in enumerate(zip(logits, wanted))), logits

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        run = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (_, logits), gradient = run(wide, jnp.asarray(np.moveaxis(x, 1, -1), jnp.float64))
        return [np.moveaxis(np.asarray(y), -1, 1) for y in logits], weights.to_torch(gradient, model)


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float64) - b).max())


def _mean(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float64) - b).mean())


def _gradients(ours: Tensors, theirs: Tensors) -> tuple[float, str]:
    """Largest relative difference of a parameter's gradient, and which; those that are zero in theory must be so here."""
    largest = max(float(np.linalg.norm(array)) for array in theirs.values())
    found = {}
    for name, array in theirs.items():
        norm = float(np.linalg.norm(array))
        if norm <= NOTHING * largest:
            found[name] = 0.0 if np.linalg.norm(ours[name]) <= NOTHING * largest else np.inf
        else:
            found[name] = float(np.linalg.norm(ours[name] - array)) / norm
    worst = max(found, key=lambda name: found[name])
    return found[worst], worst


if __name__ == "__main__":
    sys.exit(main())
