"""How fast the loader is: beside bare TensorStore reads of the same crops, and beside MONAI where it is installed.

    python tools/bench_data.py --shape 112 84 180 --crop 64 64 64 --subjects 4 --batches 40

Prints crops per wall second and per CPU second of each, as JSON. On a shared machine compare the CPU column.
"""

import argparse
import itertools
import json
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable, Iterator

import nibabel
import numpy as np
from scipy import ndimage

from ukbob_jax.data.pipeline import batches
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter

CHANNELS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shape", type=int, nargs=3, default=(112, 84, 180), help="voxels of a volume, x y z"
    )
    parser.add_argument("--crop", type=int, nargs=3, default=(64, 64, 64), help="voxels of a crop, x y z")
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--batches", type=int, default=40, help="batches timed, of 4 crops each")
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        volumes = [synthetic(seed, tuple(options.shape)) for seed in range(options.subjects)]
        store = fill(folder / "store", volumes)
        results = {
            "bare TensorStore reads": rate(bare(store, options), options.batches),
            "ukbob_jax batches": rate(ours(store, options), options.batches),
        }
        if (peer := monai(folder, volumes, options)) is not None:
            results["MONAI PersistentDataset + RandCropByPosNegLabeld"] = rate(peer, options.batches)
    results["peak memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps(results, indent=1))


def synthetic(seed: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A smooth noisy int16 image `x y z c` in a body-shaped mask and ten blobs as label `x y z`."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 4)
    field = (smooth - smooth.min()) / np.ptp(smooth)
    image = np.stack(
        [900 * field * (c + 1) / CHANNELS + rng.normal(0, 8, shape) for c in range(CHANNELS)], axis=-1
    )
    label = np.where(field > 0.5, 1 + np.floor(20 * (field - 0.5)), 0)
    return image.clip(0).astype(np.int16), label.clip(0, 10).astype(np.uint8)


def fill(path: pathlib.Path, volumes: list[tuple[np.ndarray, np.ndarray]]) -> Store:
    with StoreWriter(path) as writer:
        for number, (image, label) in enumerate(volumes):
            writer.write(f"s{number}", image, np.eye(4), {"manual": label}, source="")
    return Store.open(path)


def rate(stream: Iterator, number: int) -> dict[str, float]:
    """Crops per second of a stream of lists or batches of 4 crops, after four to warm up."""
    for _ in itertools.islice(stream, 4):
        pass
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in itertools.islice(stream, number):
        pass
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    stream.close()
    return {
        "crops per second": round(4 * number / wall, 1),
        "crops per CPU second": round(4 * number / cpu, 1),
    }


def bare(store: Store, options: argparse.Namespace) -> Iterator[list]:
    """Image and label crops at random places, nothing done to them; as many read at a time as ours."""
    from concurrent.futures import ThreadPoolExecutor

    rng = np.random.default_rng(0)
    rows = [store.rows[subject]["shape"] for subject in store.subjects]

    def read(place: tuple[int, list[int]]) -> None:
        subject, start = store.subjects[place[0]], place[1]
        store.crop(subject, "image", start, options.crop)
        store.crop(subject, "label/manual", start, options.crop)

    def places() -> list[tuple[int, list[int]]]:
        numbers = rng.integers(len(rows), size=4)
        return [(n, [rng.integers(s - c + 1) for s, c in zip(rows[n], options.crop)]) for n in numbers]

    with ThreadPoolExecutor(options.threads) as pool:
        ahead = [[pool.submit(read, place) for place in places()] for _ in range(options.threads)]
        while True:
            yield [future.result() for future in ahead.pop(0)]
            ahead.append([pool.submit(read, place) for place in places()])


def ours(store: Store, options: argparse.Namespace) -> Iterator[dict]:
    return batches(
        store, subjects=store.subjects, label="manual", crop=tuple(options.crop), batch_size=4, seed=0,
        threads=options.threads, num_classes=11,
    )  # fmt: skip


def monai(
    folder: pathlib.Path, volumes: list[tuple[np.ndarray, np.ndarray]], options: argparse.Namespace
) -> Iterator | None:
    """Four crops a volume from a warm disk cache, in this process: what its Swin-UNETR tutorials do."""
    try:
        from monai import data, transforms
    except ImportError:
        return None
    files = []
    for number, (image, label) in enumerate(volumes):
        files.append({"image": str(folder / f"i{number}.nii.gz"), "label": str(folder / f"l{number}.nii.gz")})
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), files[-1]["image"])
        nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), files[-1]["label"])
    keys = ["image", "label"]
    chain: list[Callable] = [
        transforms.LoadImaged(keys),
        transforms.EnsureChannelFirstd(keys),
        transforms.Orientationd(keys, axcodes="RAS"),
        transforms.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        transforms.RandCropByPosNegLabeld(keys, "label", options.crop, pos=2, neg=1, num_samples=4),
    ]
    dataset = data.PersistentDataset(files, transforms.Compose(chain), cache_dir=folder / "cache")

    def stream() -> Iterator[dict]:
        for number in itertools.count():
            yield data.list_data_collate([dataset[number % len(files)]])

    for _ in itertools.islice(stream(), len(files)):  # fills the cache
        pass
    return stream()


if __name__ == "__main__":
    main()
