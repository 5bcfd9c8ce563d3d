"""From a store to batches on the host: an endless stream whose order is a pure function of (seed, step)."""

import signal
from collections.abc import Generator, Sequence

import grain
import numpy as np
from absl import flags

from ukbob_jax.data import transforms
from ukbob_jax.data.options import READING, Crops, Labels, Reading
from ukbob_jax.data.source import Epochs, ScanSource
from ukbob_jax.data.unpack import unpack
from ukbob_jax.errors import ConfigError
from ukbob_jax.store.reader import Store
from ukbob_jax.store.schema import ANATOMY
from ukbob_jax.volumes import intensity

CACHE_OVERHEAD = 1.1  # of TensorStore's cache: padding of the last chunks, and what describes each
Batch = dict[str, np.ndarray]


def batches(
    store: Store,
    subjects: Sequence[str],
    *,
    crops: Crops,
    labels: Labels | None,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    contrasts: Sequence[str] | None = None,
    normalize: str = "zscore",
    masks: bool = False,
    reading: Reading = READING,
) -> Generator[Batch]:
    """Yield endless training batches, from `start_step` on.

    The batch of a step is the same whatever the number of threads, workers and processes: of `reading.processes`, this
    one gets its consecutive share of the rows. So the step alone is the state to save. Every epoch reshuffles the
    subjects and visits each once. Call `close()` on the iterator when done: it stops threads and workers.

    Args:
        store: to read from.
        subjects: ids in `store`.
        crops: where crops lie, and how many of each sample.
        labels: what is learnt of which label set; None: images only.
        batch_size: samples per step over all processes; a batch has `crops.views` rows of each.
        seed: of the order of subjects and the places of crops.
        start_step: of the first batch.
        contrasts: names to feed, in order; None: those of the first subject.
        normalize: as `intensity.normalize`.
        masks: honour the label sets `mask/anatomy` and `mask/anonymisation` of the scans that have them. Without labels,
            crops are centred in the anatomy that was not altered, with the chance `crops.foreground`.
        reading: how this process reads.
    Yields:
        image float32 `b x y z c`, label uint8 `b x y z` (255: ignore) where there are labels, subject int32 `b` (index
        into `subjects`), and, where some subject was annotated for some classes only, annotated bool `b k`;
        with `labels.weights` weights float32 `b k`; with `labels.groups` groups int32 `b`; with `masks` anonymised bool
        `b x y z`, True where voxels were altered and nothing is to be learnt. Packed: what `unpack` takes.
    Raises:
        ConfigError: a setting cannot be used; raised at the call.
        MismatchError: a subject lacks a contrast.
        FileError: while iterating, a damaged array, if `reading.damaged` is "stop"; the message names the subject.
    """
    if batch_size < 1 or batch_size % reading.processes:
        raise ConfigError(
            f"batch_size {batch_size} must be a positive multiple of the {reading.processes} processes."
        )
    if seed < 0 or start_step < 0:
        raise ConfigError(f"seed {seed}, start_step {start_step}: expected whole numbers from 0.")
    intensity.check_method(normalize)
    source = ScanSource(store, subjects, labels, contrasts, masks)
    store = _kept(store, source.decoded_bytes, reading)
    label_set = None if labels is None else labels.set
    centres = label_set or (ANATOMY if masks else None)
    dataset = (
        grain.MapDataset.source(Epochs(source, seed))
        .seed(seed)
        .random_map(transforms.PlaceCrops(store, centres, crops, batch_size))
        .batch(batch_size // reading.processes, drop_remainder=True, batch_fn=transforms.rows_of)
        .map(
            transforms.ReadBatch(
                store, label_set, crops.size, normalize, reading.damaged, source.dtype, masks
            )
        )
    )
    dataset = dataset if reading.packed else dataset.map(unpack)
    first = start_step * reading.processes + reading.process
    return stream(dataset[first :: reading.processes], reading.threads, reading.workers)


def _kept(store: Store, decoded_bytes: int, reading: Reading) -> Store:
    """Return a store that keeps scans decoded, if all of them fit into each reader's memory; else the store as it is."""
    allowed = int(reading.cache_gb * 1e9)
    return store.caching(allowed) if decoded_bytes * CACHE_OVERHEAD <= allowed else store


def ignore_sigterm(index: int, count: int) -> None:
    """Let a SIGTERM to the process group reach the main process only, which saves before it stops."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def stream(dataset: grain.MapDataset, threads: int, workers: int) -> Generator[Batch]:
    """Yield a data set's elements in order, made by threads and by worker processes (0: none) ahead of time."""
    if workers and not flags.FLAGS.is_parsed():  # Grain's workers read absl's flags
        flags.FLAGS.mark_as_parsed()
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(1, threads))
    made = dataset.to_iter_dataset(reading)
    if workers:
        made = made.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers), ignore_sigterm)
    iterator = iter(made)
    try:
        yield from iterator
    finally:
        iterator.close()  # else tracebacks and leaked shared memory at exit
