"""The steps from subjects to one batch, on the host: they move bytes, `unpack` does the arithmetic."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.data.options import Crops, Size
from ukbob_jax.data.source import SubjectSample
from ukbob_jax.errors import FileError
from ukbob_jax.store.reader import Store
from ukbob_jax.store.schema import ANONYMISATION
from ukbob_jax.volumes import intensity


class Place(NamedTuple):
    """Where a crop lies, in voxels, x y z.

    Attributes:
        sample: the scan.
        start: first voxel of the scan that is in the crop.
        size: voxels of the scan; less than the crop where that reaches beyond the scan.
        before: voxels of the crop before them; None: what is beyond the scan lies evenly on both sides.
    """

    sample: SubjectSample
    start: np.ndarray
    size: np.ndarray
    before: np.ndarray | None = None


class PlaceCrops(grain.transforms.RandomMap):
    """Choose where the crops of a sample lie: around a voxel of a class drawn at random, or anywhere.

    A class is drawn first and a voxel of it second, so that a small gland is met as often as the liver. The crop is
    moved to lie inside the volume; along an axis shorter than the crop it takes all of it. `Crops.sampling` says what
    nnU-Net does otherwise.
    """

    def __init__(self, store: Store, label_set: str | None, crops: Crops, batch_size: int) -> None:
        """Place crops; `batch_size` is the number of samples in a step, over all processes."""
        self.store, self.label_set, self.crops = store, label_set, crops
        self.first_centred = round(batch_size * (1 - crops.foreground))  # of a batch, in nnU-Net's sampling
        self.batch_size = batch_size

    def random_map(self, element: SubjectSample, rng: np.random.Generator) -> list[Place]:  # pyright: ignore
        """Draw the places of the `views` crops of `element`."""
        if self.crops.sampling == "nnunet":
            return [self._overhanging(element, rng)]
        first = self._place(element, rng)
        return [first, *(self._view(first, rng) for _ in range(self.crops.views - 1))]

    def _place(self, sample: SubjectSample, rng: np.random.Generator) -> Place:
        size = np.minimum(self.crops.size, sample.shape)
        start = rng.integers(0, np.array(sample.shape) - size + 1)
        if self.label_set and sample.classes and rng.random() < self.crops.foreground:
            centre = self._centre(sample, self.label_set, rng)
            start = np.clip(centre - size // 2, 0, np.array(sample.shape) - size)
        return Place(sample, start, size)

    def _centre(self, sample: SubjectSample, label_set: str, rng: np.random.Generator) -> np.ndarray:
        """Draw a class of the scan, and a voxel of it."""
        stored_ids = sample.classes[sorted(sample.classes)[rng.integers(len(sample.classes))]]
        stored_id = stored_ids[rng.integers(len(stored_ids))]
        voxels = self.store.sample(sample.subject, label_set, stored_id)
        return voxels[rng.integers(len(voxels))]

    def _overhanging(self, sample: SubjectSample, rng: np.random.Generator) -> Place:
        """Place a crop as nnU-Net's `nnUNetDataLoader.get_bbox`: only the lower ends bound a centred one.

        In a volume shorter than the crop by an odd number of voxels, the odd one is on either side.
        """
        crop, shape = np.array(self.crops.size), np.array(sample.shape)
        missing = np.maximum(crop - shape, 0)
        lowest, highest = -(missing - missing // 2), np.maximum(shape - crop, 0) - missing // 2
        start = rng.integers(lowest, highest + 1)
        if self.label_set and sample.classes and sample.index % self.batch_size >= self.first_centred:
            start = np.maximum(lowest, self._centre(sample, self.label_set, rng) - crop // 2)
        first = np.maximum(start, 0)
        return Place(sample, first, np.minimum(start + crop, shape) - first, first - start)

    def _view(self, first: Place, rng: np.random.Generator) -> Place:
        """Draw another view of the sample whose first one is `first`."""
        shift = self.crops.max_shift
        if shift is None:
            return self._place(first.sample, rng)
        start = first.start + rng.integers(-shift, shift + 1, 3)
        return first._replace(start=np.clip(start, 0, np.array(first.sample.shape) - first.size))


def rows_of(samples: Sequence[Sequence[Place]]) -> list[Place]:
    """Return the rows of a batch: the views of each sample, one sample after the other."""
    return [place for places in samples for place in places]


class ReadBatch(grain.transforms.Map):
    """Read the crops of a batch side by side, each into its row, as they are stored."""

    def __init__(
        self,
        store: Store,
        label_set: str | None,
        crop: Size,
        normalize: str,
        damaged: str = "stop",
        dtype: str = "int16",
        masks: bool = False,
    ) -> None:
        """Read label set `label_set`, or images only where it is None; `damaged` as in `options.Reading`.

        `masks`: also tell which voxels were anonymised.

        `dtype` is of all batches, so that one program serves them: float32 where some image is stored so.
        """
        self.store, self.label_set, self.crop, self.normalize = store, label_set, crop, normalize
        self.damaged, self.dtype, self.masks = damaged, np.dtype(dtype), masks
        self._warned: set[str] = set()

    def map(self, element: Sequence[Place]) -> dict[str, np.ndarray]:  # pyright: ignore
        """Read the crops at the places `element`; return a packed batch, as `unpack.unpack` describes it."""
        places = element
        voxels, lost = self._voxels(places), set[int]()
        waits = [wait for row, place in enumerate(places) for wait in self._fetch(row, place, voxels, lost)]
        batch = {**voxels, **self._descriptions([place.sample for place in places])}
        batch["size"] = np.array([place.size for place in places], np.int32)
        if places[0].before is not None:
            batch["before"] = np.array([place.before for place in places], np.int32)
            batch["outside"] = np.zeros(len(places), np.uint8)  # background
        for row, wait in waits:
            with self._tolerant(places[row].sample.subject, row, lost):
                wait()
        if self.masks:
            batch["anonymised"] = batch["anonymised"].view(bool)
            batch["anonymised"][list(lost)] = True
        for row in lost:
            batch["stored"][row] = 0
            if "label" in batch:
                batch["label"][row] = IGNORE
            else:
                batch["size"][row] = 0  # nothing of the row is the scan's
        return batch

    def _voxels(self, places: Sequence[Place]) -> dict[str, np.ndarray]:
        """Make the arrays that crops are read into: stored `b c x y z`, label and anonymised `b x y z`."""
        padded = any((place.size < self.crop).any() for place in places)
        new = np.zeros if padded else np.empty  # zeros take a tenth of the time that reading does
        voxels: dict[str, np.ndarray] = {
            "stored": new((len(places), len(places[0].sample.channels), *self.crop), self.dtype)
        }
        if self.label_set is not None:
            voxels["label"] = new((len(places), *self.crop), np.uint8)
        if self.masks:
            voxels["anonymised"] = np.zeros((len(places), *self.crop), np.uint8)  # some scans have no mask
        return voxels

    def _fetch(
        self, row: int, place: Place, voxels: dict[str, np.ndarray], lost: set[int]
    ) -> list[tuple[int, Callable[[], None]]]:
        """Begin to read one crop; return what to wait for."""
        sample, start, size, before = place
        before = (np.array(self.crop) - size) // 2 if before is None else before
        inside = (row, *(slice(low, low + n) for low, n in zip(before, size)))
        every = len(self.store.rows[sample.subject].contrasts)
        channels = () if sample.channels == tuple(range(every)) else sample.channels
        wanted = [("image", np.moveaxis(voxels["stored"], 1, -1)[inside], channels)]  # b x y z c
        if self.label_set is not None:
            wanted.append((f"label/{self.label_set}", voxels["label"][inside], ()))
        if sample.anonymised:
            wanted.append((f"label/{ANONYMISATION}", voxels["anonymised"][inside], ()))
        waits = []
        for name, out, which in wanted:
            with self._tolerant(sample.subject, row, lost):
                waits.append((row, self.store.fetch(sample.subject, name, start.tolist(), out, which)))
        return waits

    def _descriptions(self, samples: Sequence[SubjectSample]) -> dict[str, np.ndarray]:
        """Return what `unpack` must know of each row's scan."""
        mappings = [stored_mapping(sample, self.normalize) for sample in samples]
        batch = {
            "subject": np.array([sample.number for sample in samples], np.int32),
            "offset": np.array([mapping.offset for mapping in mappings], np.float32),
            "scale": np.array([mapping.scale for mapping in mappings], np.float32),
            "range": np.array([(mapping.low, mapping.high) for mapping in mappings], np.float32),
        }
        if self.label_set is not None:
            batch["lookup"] = np.array([sample.lookup for sample in samples])
        if samples[0].annotated is not None:
            batch["annotated"] = np.array([sample.annotated for sample in samples])
        if samples[0].weights is not None:
            batch["weights"] = np.array([sample.weights for sample in samples])
        if samples[0].group is not None:
            batch["groups"] = np.array([sample.group for sample in samples], np.int32)
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


def stored_mapping(sample: SubjectSample, method: str) -> intensity.Mapping:
    """Return the normalisation of a scan's intensities as one of the numbers that are stored for them."""
    offset, scale, low, high = intensity.mapping(sample.statistics, method)
    return intensity.Mapping((offset - sample.intercept) / sample.slope, scale / sample.slope, low, high)
