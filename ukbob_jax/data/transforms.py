"""The steps from subjects to one batch, on the host: they move bytes, `unpack` does the arithmetic."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.data.source import Scan
from ukbob_jax.errors import FileError
from ukbob_jax.store.reader import Store
from ukbob_jax.volumes import intensity

Triple = tuple[int, int, int]


class Place(NamedTuple):
    """Where a crop lies: `start` and `size` in voxels, x y z; `size` is less than the crop in small volumes."""

    scan: Scan
    start: np.ndarray
    size: np.ndarray


class PlaceCrop(grain.transforms.RandomMap):
    """Choose where a crop lies: around a voxel of a class drawn at random, or anywhere.

    A class is drawn first and a voxel of it second, so that a small gland is met as often as the liver. The crop is
    moved to lie inside the volume; along an axis shorter than the crop it takes all of it.
    """

    def __init__(self, store: Store, label: str, crop: Triple, foreground: float) -> None:
        """`foreground`: share of the crops that are centred on a class."""
        self.store, self.label, self.crop, self.foreground = store, label, crop, foreground

    def random_map(self, scan: Scan, rng: np.random.Generator) -> Place:
        """Scan -> where its crop lies."""
        size = np.minimum(self.crop, scan.shape)
        start = rng.integers(0, np.array(scan.shape) - size + 1)
        if scan.classes and rng.random() < self.foreground:
            stored_ids = scan.classes[sorted(scan.classes)[rng.integers(len(scan.classes))]]
            voxels = self.store.sample(scan.subject, self.label, stored_ids[rng.integers(len(stored_ids))])
            centre = voxels[rng.integers(len(voxels))]
            start = np.clip(centre - size // 2, 0, np.array(scan.shape) - size)
        return Place(scan, start, size)


class ReadBatch(grain.transforms.Map):
    """Read the crops of a batch side by side, each into its row, as they are stored."""

    def __init__(self, store: Store, label: str, crop: Triple, normalize: str, damaged: str = "stop") -> None:
        """`damaged`: "stop" raises what a crop that cannot be read raises; "skip" warns, and ignores all its voxels."""
        self.store, self.label, self.crop, self.normalize = store, label, crop, normalize
        self.damaged = damaged
        self._warned: set[str] = set()

    def map(self, places: Sequence[Place]) -> dict[str, np.ndarray]:
        """Places -> a packed batch, as `unpack.unpack` describes it."""
        scans = [place.scan for place in places]
        padded = any((place.size < self.crop).any() for place in places)
        new = np.zeros if padded else np.empty  # zeros take a tenth of the time that reading does
        stored = new((len(places), len(scans[0].channels), *self.crop), np.int16)
        label = new((len(places), *self.crop), np.uint8)
        waits, lost = [], set()  # (row, wait); rows that cannot be read
        for row, (scan, start, size) in enumerate(places):
            before = (np.array(self.crop) - size) // 2
            inside = (row, *(slice(low, low + n) for low, n in zip(before, size)))
            every = len(self.store.rows[scan.subject].contrasts)
            channels = () if scan.channels == tuple(range(every)) else scan.channels
            image = np.moveaxis(stored, 1, -1)  # b x y z c
            for name, out, which in (("image", image, channels), (f"label/{self.label}", label, ())):
                with self._tolerant(scan.subject, row, lost):
                    waits.append((row, self.store.fetch(scan.subject, name, start, out[inside], which)))
        mappings = [stored_mapping(scan, self.normalize) for scan in scans]
        batch = {
            "stored": stored,
            "label": label,
            "subject": np.array([scan.index for scan in scans], np.int32),
            "size": np.array([place.size for place in places], np.int32),
            "offset": np.array([mapping.offset for mapping in mappings], np.float32),
            "scale": np.array([mapping.scale for mapping in mappings], np.float32),
            "range": np.array([(mapping.low, mapping.high) for mapping in mappings], np.float32),
            "lookup": np.array([scan.lookup for scan in scans]),
        }
        if scans[0].annotated is not None:
            batch["annotated"] = np.array([scan.annotated for scan in scans])
        for row, wait in waits:
            with self._tolerant(scans[row].subject, row, lost):
                wait()
        for row in lost:
            stored[row], label[row] = 0, IGNORE
        return batch

    @contextlib.contextmanager
    def _tolerant(self, subject: str, row: int, lost: set[int]) -> Iterator[None]:
        """Turn the error of a crop that cannot be read into a warning, one per subject, if so asked."""
        try:
            yield
        except FileError as error:
            if self.damaged == "stop":
                raise
            lost.add(row)
            if subject not in self._warned:
                self._warned.add(subject)
                warnings.warn(f"{error} Such crops are ignored.", stacklevel=2)


def stored_mapping(scan: Scan, method: str) -> intensity.Mapping:
    """The normalisation of a scan's intensities as one of the numbers that are stored for them."""
    offset, scale, low, high = intensity.mapping(scan.statistics, method)
    return intensity.Mapping((offset - scan.intercept) / scan.slope, scale / scan.slope, low, high)
