"""The small steps from a subject to one training example, each on the host, in the order the pipeline applies them."""

from typing import Any

import grain
import numpy as np

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.data.source import Scan
from ukbob_jax.store.reader import Store
from ukbob_jax.volumes import intensity

Triple = tuple[int, int, int]


class PlaceCrop(grain.transforms.RandomMap):
    """Choose where a crop lies: around a voxel of a class drawn at random, or anywhere.

    A class is drawn first and a voxel of it second, so that a small gland is met as often as the liver. The crop is
    moved to lie inside the volume; along an axis shorter than the crop it takes all of it.
    """

    def __init__(self, store: Store, label: str, crop: Triple, foreground: float) -> None:
        """`foreground`: share of the crops that are centred on a class."""
        self.store, self.label, self.crop, self.foreground = store, label, crop, foreground

    def random_map(self, scan: Scan, rng: np.random.Generator) -> dict[str, Any]:
        """Scan -> scan, start (voxels, x y z), size."""
        size = np.minimum(self.crop, scan.shape)
        start = rng.integers(0, np.array(scan.shape) - size + 1)
        if scan.classes and rng.random() < self.foreground:
            stored_ids = scan.classes[sorted(scan.classes)[rng.integers(len(scan.classes))]]
            voxels = self.store.sample(scan.subject, self.label, stored_ids[rng.integers(len(stored_ids))])
            centre = voxels[rng.integers(len(voxels))]
            start = np.clip(centre - size // 2, 0, np.array(scan.shape) - size)
        return {"scan": scan, "start": start, "size": size}


class ReadCrop(grain.transforms.Map):
    """Read image and label of the crop, the chosen contrasts only."""

    def __init__(self, store: Store, label: str) -> None:
        self.store, self.label = store, label

    def map(self, example: dict[str, Any]) -> dict[str, Any]:
        """Adds image `x y z c` as stored, label `x y z` uint8."""
        scan, start, size = example["scan"], example["start"], example["size"]
        image = self.store.crop(scan.subject, "image", start, size)
        if scan.channels != tuple(range(image.shape[-1])):
            image = image[..., list(scan.channels)]
        return {
            **example,
            "image": image,
            "label": self.store.crop(scan.subject, f"label/{self.label}", start, size),
        }


class Relabel(grain.transforms.Map):
    """Stored ids -> ids of training; flagged organs become ignore or background."""

    def map(self, example: dict[str, Any]) -> dict[str, Any]:
        """Label `x y z` uint8 -> the same."""
        return {**example, "label": example["scan"].lookup[example["label"]]}


class Normalize(grain.transforms.Map):
    """Bring intensities to the common scale, by the statistics of the whole scan."""

    def __init__(self, method: str) -> None:
        self.method = method

    def map(self, example: dict[str, Any]) -> dict[str, Any]:
        """Image `x y z c` -> float32."""
        image = example["image"]
        x, y, z, _ = image.shape
        # z and c as one axis: numpy's inner loop is then z times as long, twice as fast in all
        statistics = intensity.Statistics(*(values * z for values in example["scan"].statistics))
        normal = intensity.normalize(image.reshape(x, y, -1), statistics, self.method)
        return {**example, "image": normal.reshape(image.shape)}


class Pad(grain.transforms.Map):
    """Bring crops of small volumes to the full size, evenly on both sides: image 0, label ignore."""

    def __init__(self, crop: Triple) -> None:
        self.crop = crop

    def map(self, example: dict[str, Any]) -> dict[str, Any]:
        """Image `x y z c`, label `x y z` of any size up to the crop -> of the crop's size."""
        missing = np.subtract(self.crop, example["label"].shape)
        if not missing.any():
            return example
        before = missing // 2
        pads = tuple(zip(before, missing - before))
        return {
            **example,
            "image": np.pad(example["image"], (*pads, (0, 0))),
            "label": np.pad(example["label"], pads, constant_values=IGNORE),
        }


class Finish(grain.transforms.Map):
    """Keep what the batch carries."""

    def map(self, example: dict[str, Any]) -> dict[str, np.ndarray]:
        """Image float32 `x y z c`, label uint8 `x y z`, subject int32, annotated bool `k` where some are partial."""
        scan = example["scan"]
        kept = {"image": example["image"], "label": example["label"], "subject": np.int32(scan.index)}
        return kept if scan.annotated is None else {**kept, "annotated": scan.annotated}
