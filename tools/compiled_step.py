"""What the tools that compile the training step for devices nobody has to own share: the step, and how to read programs."""

import argparse
import collections
import functools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from configs import pretrain
from ukbob_jax.data import on_device
from ukbob_jax.models.kernels.attention import KINDS
from ukbob_jax.models.swin_unetr.network import MULTIPLE, SwinUNETR
from ukbob_jax.training import losses, optimizer, sharding
from ukbob_jax.training import state as states
from ukbob_jax.training.objectives import tasks
from ukbob_jax.training.objectives.supervised import supervised
from ukbob_jax.training.step import Augment, train_step

# As in configs/common.py: contrasts, norm and optimizer of the paper's training.
CHANNELS = 4
NORM = "instance_affine"
OPTIMIZER = {
    "name": "adamw",
    "learning_rate": 1e-4,
    "warmup_steps": 500,
    "schedule": "cosine",
    "final_fraction": 0.0,
    "power": 0.9,
    "hold_steps": 1,
    "decoder_steps": 0,
    "momentum": 0.99,
    "weight_decay": 1e-5,
    "clip_norm": 1.0,
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "layer_decay": 1.0,
    "frozen": "",
    "trainable": "",
    "steps": 100_000,
}

BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}  # of types whose name does not end in their width
ENTRY = "ENTRY"  # in place of the name of the computation that is run
# Instructions that move nothing. Neither do starts: their bytes are counted where they are done.
STILL = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all")


class Instruction(NamedTuple):
    """One line of an optimized program."""

    where: str  # the computation it belongs to
    name: str
    type: str
    op: str
    operands: list[str]
    rest: str  # of the line, from the operands on


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser of the options that say which step is compiled; further ones may be added."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--feature_size", type=int, default=48)
    parser.add_argument("--classes", type=int, default=73)
    parser.add_argument("--crop", type=int, default=96, help="edge, voxels")
    parser.add_argument("--dtype", default="bfloat16", help="of the network's arithmetic")
    parser.add_argument("--remat", action="store_true", help="recompute each block in the backward pass")
    parser.add_argument(
        "--attention", choices=KINDS, default="plain", help="of the network, on NVIDIA's GPUs"
    )
    parser.add_argument(
        "--xla", action="append", default=[], metavar="NAME=VALUE", help="option of the compiler"
    )
    parser.add_argument("--out", help="JSON file of the same numbers")
    return parser


class Work(NamedTuple):
    """What a step learns, and from what."""

    step: Callable  # (state, batch, key) -> (state, metrics)
    init: Callable  # key -> state
    arrays: dict[str, jax.ShapeDtypeStruct]  # of one row of a batch
    rows: int = 1  # of a batch for each of its samples


def training(args: argparse.Namespace, augment: Augment | None) -> Work:
    """The paper's training on labels; `args` of `arguments`."""
    network, tx = network_of(args, CHANNELS, args.classes), optimizer.build(**OPTIMIZER)
    size = (args.crop,) * 3
    step = functools.partial(
        train_step, objective=supervised(network, losses.dice_ce), optimizer=tx, augment=augment
    )
    variables = states.variables_of(network, (1, *(MULTIPLE,) * 3, CHANNELS))
    arrays = {
        "image": jax.ShapeDtypeStruct((*size, CHANNELS), jnp.float32),
        "label": jax.ShapeDtypeStruct(size, jnp.uint8),
    }
    return Work(step, functools.partial(states.init, variables=variables, optimizer=tx), arrays)


def pretraining(args: argparse.Namespace, method: str, size: tuple[int, ...] | None = None) -> Work:
    """A pre-training as `configs/pretrain.py` has it, from images of one contrast as a store has them, voxels of 1 mm.

    Args:
        args: of `arguments`; `crop` and `classes` have no meaning here.
        method: variant of the recipe.
        size: voxels x y z of an image; None: the recipe's.
    """
    config = pretrain.get_config(method)
    size = size or tuple(config.data.crop)
    fields = {name: value for name, value in config.pretrain.to_dict().items() if name != "method"}
    task = tasks.build(method, fields, lambda out: network_of(args, 1, out), 1, size)
    tx = optimizer.build(**config.optimizer, steps=config.train.steps)
    step = functools.partial(
        train_step,
        objective=task.objective,
        optimizer=tx,
        augment=on_device.on_device(config.augment, {}, (1.0, 1.0, 1.0), task.cut),
        views=task.rows,
    )
    arrays = {
        "stored": jax.ShapeDtypeStruct((1, *size), jnp.int16),
        "size": jax.ShapeDtypeStruct((3,), jnp.int32),
        "offset": jax.ShapeDtypeStruct((1,), jnp.float32),
        "scale": jax.ShapeDtypeStruct((1,), jnp.float32),
        "range": jax.ShapeDtypeStruct((2,), jnp.float32),
        "anonymised": jax.ShapeDtypeStruct(size, jnp.bool_),
    }
    init = functools.partial(states.init, variables=task.variables, optimizer=tx)
    return Work(step, init, arrays, task.views)


def network_of(args: argparse.Namespace, in_channels: int, out_channels: int) -> SwinUNETR:
    """Swin-UNETR with the fields of `args`."""
    return SwinUNETR(
        in_channels,
        out_channels,
        feature_size=args.feature_size,
        norm=NORM,
        dtype=jnp.dtype(args.dtype),
        remat=args.remat,
        attention=args.attention,
    )


def lower(work: Work, mesh: jax.sharding.Mesh, batch_size: int) -> tuple[Any, Any]:
    """(the step lowered for the mesh, shapes of its state), for `batch_size` samples."""
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(work.init, key)
    batch = {
        name: jax.ShapeDtypeStruct(
            (batch_size * work.rows, *row.shape), row.dtype, sharding=sharding.batch_sharding(mesh, name)
        )
        for name, row in work.arrays.items()
    }
    compiled = sharding.compile_step(work.step, sharding.state_sharding(state, mesh), mesh)
    return compiled.lower(state, batch, key), state


def one_device_flops(work: Work, samples: int) -> float:
    """FLOPs of the step for `samples` samples on a single TPU, before the compiler rearranges anything.

    Every operation counts: products, and the arithmetic of each element of a map.
    """
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(work.init, key)
    batch = {
        name: jax.ShapeDtypeStruct((samples * work.rows, *row.shape), row.dtype)
        for name, row in work.arrays.items()
    }
    lowered = jax.jit(work.step).trace(state, batch, key).lower(lowering_platforms=("tpu",))
    return lowered.cost_analysis()["flops"]


def convolutions(stablehlo: str) -> collections.Counter:
    """How many convolutions of each number of spatial axes a lowered program has."""
    layouts = re.findall(r"stablehlo\.convolution\(.*?dim_numbers = \[([^\]]*)\]", stablehlo)
    return collections.Counter(layout.count(",") - 1 for layout in layouts)


def matmul_flops(stablehlo: str) -> float:
    """FLOPs of all products and convolutions of a lowered program, before it is split over devices.

    Products with the zeros of a padding are not counted. Convolutions must have stride 1 and no dilation.
    """
    types = r"\(tensor<([^>]*)>, tensor<([^>]*)>\) -> tensor<([^>]*)>"
    total = 0.0
    for line in stablehlo.splitlines():
        if "stablehlo.dot_general" in line:
            left, _, out = (_dims(t) for t in re.search(types, line).groups())
            axes = re.search(r"contracting_dims = \[([\d, ]*)\]", line)[1]
            total += (
                2 * math.prod(out) * math.prod(left[int(axis)] for axis in axes.split(",") if axis.strip())
            )
        elif "stablehlo.convolution" in line:
            total += _convolution_flops(line, *(_dims(t) for t in re.search(types, line).groups()))
    return total


def _convolution_flops(line: str, image: list[int], kernel: list[int], out: list[int]) -> float:
    layout = re.search(r"dim_numbers = \[(.*?)\]x\[(.*?)\]->\[(.*?)\]", line)
    of_image, of_kernel, of_out = (group.split(", ") for group in layout.groups())
    pads = re.search(r"pad = \[(\[.*?\])\]", line)
    pads = (
        [[int(n) for n in pair.split(",")] for pair in re.findall(r"\[([^\[\]]*)\]", pads[1])] if pads else []
    )
    flops = 2.0 * out[of_out.index("b")] * out[of_out.index("f")] * kernel[of_kernel.index("i")]
    for axis in range(len(of_out) - 2):
        length, window, count = (
            sizes[names.index(str(axis))]
            for sizes, names in ((image, of_image), (kernel, of_kernel), (out, of_out))
        )
        low = pads[axis][0] if pads else 0
        flops *= sum(max(0, min(length, o - low + window) - max(0, o - low)) for o in range(count))
    return flops


def _dims(tensor: str) -> list[int]:
    """`4x8xf32` to [4, 8]."""
    return [int(size) for size in tensor.split("x")[:-1]]


def instructions(hlo: str) -> Iterator[Instruction]:
    """Of an optimized program, computations in the order of the text: callees before their callers."""
    where = ""
    for line in hlo.splitlines():
        if opening := re.match(r"(ENTRY )?%?([\w.-]+) .*\{$", line):
            where = ENTRY if opening[1] else opening[2]
        elif parts := re.match(r"\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z0-9-]*)\((.*)", line):
            operands = re.findall(r"%([\w.-]+)", parts[4].partition(")")[0])
            yield Instruction(where, parts[1], parts[2], parts[3], operands, parts[4])


def type_bytes(shape: str, main_memory: bool = False) -> int:
    """Bytes of an HLO type such as `f32[3,4]{1,0}` or of a tuple of them; only of those in main memory, if so wished."""
    total = 0
    for kind, sizes, layout in re.findall(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?", shape):
        if main_memory and re.search(r"S\([1-9]", layout):
            continue
        bits = BITS.get(kind) or int(re.search(r"\d+", kind)[0])
        total += math.prod(int(size) for size in sizes.split(",") if size) * bits // 8
    return total


def gb(size: float) -> str:
    return f"{size / 1e9:.3f} GB"
