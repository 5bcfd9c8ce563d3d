"""Compiles the real training step for an NVIDIA H100, without having one, and says what it stores, moves and multiplies.

    python -m tools.compile_for_gpu                                            # 96 cubed, width 48, 73 classes, batch 2
    python -m tools.compile_for_gpu --remat --out gpu.json
    python -m tools.compile_for_gpu --xla xla_gpu_force_conv_nhwc=false        # as XLA has it by itself

Wants `pip install 'ukbob-jax[cuda]'` (6 GB) and a minute or two of one core; neither card nor driver. The compiler is
ended once layouts, fusions, types and buffers are decided, before kernels become machine code. Nothing is run: times
are bytes over the published rate. cuDNN's workspaces, which only a card can tell, are in no figure. Matrix products are
cuBLAS's: without a card XLA cannot choose between these and its own kernels, and jax 0.10.2 fails to compile some of those.
"""

import argparse
import dataclasses
import math
import multiprocessing
import os
import pathlib
import re
import sys
import tempfile
import time
from typing import Any

import jax
from jax.experimental import topologies

from tools.compiled_step import (
    ENTRY,
    STILL,
    Instruction,
    arguments,
    gb,
    instructions,
    lower,
    matmul_flops,
    training,
    type_bytes,
)
from ukbob_jax import devices, files
from ukbob_jax.training import sharding

FLOPS, MEMORY_RATE = 989e12, 3.35e12  # per second: H100 SXM in bfloat16, nvidia.com/en-us/data-center/h100
# A `stream_executor.GpuTargetConfigProto` with the published figures of an H100 SXM.
TARGET = """
gpu_device_info {
  name: "NVIDIA H100 80GB HBM3" device_vendor: "NVIDIA Corporation" device_address_bits: 64
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_core: 233472 shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  memory_bandwidth: 3350000000000 device_memory_size: 84942979072 l2_cache_size: 52428800
  driver_version: "12.9.0" runtime_version: "12.9.0" dnn_version: "9.8.0"
}
platform_name: "CUDA" device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 8 patch: 0 }
"""
# See above; and no padding of products for cuBLAS, which XLA's own kernels would not have.
WITHOUT_CARD = {"xla_gpu_enable_triton_gemm": False, "xla_disable_hlo_passes": "cublas-pad-for-gemms"}
LARGE = 1e6  # bytes from which a map counts
LONG_PRODUCT = 1e9  # FLOPs from which a product does
CHANNELS_MOVED = ((0, 4, 1, 2, 3), (0, 2, 3, 4, 1))  # b x y z c to b c x y z and back
SLICES = ("dynamic-slice", "slice", "gather")
PARTS = (
    "attention scores", "head and loss", "convolutions", "norms and leaky ReLU", "GELU", "concatenation, upsampling",
    "1 x 1 convolution", "optimizer and finite guard", "rest",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Step:
    """What tells the parts of the step apart.

    Attributes:
        voxels: of the whole batch.
        classes: of the head.
        tokens: per window, of every stage.
    """

    voxels: int
    classes: int
    tokens: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """An instruction that is run, with what is computed inside it.

    Attributes:
        one: the instruction.
        inside: of its fusion; empty for others.
        operands: types.
        times: per step.
        moved: bytes per run: each operand as far as it is read, and each result, once.
    """

    one: Instruction
    inside: tuple[Instruction, ...]
    operands: tuple[str, ...]
    times: int
    moved: int

    @property
    def path(self) -> str:
        """Where in the model it comes from, as JAX names it."""
        found = re.search(r'op_name="([^"]*)"', self.one.rest)
        return found[1] if found else ""

    @property
    def target(self) -> str:
        """Of a custom call, such as `__cudnn$convForward`; "" for others."""
        found = re.search(r'custom_call_target="([^"]*)"', self.one.rest)
        return found[1] if found else ""


def kernels(hlo: str) -> list[Kernel]:
    """Everything that an optimized program runs; what is in a loop once, with the number of its turns."""
    where: dict[str, list[Instruction]] = {}
    for one in instructions(hlo):
        where.setdefault(one.where, []).append(one)
    found = []

    def run(name: str, times: int) -> None:
        types = {one.name: one.type for one in where[name]}
        for one in where[name]:
            called = re.findall(r"(?:calls|body|to_apply|computations?)=\{?%?([\w.-]+)", one.rest)
            if one.op in ("while", "call", "conditional"):
                trips = re.search(r'known_trip_count":\{"n":"(\d+)"', one.rest)
                for each in called:
                    run(each, times * (int(trips[1]) if trips else 1))
            elif one.op not in STILL and not one.op.endswith("-start"):
                inside = tuple(where[called[0]]) if one.op == "fusion" else ()
                operands = tuple(types[operand] for operand in one.operands)
                found.append(Kernel(one, inside, operands, times, moved(one, operands, inside)))

    run(ENTRY, 1)
    return found


def moved(one: Instruction, operands: tuple[str, ...], inside: tuple[Instruction, ...] = ()) -> int:
    """Bytes that an instruction reads and writes; of an array that it only cuts from or writes into, the cut."""
    if not inside:
        named = [f"p{i}" for i in range(len(operands))]
        inside = (
            *(Instruction("", name, kind, "parameter", [], f"{i})") for i, (name, kind) in enumerate(zip(named, operands))),
            one._replace(name="result", operands=named),
        )  # fmt: skip
    by_name = {each.name: each for each in inside}
    users: dict[str, list[Instruction]] = {each.name: [] for each in inside}
    for each in inside:
        for operand in dict.fromkeys(each.operands):
            users[operand].append(each)

    def read(each: Instruction) -> int:
        total = 0
        for user in users[each.name]:
            if user.op == "bitcast":
                total += read(user)
            elif user.op in SLICES and user.operands[0] == each.name:
                total += type_bytes(user.type)
            elif not (user.op == "dynamic-update-slice" and user.operands[0] == each.name):
                return type_bytes(each.type)
        return min(total, type_bytes(each.type))

    def written(each: Instruction) -> int:
        if each.op == "bitcast" and each.operands[0] in by_name:
            return written(by_name[each.operands[0]])
        if each.op == "tuple":
            return sum(written(by_name[operand]) for operand in dict.fromkeys(each.operands))
        if each.op == "dynamic-update-slice":
            return type_bytes(by_name[each.operands[1]].type)
        if each.op == "custom-call":  # the last result of a library's call is its workspace
            return type_bytes(re.sub(r", [su]8\[\d+\]\{0\}\)$", ")", each.type))
        return type_bytes(each.type)

    return sum(read(each) for each in inside if each.op == "parameter") + written(inside[-1])


def part_of(kernel: Kernel, step: Step) -> str:
    """Which of `PARTS` a kernel belongs to."""
    shapes = [
        _sizes(kind) for kind in (*kernel.operands, kernel.one.type, *(each.type for each in kernel.inside))
    ]
    arrays = [sizes for shape in shapes for sizes in shape]
    path = kernel.path
    if any(sizes[-2:] == [t, t] for sizes in arrays for t in step.tokens) or "window_attention" in path:
        return "attention scores"
    if "/head/" in path or any(
        step.classes in sizes and math.prod(sizes) == step.voxels * step.classes for sizes in arrays
    ):
        return "head and loss"
    if kernel.target.startswith("__cudnn$conv"):
        return "convolutions"
    rules = (
        (r"/(norm\d|jit\(leaky_relu\))", "norms and leaky ReLU"),
        (r"/conv3/", "1 x 1 convolution"),
        (r"/(upsample|concatenate)", "concatenation, upsampling"),
    )
    if re.search(r"/(en|de)coder\d", path):
        return next((name for pattern, name in rules if re.search(pattern, path)), "rest")
    if "/mlp/" in path and not kernel.target:
        return "GELU"
    return "rest" if "SwinUNETR" in path else "optimizer and finite guard"


def relayouts(kernel: Kernel) -> list[int]:
    """Bytes of each large map whose channels a kernel moves from the last axis to the second or back."""
    found = []
    for each in kernel.inside or (kernel.one,):
        axes = re.search(r"dimensions=\{([\d,]*)\}", each.rest) if each.op == "transpose" else None
        if axes and tuple(map(int, axes[1].split(","))) in CHANNELS_MOVED and type_bytes(each.type) > LARGE:
            found.append(type_bytes(each.type))
    return found


def float32_products(hlo: str) -> list[tuple[float, str]]:
    """(FLOPs, line) of each product with a float32 operand that takes more than `LONG_PRODUCT`."""
    types = {}
    found = []
    for one in instructions(hlo):
        types[one.where, one.name] = one.type
        gemm = "__cublas$" in one.rest
        if one.op != "dot" and not gemm:
            continue
        left, right = (types[one.where, name] for name in one.operands[:2])
        axes = re.search(r'lhs_contracting_(?:dims=\{|dimensions":\[)([\d,"]*)', one.rest)
        summed = math.prod(_sizes(left)[0][int(axis)] for axis in axes[1].replace('"', "").split(","))
        flops = 2.0 * math.prod(_sizes(one.type)[0]) * summed
        if flops > LONG_PRODUCT and "f32" in (left[:3], right[:3]):
            found.append((flops, f"{left} x {right} -> {one.type}"))
    return found


def _sizes(kind: str) -> list[list[int]]:
    """Of each array of an HLO type."""
    return [[int(n) for n in sizes.split(",") if n] for sizes in re.findall(r"\b[a-z]+\d*\[([\d,]*)\]", kind)]


def alive_at_peak(live_range: str, count: int = 20) -> list[tuple[int, str]]:
    """(bytes, instruction) of the largest buffers at the peak, of XLA's dump of live ranges."""
    peak = live_range.partition("(peak):")[2]
    rows = re.findall(r"^    ([\w.-]+)\{[\d,]*\}: (\d+) bytes", peak, re.MULTILINE)
    return sorted(((int(size), name) for name, size in rows), reverse=True)[:count]


def _compile(args: argparse.Namespace, folder: str) -> None:
    """(A process of its own) lower, then compile until it is ended; leaves `stablehlo.txt` and XLA's dumps in the folder."""
    jax.config.update("jax_platforms", "cpu")
    found = topologies.get_topology_desc(platform="cuda", target_config=TARGET, topology="1x1x1").devices
    mesh = sharding.make_mesh(batch_size=args.batch, devices=found)
    lowered, _ = lower(training(args, None), mesh, args.batch)
    (pathlib.Path(folder) / "stablehlo.txt").write_text(lowered.as_text())
    truth = {"true": True, "false": False}
    options = {
        **WITHOUT_CARD,
        devices.CHANNELS_LAST: True,
        **{name: truth.get(value, value) for name, value in (option.split("=", 1) for option in args.xla)},
        "xla_dump_to": folder,
        "xla_dump_hlo_as_text": True,
        "xla_dump_hlo_module_re": "jit_train_step",
    }
    lowered.compile(compiler_options=options)


def compile_until_scheduled(args: argparse.Namespace, folder: str) -> dict[str, str]:
    """XLA's dumps `optimizations`, `memory-usage-report` and `live-range` of the step, and its `stablehlo`.

    Raises:
        RuntimeError: the compiler failed; it has said why.
    """
    names = ("live-range", "memory-usage-report", "optimizations")
    process = multiprocessing.get_context("spawn").Process(target=_compile, args=(args, folder))
    process.start()

    def dumps() -> dict[str, str]:
        paths = {name: [*pathlib.Path(folder).glob(f"*jit_train_step*after_*{name}.txt")] for name in names}
        return {name: max(found, key=os.path.getsize).read_text() for name, found in paths.items() if found}

    try:
        while process.is_alive() and not {*names} <= dumps().keys():
            process.join(0.5)
        if process.is_alive():
            process.join(1.0)  # the last of them may still be being written
    finally:
        process.kill()
        process.join()
    found = dumps()
    if not {*names} <= found.keys():
        raise RuntimeError("the step did not compile.")
    return {**found, "stablehlo": (pathlib.Path(folder) / "stablehlo.txt").read_text()}


def summary(dumps: dict[str, str], step: Step) -> dict[str, Any]:
    """Everything that is printed, of what `compile_until_scheduled` gives, as JSON values. Bytes and FLOPs are per step."""
    program = dumps["optimizations"]
    run = kernels(program)
    bytes_of = dict.fromkeys(PARTS, 0)
    for kernel in run:
        bytes_of[part_of(kernel, step)] += kernel.times * kernel.moved
    total = int(re.search(r"Total bytes: (\d+)", dumps["memory-usage-report"])[1])
    given = sum(
        type_bytes(one.type) for one in instructions(program) if one.where == ENTRY and one.op == "parameter"
    )
    moving = [kernel for kernel in run if relayouts(kernel)]
    convolutions: dict[str, int] = {}
    for kernel in run:
        if kernel.target.startswith("__cudnn$conv"):
            types = " x ".join(operand.partition("[")[0] for operand in kernel.operands[:2])
            name = f"{kernel.target.removeprefix('__cudnn$conv')} {types}"
            convolutions[name] = convolutions.get(name, 0) + kernel.times
    copies = [kernel for kernel in run if kernel.one.op in ("copy", "transpose", "copy-done")]
    types = {one.name: one.type for one in instructions(program) if one.where == ENTRY}
    return {
        "memory": {"arguments": given, "temporary": total - given},
        "matmul_flops": matmul_flops(dumps["stablehlo"]),
        "bytes": sum(bytes_of.values()),
        "bytes_by_part": bytes_of,
        "kernels": sum(kernel.times for kernel in run),
        "cudnn_convolutions": convolutions,
        "other_convolutions": len(re.findall(r" convolution\(", program)),
        "relayouts": {
            "kernels": len(moving),
            "maps": sum(sum(relayouts(kernel)) for kernel in moving),
            "bytes": sum(kernel.times * kernel.moved for kernel in moving),
        },
        "copies": {"kernels": len(copies), "bytes": sum(kernel.times * kernel.moved for kernel in copies)},
        "float32_products": [{"flops": flops, "types": types} for flops, types in float32_products(program)],
        "alive_at_peak": [
            {"bytes": size, "type": types.get(name, "inside a loop"), "name": name}
            for size, name in alive_at_peak(dumps["live-range"])
        ],
    }


def report(args: argparse.Namespace) -> dict[str, Any]:
    """Compiles; `summary` with the settings."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        dumps = compile_until_scheduled(args, folder)
    seconds = time.perf_counter() - start
    stages = [args.crop // 2 ** (i + 1) for i in range(4)]
    step = Step(args.batch * args.crop**3, args.classes, tuple(min(7, size) ** 3 for size in stages))
    return {
        "settings": vars(args),
        "versions": {"jax": jax.__version__, "target": "H100 SXM"},
        "compile_s": round(seconds, 1),
        **summary(dumps, step),
    }


def show(found: dict[str, Any]) -> str:
    """The report as text."""
    memory, flops, moved_bytes = found["memory"], found["matmul_flops"], found["bytes"]
    calls = ", ".join(f"{count} {name}" for name, count in found["cudnn_convolutions"].items())
    relaid = found["relayouts"]
    lines = [
        f"H100 SXM, compiled only, nothing has run; {found['compile_s']} s, {found['versions']}",
        f"memory          {gb(memory['arguments'])} arguments + {gb(memory['temporary'])} temporary "
        f"= {gb(sum(memory.values()))}, cuDNN's workspaces not in it",
        f"arithmetic      {flops / 1e12:.3f} T in products and convolutions (before recomputation) / "
        f"{FLOPS / 1e12:.0f} T/s = {1e3 * flops / FLOPS:.1f} ms",
        f"bytes moved     {gb(moved_bytes)} / {gb(MEMORY_RATE)}/s = {1e3 * moved_bytes / MEMORY_RATE:.1f} ms",
        *(f"                {gb(size)} {name}" for name, size in found["bytes_by_part"].items()),
        f"kernels         {found['kernels']:,}",
        f"convolutions    cuDNN's: {calls}; {found['other_convolutions']} others",
        f"relayouts       {relaid['kernels']} kernels turn maps of {gb(relaid['maps'])}; they move {gb(relaid['bytes'])}",
        f"copies          {found['copies']['kernels']}, {gb(found['copies']['bytes'])}",
        f"float32         {len(found['float32_products'])} products above 1 GFLOP",
        *(f"                {one['flops'] / 1e9:.1f} G {one['types']}" for one in found["float32_products"]),
        "alive at peak",
        *(f"                {gb(one['bytes'])} {one['type']}" for one in found["alive_at_peak"]),
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=2, help="cases")
    args = parser.parse_args(argv)
    if not devices.has_cuda_plugin():
        sys.exit("The compiler for GPUs is not installed: pip install 'ukbob-jax[cuda]'")
    try:
        found = report(args)
    except RuntimeError as error:
        sys.exit(f"compile_for_gpu: {error}")
    print(show(found))
    if args.out:
        files.write_json(args.out, found)


if __name__ == "__main__":
    main()
