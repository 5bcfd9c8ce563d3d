"""From a store to batches on the host: an endless stream whose order is a pure function of (seed, step)."""

import signal
from collections.abc import Iterator, Mapping, Sequence

import grain
import numpy as np
from absl import flags

from ukbob_jax.data import transforms
from ukbob_jax.data.source import Epochs, ScanSource
from ukbob_jax.data.unpack import unpack
from ukbob_jax.errors import ConfigError
from ukbob_jax.store.reader import Store
from ukbob_jax.volumes import intensity

Batch = dict[str, np.ndarray]


def batches(
    store: Store,
    *,
    subjects: Sequence[str],
    label: str,
    crop: tuple[int, int, int],
    batch_size: int,
    seed: int,
    start_step: int = 0,
    foreground: float = 0.67,
    normalize: str = "zscore",
    contrasts: Sequence[str] | None = None,
    flagged: Mapping[str, set[int]] | None = None,
    flagged_action: str = "ignore",
    label_map: np.ndarray | None = None,
    num_classes: int = 73,
    process: int = 0,
    processes: int = 1,
    threads: int = 16,
    workers: int = 0,
    packed: bool = False,
    damaged: str = "stop",
) -> Iterator[Batch]:
    """Endless training batches, from `start_step` on.

    The batch of a step is the same whatever the number of threads, workers and processes: of `processes`, this one
    gets its consecutive share of the rows. So the step alone is the state to save. Every epoch reshuffles the
    subjects and visits each once. Call `close()` on the iterator when done: it stops threads and workers.

    Args:
        subjects: ids in `store`.
        label: label set to learn.
        crop: voxels, x y z.
        batch_size: crops per step over all processes.
        foreground: share of crops centred on a voxel of a class, classes drawn equally.
        normalize: as `intensity.normalize`.
        contrasts: names to feed, in order; None: those of the first subject.
        flagged: organs by subject whose labels SOLF rejects, as stored ids.
        flagged_action: what becomes of them: "ignore" (255), "drop" (the subject) or "background" (0).
        label_map: uint8[256], stored id -> id of training.
        num_classes: length of `annotated`.
        threads: batches are read by so many threads; as many are held ready.
        workers: reader processes beside, for machines whose one process cannot keep up; 0: none.
        packed: leave the voxels as stored, for `unpack.unpack` to finish on the device: a third of the work here.
        damaged: "stop", or "skip": warn of subjects with crops that cannot be read, and ignore every voxel of those.
    Yields:
        image float32 `b x y z c`, label uint8 `b x y z` (255: ignore), subject int32 `b` (index into `subjects`), and,
        where some subject was annotated for some classes only, annotated bool `b k`. Packed: what `unpack` takes.
    Raises:
        ConfigError: a setting cannot be used; told at the call.
        MismatchError: a subject lacks a contrast.
        FileError: while iterating, a damaged array, if `damaged` is "stop"; the message names the subject.
    """
    if batch_size < 1 or batch_size % processes or not 0 <= process < processes:
        raise ConfigError(
            f"batch_size {batch_size} must be a positive multiple of the {processes} processes."
        )
    if seed < 0 or start_step < 0:
        raise ConfigError(f"seed {seed}, start_step {start_step}: expected whole numbers from 0.")
    if len(crop) != 3 or min(crop) < 1:
        raise ConfigError(f"crop {tuple(crop)}: expected three positive numbers of voxels.")
    if damaged not in ("stop", "skip"):
        raise ConfigError(f"damaged={damaged!r}: expected stop or skip.")
    intensity.check_method(normalize)
    source = ScanSource(
        store, subjects, label, contrasts=contrasts, flagged=flagged, flagged_action=flagged_action,
        label_map=label_map, num_classes=num_classes,
    )  # fmt: skip
    dataset = (
        grain.MapDataset.source(Epochs(source, seed))
        .seed(seed)
        .random_map(transforms.PlaceCrop(store, label, tuple(crop), foreground))
        .batch(batch_size // processes, drop_remainder=True, batch_fn=list)
        .map(transforms.ReadBatch(store, label, tuple(crop), normalize, damaged))
    )
    dataset = dataset if packed else dataset.map(unpack)
    return _stream(dataset[start_step * processes + process :: processes], threads, workers)


def ignore_sigterm(index: int, count: int) -> None:
    """Let a SIGTERM to the process group reach the main process only, which saves before it stops."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _stream(dataset: grain.MapDataset, threads: int, workers: int) -> Iterator[Batch]:
    if workers and not flags.FLAGS.is_parsed():  # Grain's workers read absl's flags
        flags.FLAGS.mark_as_parsed()
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(1, threads))
    stream = dataset.to_iter_dataset(reading)
    if workers:
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers), ignore_sigterm)
    iterator = iter(stream)
    try:
        yield from iterator
    finally:
        iterator.close()  # else tracebacks and leaked shared memory at exit
