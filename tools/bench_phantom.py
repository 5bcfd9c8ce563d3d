"""Seconds per phantom subject on one core.

python -m tools.bench_phantom [--subjects=8] [--shape=96,96,96 --shape=64,32,128]
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import statistics
import time
from collections.abc import Callable

from absl import app, flags

from ukbob_jax import phantom

_SUBJECTS = flags.DEFINE_integer("subjects", 8, "How many subjects to time.", lower_bound=1)
_SHAPES = flags.DEFINE_multi_string("shape", ["96,96,96", "64,32,128"], "Voxels along x,y,z.")


def _seconds(function: Callable, *arguments: object) -> float:
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def main(_: list[str]) -> None:
    phantom.subject(0, (16, 16, 16))
    for text in _SHAPES.value:
        shape = tuple(int(n) for n in text.split(","))
        seeds = range(_SUBJECTS.value)
        whole = statistics.median(_seconds(phantom.subject, seed, shape) for seed in seeds)
        label = statistics.median(_seconds(phantom.label_map, seed, shape) for seed in seeds)
        clean = phantom.label_map(0, shape)
        errors = statistics.median(_seconds(phantom.label_errors.plant, clean, seed) for seed in seeds)
        print(
            f"{text}: {whole:.3f} s per subject, label map alone {label:.3f} s, planting errors {errors:.3f} s"
        )


if __name__ == "__main__":
    app.run(main)
