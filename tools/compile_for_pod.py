"""Compiles the real training step for a TPU slice, without having one, and says what each chip would do.

    python -m tools.compile_for_pod                                                        # v5e:2x2, full width
    python -m tools.compile_for_pod --topology v5e:16x16 --out pod.json                    # data = 256
    python -m tools.compile_for_pod --topology v5e:16x16 --data 32 --fsdp 8
    python -m tools.compile_for_pod --topology v5e:16x16 --method mae --remat             # a pre-training

Prints memory, FLOPs and collectives per chip, and predicts how well the step scales. Wants `pip install libtpu` and a
quarter of an hour to an hour of one core: the step has some 2,900 kernels, each scheduled and given registers by itself.
docs/scaling.md has two switches for `--xla` that save a tenth of the FLOPs.
Nothing is run, so times are what follows from the published figures in `CHIPS`, not measurements.
"""

import argparse
import collections
import importlib.metadata
import importlib.util
import math
import os
import re
import sys
import time
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from configs import pretrain
from tools.compiled_step import (
    ENTRY,
    STILL,
    Instruction,
    arguments,
    convolutions,
    gb,
    instructions,
    lower,
    matmul_flops,
    one_device_flops,
    pretraining,
    training,
    type_bytes,
)
from ukbob_jax import files
from ukbob_jax.data import augment
from ukbob_jax.training import sharding

# As in configs/common.py: the augmentations of the paper's training.
AUGMENT = ("gamma", "intensity", "noise", "bias_field")

HOP_S = 1e-6  # latency of one link, jax-ml.github.io/scaling-book, "How to Think About TPUs"
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Chip(NamedTuple):
    """Published figures of one chip, cloud.google.com/tpu/docs/v5e, /v5p, /v6e and /tpu7x."""

    accelerator: str  # prefix of the accelerator type
    numbers_per_chip: int  # by which the accelerator type counts
    flops: float  # per second, bfloat16
    memory: float  # bytes
    memory_rate: float  # bytes per second
    link_rate: float  # bytes per second that one link sends: the chip's figure for one direction / links
    axes: int  # of the full torus, two links each
    full: int  # a side that is a multiple of this closes into a ring
    devices: int = 1  # of JAX per chip, which share its figures

    def of_device(self) -> "Chip":
        """The share of one of JAX's devices; links are those of the chip, and each device sends at half their rate."""
        share = {
            name: getattr(self, name) / self.devices
            for name in ("flops", "memory", "memory_rate", "link_rate")
        }
        return self._replace(**share)


CHIPS = {
    "v5e": Chip("v5litepod", 1, 197e12, 16e9, 819e9, 1600e9 / 8 / 4, 2, 16),
    "v5p": Chip("v5p", 2, 459e12, 95 * 2**30, 2765e9, 4800e9 / 8 / 6, 3, 4),
    "v6e": Chip("v6e", 1, 918e12, 32e9, 1638e9, 800e9 / 2 / 4, 2, 16),
    "tpu7x": Chip("tpu7x", 2, 2307e12, 192 * 2**30, 7380e9, 1200e9 / 2 / 6, 3, 4, devices=2),
}


class Collective(NamedTuple):
    """One exchange in the compiled program."""

    kind: str
    bytes: int  # of the whole array: summed, gathered, or scattered
    sent: float  # bytes that each chip sends, in a ring
    group: int  # devices that exchange
    times: int  # per step
    beside: bool = False  # goes on while other kernels run


def topology(name: str) -> tuple[Chip, tuple[int, ...], list[jax.Device]]:
    """The chip, the sides and the devices of a slice such as `v5e:16x16`."""
    family, _, size = name.partition(":")
    sides = tuple(int(side) for side in size.split("x"))
    chip = CHIPS[family]
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # ask no metadata server: there is no TPU
    os.environ["TPU_ACCELERATOR_TYPE"] = f"{chip.accelerator}-{math.prod(sides) * chip.numbers_per_chip}"
    os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # the lock is for those who hold chips
    return chip.of_device(), sides, topologies.get_topology_desc(platform="tpu", topology_name=name).devices


def collectives(hlo: str, devices: int) -> list[Collective]:
    """The exchanges of an optimized program; an asynchronous pair counts once, a loop's as often as it turns.

    One that goes on beside other work is written in each of several kernels, with one channel and shape: it counts once.
    """
    types, found, calls = {}, {}, []
    for one in instructions(hlo):
        types[one.name] = one.type
        trips = re.search(r'known_trip_count":\{"n":"(\d+)"', one.rest) if one.op == "while" else None
        for called in re.findall(r"(?:calls|body|to_apply|computations?)=\{?%?([\w.-]+)", one.rest):
            calls.append((one.where, called, int(trips[1]) if trips else 1))
        if one.op.removesuffix("-start") in KINDS:
            channel = re.search(r"channel_id=(\d+)", one.rest)
            same = (one.op, channel[1], re.sub(r"\{.*?\}", "", one.type)) if channel else one.name
            found.setdefault(same, []).append((one, [types[operand] for operand in one.operands]))
    times = collections.defaultdict(int, {ENTRY: 1})
    for caller, called, trips in reversed(calls):
        times[called] += times[caller] * trips
    return [
        _collective(*same[0], devices, times[same[0][0].where], beside=len(same) > 1)
        for same in found.values()
    ]


def traffic(hlo: str) -> int:
    """Bytes that an optimized program moves through a chip's main memory, if no instruction reads anything twice.

    Arrays that the compiler keeps in another memory, `S(1)` and up, cost nothing, copies between the two their size.
    """
    types, total = {}, 0
    for one in instructions(hlo):
        types[one.name] = one.type
        if one.where != ENTRY or one.op in STILL or one.op.endswith("-start"):
            continue
        if one.op.endswith("-done"):
            total += type_bytes(one.type)
        else:
            total += sum(
                type_bytes(types[name], main_memory=True) for name in dict.fromkeys((one.name, *one.operands))
            )
    return total


def _collective(one: Instruction, operands: list[str], devices: int, times: int, beside: bool) -> Collective:
    kind = one.op.removesuffix("-start")
    beside |= kind != one.op
    if one.where.startswith("all-reduce-scatter"):  # a kernel that sums and keeps its share
        kind = "reduce-scatter"
    size, n = sum(type_bytes(operand) for operand in operands), _group(one.rest, devices)
    if kind == "all-gather":
        return Collective(kind, size * n, size * (n - 1), n, times, beside)
    share = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1}.get(kind, (n - 1) / n)
    return Collective(kind, size, size * share, n, times, beside)


def _group(rest: str, devices: int) -> int:
    """Size of the replica groups, in any of the three forms XLA writes."""
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):  # {{0,1},{2,3}}
        return listed[1].count(",") + 1
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):  # [2,2]<=[4]
        return int(counted[1])
    if named := re.search(r"replica_groups=mesh\[(.*?)\].*? \{(.*?)\}", rest):  # mesh['a'=2,'b'=2] {'a'}
        sides = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sides[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    return devices


def report(args: argparse.Namespace) -> dict[str, Any]:
    """Compiles; everything that is printed, as JSON values. Bytes and FLOPs are per chip and step."""
    chip, sides, devices = topology(args.topology)
    data = len(devices) // (args.fsdp * args.space) if args.data == -1 else args.data
    batch_size = args.batch_per_device * data * args.fsdp
    mesh = sharding.make_mesh(
        data=data, fsdp=args.fsdp, space=args.space, batch_size=batch_size, devices=devices
    )
    if args.method:
        work = pretraining(args, args.method, tuple(args.size) if args.size else None)
    else:
        work = training(args, augment.compose(*AUGMENT))
    lowered, state = lower(work, mesh, batch_size)
    text = lowered.as_text()
    start = time.perf_counter()
    compiled = lowered.compile(compiler_options=dict(option.split("=", 1) for option in args.xla))
    seconds = time.perf_counter() - start
    cost, stats = compiled.cost_analysis(), compiled.memory_analysis()
    program = compiled.as_text()
    exchanges = collectives(program, mesh.size)
    placed = jax.tree.leaves(
        jax.tree.map(_shard_bytes, state.params, sharding.state_sharding(state.params, mesh))
    )
    leaves = jax.tree.leaves(state.params)
    memory = {
        "arguments": stats.argument_size_in_bytes,
        "results that are not arguments": stats.output_size_in_bytes - stats.alias_size_in_bytes,
        "temporary": stats.temp_size_in_bytes,
        "program": stats.generated_code_size_in_bytes,
    }
    expected = matmul_flops(text) / mesh.size
    alone = one_device_flops(work, args.batch_per_device) / args.space
    return {
        "settings": vars(args),
        "versions": {
            "jax": jax.__version__,
            "libtpu": importlib.metadata.version("libtpu"),
            "chip": devices[0].device_kind,
        },
        "mesh": dict(mesh.shape),
        "batch_size": batch_size,
        "compile_s": round(seconds, 1),
        "convolutions_by_spatial_axes": dict(convolutions(text)),
        "parameters": sum(leaf.size for leaf in leaves),
        "parameter_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
        "parameter_bytes_here": sum(placed),
        "memory": memory,
        "memory_share": sum(memory.values()) / chip.memory,
        "flops": cost["flops"],
        "matmul_flops_of_all": expected * mesh.size,
        "flops_over_share": cost["flops"] / expected,
        "one_device_flops": alone,
        "flops_over_one_device": cost["flops"] / alone,
        "collectives": by_kind(exchanges),
        "prediction": predict(chip, sides, mesh.size, cost["flops"], traffic(program), exchanges),
    }


def _shard_bytes(leaf: jax.ShapeDtypeStruct, placed: jax.sharding.NamedSharding) -> int:
    return math.prod(placed.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def by_kind(exchanges: list[Collective]) -> dict[str, dict[str, float]]:
    """Sums per kind: `number`, `bytes`, `sent`, per step."""
    sums = {}
    for one in exchanges:
        row = sums.setdefault(one.kind, {"number": 0, "bytes": 0, "sent": 0})
        row["number"] += one.times
        row["bytes"] += one.times * one.bytes
        row["sent"] += one.times * one.sent
    return sums


def predict(
    chip: Chip,
    sides: tuple[int, ...],
    devices: int,
    flops: float,
    moved: float,
    exchanges: list[Collective],
) -> dict[str, float]:
    """Share of its speed alone that a chip keeps in the slice; seconds are per step.

    A side that closes into a ring has two links per chip, another one. An exchange of all devices uses all links, one
    of some of them a single link. Its latency is a message there and back along every side, or along the group.
    """
    links = sum(2 if side % chip.full == 0 else 1 for side in sides if side > 1)
    rate, hops = chip.link_rate * links, sum(side - 1 for side in sides)

    def seconds(one: Collective) -> float:
        sending = one.sent / (rate if one.group == devices else chip.link_rate)
        return one.times * (sending + 2 * min(one.group - 1, hops) * HOP_S)

    exchange = sum(seconds(one) for one in exchanges)
    beside = sum(seconds(one) for one in exchanges if one.beside)
    compute, memory = flops / chip.flops, moved / chip.memory_rate
    alone = max(compute, memory)
    return {
        "link_bytes_per_s": rate,
        "compute_s": compute,
        "memory_s": memory,
        "exchange_s": exchange,
        "beside_s": beside,
        "efficiency_at_peak": compute / (compute + exchange),
        "efficiency_at_roofline": alone / (alone + exchange),
        "efficiency_overlapped": alone / (alone + exchange - beside),
    }


def show(found: dict[str, Any]) -> str:
    """The report as text, with the arithmetic."""
    chip = CHIPS[found["settings"]["topology"].partition(":")[0]].of_device()
    guess = found["prediction"]
    theory = 2 * found["parameter_bytes"]
    lines = [
        f"{found['settings']['topology']}, mesh {found['mesh']}, global batch {found['batch_size']}, "
        f"compiled in {found['compile_s']} s, {found['versions']}",
        f"parameters      {found['parameters']:,}: {gb(found['parameter_bytes'])}, "
        f"{gb(found['parameter_bytes_here'])} on a chip",
        *(f"memory          {gb(size)} {name}" for name, size in found["memory"].items()),
        f"memory in all   {found['memory_share']:.0%} of {gb(chip.memory)}",
        f"FLOPs           {found['flops'] / 1e12:.3f} T; products and convolutions of the whole step / devices: "
        f"{found['matmul_flops_of_all'] / 1e12 / math.prod(found['mesh'].values()):.3f} T "
        f"(ratio {found['flops_over_share']:.3f})",
        f"                with the arithmetic of each element, of the step on one device / devices: "
        f"{found['one_device_flops'] / 1e12:.3f} T (ratio {found['flops_over_one_device']:.3f})",
        *(
            f"collectives     {row['number']} {kind} of {gb(row['bytes'])}, {gb(row['sent'])} sent"
            for kind, row in found["collectives"].items()
        ),
        f"in theory       2 x parameter bytes = {gb(theory)} in float32, {gb(theory / 2)} in bfloat16",
        f"compute         {found['flops'] / 1e12:.3f} T / {chip.flops / 1e12:.0f} T/s = {_ms(guess['compute_s'])}",
        f"main memory     {gb(guess['memory_s'] * chip.memory_rate)} / {gb(chip.memory_rate)}/s = "
        f"{_ms(guess['memory_s'])}",
        f"exchange        {_ms(guess['exchange_s'])}: latency, and bytes sent at {gb(guess['link_bytes_per_s'])}/s "
        f"among all chips, {gb(chip.link_rate)}/s among some; {_ms(guess['beside_s'])} of it beside other kernels",
        f"efficiency      {guess['efficiency_at_peak']:.3f} if all arithmetic ran at its peak, "
        f"{guess['efficiency_at_roofline']:.3f} if at the roofline (the longer of the two), nothing overlapped; "
        f"{guess['efficiency_overlapped']:.3f} with what goes on beside other kernels for nothing",
    ]
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument(
        "--topology", default="v5e:2x2", help="such as v5e:16x16, v5p:2x2x1, v6e:2x2 or tpu7x:2x2x1"
    )
    parser.add_argument("--data", type=int, default=-1, help="devices along `data`; -1: all that are left")
    parser.add_argument("--fsdp", type=int, default=1, help="devices along `fsdp`")
    parser.add_argument(
        "--method", choices=tuple(pretrain.VARIANTS), help="a pre-training; default: training on labels"
    )
    parser.add_argument("--size", type=int, nargs=3, help="voxels x y z of its images; default: the recipe's")
    parser.add_argument("--space", type=int, default=1, help="devices that share each case")
    parser.add_argument(
        "--batch_per_device", type=int, default=1, help="samples per device, or per `space` devices"
    )
    args = parser.parse_args(argv)
    if not re.fullmatch(rf"({'|'.join(CHIPS)}):\d+(x\d+)+", args.topology):
        parser.error(f"--topology: {args.topology!r} is not like v5e:2x2; chips: {', '.join(CHIPS)}.")
    return args


def main() -> None:
    args = parse()
    jax.config.update("jax_platforms", "cpu")  # arrays of the host; the slice is only compiled for
    if importlib.util.find_spec("libtpu") is None:
        sys.exit("The compiler for TPUs is not installed: pip install libtpu")
    try:
        found = report(args)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) or "hbm" not in str(error).lower():
            raise
        reason = str(error).strip().splitlines()[0]
        sys.exit(f"The step does not fit a chip ({reason}). Try --remat, more --fsdp or a smaller batch.")
    print(show(found))
    if args.out:
        files.write_json(args.out, found)


if __name__ == "__main__":
    main()
