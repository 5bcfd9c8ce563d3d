"""What ingestion, the store and the loader cost, beside bare reads and beside MONAI where it is installed.

    python -m tools.bench_data loader                   96 cubed crops of whole-body volumes, four a batch
    python -m tools.bench_data ingest                   files to store, beside LoadImaged + Orientationd + Spacingd + save
    python -m tools.bench_data memory --batches 10000   resident memory along the way
    python -m tools.bench_data manifest                 51,761 subjects opened, split and shared among 256 processes

Prints JSON. Kinds to compare take turns, and medians are over the rounds. `--folder` keeps the volumes made for it.
"""

import argparse
import collections
import itertools
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import grain
import jax
import nibabel
import numpy as np
import tensorstore as ts
from scipy import ndimage

from ukbob_jax import sources
from ukbob_jax.data.options import Crops, Labels, Reading
from ukbob_jax.data.pipeline import batches
from ukbob_jax.data.source import Epochs, ScanSource
from ukbob_jax.data.transforms import PlaceCrops
from ukbob_jax.data.unpack import unpack
from ukbob_jax.jobs import ingest as ingest_job
from ukbob_jax.store import rows, schema
from ukbob_jax.store.reader import Store
from ukbob_jax.store.row import Subject
from ukbob_jax.store.writer import StoreWriter

CHANNELS = 4
UKB = (224, 168, 363)  # voxels, neck to knee
COHORT = 51_761
SEED, FOREGROUND = 0, 0.67  # of the crops
LABELS = Labels("manual", num_classes=11)
WARM_UP = 24  # batches; more than are held ready, and with three volumes enough to meet nearly every chunk
FROM_DISK, IN_MEMORY = "MONAI, PersistentDataset", "MONAI, CacheDataset"
SPACING_MM, TARGET_MM = (2.0, 2.0, 3.0), (1.5, 1.5, 2.0)  # of the files to ingest, and asked for


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("loader", "ingest", "memory", "manifest", "open"))
    parser.add_argument("--shape", type=int, nargs=3, default=UKB, help="voxels of a volume, x y z")
    parser.add_argument("--crop", type=int, nargs=3, default=(96, 96, 96), help="voxels of a crop, x y z")
    parser.add_argument("--subjects", type=int, default=3)
    parser.add_argument("--batches", type=int, default=20, help="batches a round, of 4 crops each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=8, help="batches under way")
    parser.add_argument("--folder", type=pathlib.Path, help="keeps the volumes between calls")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        options.folder = options.folder or pathlib.Path(temporary)
        found = {"loader": loader, "ingest": ingest, "memory": memory, "manifest": manifest, "open": opened}
        print(json.dumps(found[options.what](options), indent=1))


def loader(options: argparse.Namespace) -> dict:
    """Crops per second of each kind of stream, and ours as a share of bare reads and a multiple of MONAI."""
    store = filled(options)
    kinds = {
        "bare TensorStore reads": lambda: bare(store, options),
        "packed": lambda: ours(store, options, packed=True),
        "packed, kept decoded": lambda: ours(store, options, packed=True, cache_gb=1e3),
        "packed, unpacked on this CPU": lambda: unpacked(ours(store, options, packed=True)),
        "float32": lambda: ours(store, options, packed=False),
    }
    if has_monai():
        kinds[FROM_DISK] = lambda: monai(options)
        kinds[IN_MEMORY] = lambda: monai(options, in_memory=True)
    found = collections.defaultdict(list)
    for _ in range(options.rounds):
        for name, stream in kinds.items():
            peer = name in (FROM_DISK, IN_MEMORY)
            number = max(4, options.batches // 5) if peer else options.batches
            found[name].append(rate(stream(), number, options.subjects if peer else WARM_UP))
    result = {
        name: {key: middle(round[key] for round in rounds) for key in rounds[0]}
        for name, rounds in found.items()
    }
    for compared, peer in (
        ("packed", "bare TensorStore reads"),
        ("packed", FROM_DISK),
        ("packed, kept decoded", FROM_DISK),
        ("packed, kept decoded", IN_MEMORY),
    ):
        if peer in result:
            result[f"{compared} / {peer}"] = {
                key: round(result[compared][key] / result[peer][key], 2) for key in result[peer]
            }
    return result


def ingest(options: argparse.Namespace) -> dict:
    """Subjects per CPU second of reading, reorienting, resampling and writing; ours includes all checksums."""
    volumes = pathlib.Path(options.folder) / "scans"
    for number in range(options.subjects):
        if not (volumes / f"labelsTr/s{number}.nii.gz").exists():
            write_scan(volumes, f"s{number}", *synthetic(number, tuple(options.shape)))
    kinds: dict[str, Callable[[int, pathlib.Path], None]] = {"ours": ingest_ours(volumes)}
    if has_monai():
        kinds |= {
            f"MONAI, saved as {ending}": ingest_monai(volumes, ending) for ending in (".nii", ".nii.gz")
        }
    found = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as out:
        for turn in range(options.rounds):
            for name, function in kinds.items():
                for number in range(options.subjects):
                    cpu = time.process_time()
                    function(number, pathlib.Path(out) / f"{name}-{turn}")
                    found[name].append(time.process_time() - cpu)
    result = {f"{name}, CPU seconds a subject": middle(seconds, 3) for name, seconds in found.items()}
    base = result["ours, CPU seconds a subject"]
    return result | {
        f"ours / {name}": round(middle(found[name], 3) / base, 2) for name in kinds if name != "ours"
    }


def memory(options: argparse.Namespace) -> dict:
    """Resident memory in MB at ten places along the stream of packed batches, after a tenth to warm up."""
    stream, found = ours(filled(options), options, packed=True), []
    for number in range(1, options.batches + 1):
        next(stream)
        if number % max(1, options.batches // 10) == 0:
            found.append(resident_mb())
    stream.close()
    return {
        "batches": options.batches,
        "resident MB": found,
        "growth MB after the first tenth": found[-1] - found[0],
    }


def manifest(options: argparse.Namespace) -> dict:
    """Seconds and peak memory of a fresh process that opens, splits and shares a cohort, and a tenth of it."""
    result = {}
    for number in (COHORT // 10, COHORT):
        folder = pathlib.Path(options.folder) / f"manifest-{number}"
        synthetic_manifest(folder, number)
        command = [sys.executable, "-m", "tools.bench_data", "open", "--folder", str(folder)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        result[f"{number} subjects"] = json.loads(told)
    few, many = (result[f"{number} subjects"]["seconds"] for number in (COHORT // 10, COHORT))
    result["seconds per subject, all / a tenth"] = round(many / few / 10, 2)
    return result


def opened(options: argparse.Namespace) -> dict:
    """What each of 256 processes does before its first crop; the share itself is a slice, whatever its number."""
    before, start = resident_mb(), time.perf_counter()
    store = Store.open(options.folder)
    source = ScanSource(store, store.split("train"), Labels("auto"))
    share = range(len(source))[min(137, len(source) - 1) :: 256]
    assert source[share[0]].subject
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 2),
        "MB": round(resident_mb() - before),
        "peak MB, libraries included": peak_mb(),
    }


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


def synthetic_manifest(folder: pathlib.Path, number: int) -> None:
    """A store's marker and manifest, as `number` subjects with 71 organs each leave them; no arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "store.json").write_bytes(rows.encode_line(schema.FORMAT) + b"\n")
    row = rows.without_digests(Subject.new("x", (*UKB, CHANNELS), np.diag([2.23, 2.23, 3.0, 1.0])))
    row |= {
        "labels": ["auto"],
        "present": {"auto": [organ for organ in range(1, 73) if organ != 20]},
        "intensity": {
            name: [123.456 + c for c in range(CHANNELS)] for name in ("mean", "std", "low", "high")
        },
        "folders": {name: f"0001/{name}" for name in ("image", "label/auto", "samples/auto")},
        "attributes": {"sex": "F", "height_mm": 1700.0, "field_strength_t": 1.5},
        "provenance": {"auto": {}},
    }
    with open(folder / "manifest.jsonl", "wb") as file:
        for subject in range(number):
            changed = {
                "id": f"{1_000_000 + subject}_2",
                "split": "train" if subject % 20 else "val",
                "source": f"{subject:064x}",
            }
            file.write(rows.encode_line({**row, **changed}) + b"\n")


def filled(options: argparse.Namespace) -> Store:
    """A store of synthetic volumes, made at the first call."""
    path = pathlib.Path(options.folder) / "store"
    with StoreWriter(path) as writer:
        for number in range(options.subjects):
            if not writer.has(f"s{number}", str(options.shape)):
                image, label = synthetic(number, tuple(options.shape))
                writer.write(f"s{number}", image, np.eye(4), {"manual": label}, source=str(options.shape))
    return Store.open(path)


def rate(stream: Iterator, number: int, warm_up: int) -> dict[str, float]:
    """Crops per second of a stream of 4 crops at a time, when what it holds ready at the start is used up."""
    for _ in itertools.islice(stream, warm_up):
        pass
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in itertools.islice(stream, number):
        pass
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    stream.close()
    return {"crops per second": 4 * number / wall, "crops per CPU second": 4 * number / cpu}


def bare(store: Store, options: argparse.Namespace) -> Iterator[list]:
    """The same image and label crops straight from TensorStore, as many under way as ours has."""
    shape = store.rows["s0"].shape
    root = schema.open_root(store.path)

    def array(subject: str, name: str) -> ts.TensorStore:
        size = (*shape, CHANNELS) if name == "image" else shape
        folder = root / (schema.subject_folder(subject) + store.rows[subject].folders[name])
        return ts.open(schema.array_spec(folder, name, size), open=True).result()

    arrays = {s: (array(s, "image"), array(s, "label/manual")) for s in store.subjects}
    places = iter(places_of_ours(store, options))

    def four() -> list[ts.Future]:
        reads = []
        for subject, low in itertools.islice(places, 4):
            window = tuple(slice(int(a), int(a) + n) for a, n in zip(low, options.crop))
            reads += [each[window].read() for each in arrays[subject]]
        return reads

    ahead = collections.deque(four() for _ in range(options.threads))
    while True:
        yield [read.result() for read in ahead.popleft()]
        ahead.append(four())


def places_of_ours(store: Store, options: argparse.Namespace) -> list[tuple[str, np.ndarray]]:
    """(subject, first voxel) of the crops that `ours` reads, in order, and some more; drawn before the clock runs."""
    placed = (
        grain.MapDataset.source(Epochs(ScanSource(store, store.subjects, LABELS), SEED))
        .seed(SEED)
        .random_map(PlaceCrops(store, LABELS.set, Crops(tuple(options.crop), FOREGROUND), 4))
    )
    number = 4 * (WARM_UP + options.batches + 2 * options.threads)
    return [(place.sample.subject, place.start) for [place] in (placed[i] for i in range(number))]


def ours(store: Store, options: argparse.Namespace, packed: bool, cache_gb: float = 0.0) -> Iterator[dict]:
    return batches(
        store,
        store.subjects,
        crops=Crops(tuple(options.crop), FOREGROUND),
        labels=LABELS,
        batch_size=4,
        seed=SEED,
        reading=Reading(threads=options.threads, packed=packed, cache_gb=cache_gb),
    )


def unpacked(stream: Iterator[dict]) -> Iterator[dict]:
    """Batches put on the device and unpacked there, as in the training step."""
    finish = jax.jit(unpack)
    try:
        for batch in stream:
            yield jax.block_until_ready(finish(jax.device_put(batch)))
    finally:
        stream.close()


def has_monai() -> bool:
    try:
        import monai  # noqa: F401
    except ImportError:
        return False
    return True


def monai(options: argparse.Namespace, in_memory: bool = False) -> Iterator:
    """Four crops a volume from a warm disk cache, or from memory, in this process: what its Swin-UNETR tutorials do."""
    from monai import data, transforms

    folder = pathlib.Path(options.folder) / "peer"
    folder.mkdir(exist_ok=True)
    files = [
        {"image": str(folder / f"i{n}.nii"), "label": str(folder / f"l{n}.nii")}
        for n in range(options.subjects)
    ]
    for number, pair in enumerate(files):
        if not pathlib.Path(pair["label"]).exists():
            image, label = synthetic(number, tuple(options.shape))
            nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), pair["image"])
            nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), pair["label"])
    keys = ["image", "label"]
    chain: list[Callable] = [
        transforms.LoadImaged(keys),
        transforms.EnsureChannelFirstd(keys),
        transforms.Orientationd(keys, axcodes="RAS", labels=None),
        transforms.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        transforms.RandCropByPosNegLabeld(keys, "label", options.crop, pos=2, neg=1, num_samples=4),
    ]
    if in_memory:
        dataset = data.CacheDataset(files, transforms.Compose(chain), progress=False)
    else:
        dataset = data.PersistentDataset(files, transforms.Compose(chain), cache_dir=folder / "cache")

    def stream() -> Iterator[dict]:
        for number in itertools.count():
            yield data.list_data_collate([dataset[number % len(files)]])

    return stream()


def write_scan(folder: pathlib.Path, name: str, image: np.ndarray, label: np.ndarray) -> None:
    """A subject in nnU-Net's layout, stored left to right the other way round, as scanners do."""
    affine = np.diag([-SPACING_MM[0], *SPACING_MM[1:], 1.0])
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for channel in range(CHANNELS):
        nibabel.save(
            nibabel.Nifti1Image(image[..., channel], affine),
            folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz",
        )
    nibabel.save(nibabel.Nifti1Image(label, affine), folder / "labelsTr" / f"{name}.nii.gz")


def ingest_ours(folder: pathlib.Path) -> Callable[[int, pathlib.Path], None]:
    paths = {"root": str(folder)}
    origins = sources.list_subjects(
        {"kind": "files", "layout": "nnunet", "paths": paths, "spacing_mm": TARGET_MM}
    )

    def write(number: int, out: pathlib.Path) -> None:
        failure = ingest_job.write_one(origins[number], str(out))
        assert failure is None, failure

    return write


def ingest_monai(folder: pathlib.Path, ending: str) -> Callable[[int, pathlib.Path], None]:
    from monai import transforms

    keys = ["image", "label"]
    chain = [
        transforms.LoadImaged(keys, ensure_channel_first=True),
        transforms.Orientationd(keys, axcodes="RAS", labels=None),
        transforms.Spacingd(keys, pixdim=TARGET_MM, mode=("bilinear", "nearest")),
    ]

    def write(number: int, out: pathlib.Path) -> None:
        images = [str(folder / f"imagesTr/s{number}_{channel:04d}.nii.gz") for channel in range(CHANNELS)]
        save = transforms.SaveImaged(
            keys, output_dir=out, output_ext=ending, print_log=False, separate_folder=False, resample=False
        )
        transforms.Compose([*chain, save])(
            {"image": images, "label": str(folder / f"labelsTr/s{number}.nii.gz")}
        )

    return write


def middle(numbers: Iterator[float], digits: int = 1) -> float:
    return round(statistics.median(numbers), digits)


def resident_mb() -> float:
    """Memory of this process that is in use now, MB (Linux)."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 1e6, 1)


def peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


if __name__ == "__main__":
    main()
