"""Where the seconds go in which XLA compiles the training step, by the compiler's own account.

    python -m tools.profile_compile                    96 cubed, width 48, 73 classes
    python -m tools.profile_compile --size 64 --width 12

Wall seconds inside each stage; those of threads are sums over the threads that generate machine code, and overlap.
"""

import argparse
import collections
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp

from tools import bench_model
from ukbob_jax import devices

# Events of XLA's trace -> what they are, in the order of the table.
STAGES = {
    "PjRtCpuClient::Compile": "all",
    "HLO passes through layout assignment (jit_step)": "passes over the program, before layouts",
    "HLO passes after layout assignment (jit_step)": "passes over the program, after layouts",
    "ThunkEmitter::EmitEntryComputation": "kernels written out, one after the other",
    "ThunkEmitter::ConsumeKernels": "kernels sorted into modules",
    "Codegen": "machine code, by clock",
    "TaskDispatcher::dispatch": "machine code, over threads",
    "FusionCompiler::Compile": "of it MLIR of fused loops",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=96, help="voxels, every edge")
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--classes", type=int, default=73)
    options = parser.parse_args()
    devices.tune_cpu()
    start = time.perf_counter()
    lowered = lower(bench_model.Case((options.size,) * 3, options.width, options.classes, 1, 1, "float32"))
    print(f"trace and lowering {time.perf_counter() - start:.1f} s")
    seconds, counts = profile(lowered)
    for event, stage in STAGES.items():
        print(f"{seconds[event]:7.1f} s {counts[event]:6d}  {stage}")


def lower(case: bench_model.Case) -> jax.stages.Lowered:
    """The training step of `tools/bench_model.py`, nothing computed."""
    _, step, optimizer = bench_model.our_functions(case)
    image = jax.ShapeDtypeStruct((case.batch, *case.size, case.channels), jnp.float32)
    label = jax.ShapeDtypeStruct((case.batch, *case.size), jnp.uint8)
    params = jax.eval_shape(bench_model.model(case).init, jax.random.key(0), image)["params"]
    state = jax.eval_shape(optimizer.init, params)
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, image, label)


def profile(lowered: jax.stages.Lowered) -> tuple[collections.Counter, collections.Counter]:
    """Seconds and number of every kind of event while `lowered` compiles."""
    options = jax.profiler.ProfileOptions()
    options.host_tracer_level, options.python_tracer_level = 3, 0
    seconds, counts = collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            lowered.compile()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for event in (event for line in plane.lines for event in line.events):
                name = event.name.split("#")[0]
                seconds[name] += event.duration_ns / 1e9
                counts[name] += 1
    return seconds, counts


if __name__ == "__main__":
    main()
