"""Damage and interruption: every one an error that names the subject, or not visible at all."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.store.conftest import AFFINE, volume
from ukbob_jax.errors import FileError
from ukbob_jax.store import rows, writer
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter


def shard(store: Store, subject: str, name: str) -> pathlib.Path:
    folder = pathlib.Path(store.path, "subjects", subject, store.rows[subject].folders[name], "c")
    return next(path for path in folder.rglob("*") if path.is_file())


def flip(path: pathlib.Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 0x10
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["image", "label/auto", "samples/auto"])
@pytest.mark.parametrize("place", [0.01, 0.3, 0.6, 0.9, 0.999])
def test_flipped_bit_in_a_shard_is_an_error_naming_the_subject(store, name, place):
    flip(shard(store, "sub-1", name), place)
    read = (
        (lambda: store.samples("sub-1", "auto"))
        if name == "samples/auto"
        else (lambda: store.read("sub-1", name))
    )
    with pytest.raises(
        FileError, match=rf"subject sub-1, {name}: damaged .* run the ingest job again"
    ) as caught:
        read()
    assert "\n" not in str(caught.value)
    with pytest.raises(FileError, match=f"sub-1, {name}: c/.* is damaged"):
        store.verify("sub-1")
    store.verify("sub-0")


@pytest.mark.parametrize(
    "damage", [os.unlink, lambda path: os.truncate(path, 100), lambda path: os.truncate(path, 0)]
)
def test_missing_or_truncated_shard_is_an_error_not_zeros(store, damage):
    damage(shard(store, "sub-1", "image"))
    with pytest.raises(FileError, match="subject sub-1, image: damaged or missing"):
        store.crop("sub-1", "image", (0, 0, 0), (4, 4, 4))


def test_changed_array_layout_is_an_error(store):
    path = shard(store, "sub-1", "image").parents[4] / "zarr.json"
    path.write_text(path.read_text().replace("[3,0,1,2]", "[3,1,0,2]"))
    with pytest.raises(FileError, match="subject sub-1, image"):
        store.read("sub-1", "image")


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_flipped_bit_in_the_manifest_is_an_error(store, place):
    flip(pathlib.Path(store.path, "manifest.jsonl"), place)
    with pytest.raises(FileError, match=r"manifest.jsonl: damaged \(its checksum"):
        Store.open(store.path)


def test_damaged_row_is_rebuilt_by_writing_the_subject_again(store):
    flip(pathlib.Path(store.path, "subjects/sub-1/done.json"), 0.5)
    again = StoreWriter(store.path)
    assert not again.has("sub-1", "sum1")
    with pytest.raises(FileError, match=r"sub-1/done.json: damaged"):
        again.finish()
    image, label = volume(1)
    again.write("sub-1", image, AFFINE, {"auto": label}, source="sum1")
    again.finish()
    np.testing.assert_array_equal(Store.open(store.path).read("sub-1", "image"), image)


def test_missing_foreign_and_empty_stores_are_told_apart(tmp_path):
    with pytest.raises(FileError, match=r"no such store\. Make one with --config.job=ingest"):
        Store.open(tmp_path / "none")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("x")
    with pytest.raises(FileError, match="not a store"):
        Store.open(tmp_path / "other")
    with pytest.raises(FileError, match="not empty and not a store"):
        StoreWriter(tmp_path / "other")
    StoreWriter(tmp_path / "empty").finish()
    with pytest.raises(FileError, match="the store is empty"):
        Store.open(tmp_path / "empty")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "store.json").write_bytes(rows.encode_line({"format": "ukbob-store", "version": 99}))
    with pytest.raises(FileError, match="'version': 99"):
        Store.open(tmp_path / "new")


class Stop(BaseException):
    """Stands for anything that ends the process in the middle of a write."""


@pytest.mark.parametrize("array", ["image", "label/auto", "samples/auto", "label/manual"])
def test_failure_while_replacing_leaves_the_old_version(store, monkeypatch, array):
    real = StoreWriter._write_array

    def failing(self, row, name, values):
        if name == array:
            raise Stop
        return real(self, row, name, values)

    monkeypatch.setattr(StoreWriter, "_write_array", failing)
    image, label = volume(9)
    with pytest.raises(Stop):
        StoreWriter(store.path).write("sub-0", image, AFFINE, {"auto": label, "manual": label}, source="new")
    monkeypatch.undo()
    again = Store.open(store.path)
    assert again.rows["sub-0"] == store.rows["sub-0"]
    np.testing.assert_array_equal(again.read("sub-0", "image"), volume(0)[0])
    assert not [path for path in pathlib.Path(store.path).glob("subjects/sub-0/0002/**/*") if path.is_file()]


def test_replacing_swaps_at_once_and_finish_sweeps_the_old_files(store):
    image, label = volume(9, shape=(20, 21, 22))
    new = StoreWriter(store.path)
    new.write("sub-0", image, AFFINE, {"auto": label}, source="new")
    np.testing.assert_array_equal(
        store.read("sub-0", "image"), volume(0)[0]
    )  # an open reader keeps its version
    np.testing.assert_array_equal(
        Store.open(store.path).read("sub-0", "image"), image
    )  # before finish as well
    new.finish()
    folder = pathlib.Path(store.path, "subjects/sub-0")
    assert not [path for path in (folder / "0001").rglob("*") if path.is_file()]
    np.testing.assert_array_equal(Store.open(store.path).read("sub-0", "image"), image)
    assert Store.open(store.path).rows["sub-0"].labels == ("auto",)


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(spec, **options):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing x: No space left on device [os_error_code='28']")

    monkeypatch.setattr(writer.ts, "open", full)
    image, label = volume(0)
    with pytest.raises(FileError, match=r"subject a: cannot write: .*No space left on device. Free space or"):
        StoreWriter(tmp_path).write("a", image, AFFINE, {"auto": label}, source="")
    assert not (tmp_path / "subjects" / "a" / "done.json").exists()


def test_finished_store_does_not_depend_on_the_order_of_writing(tmp_path):
    for path, order in (("one", (0, 1, 2)), ("two", (2, 0, 1))):
        with StoreWriter(tmp_path / path) as new:
            for seed in order:
                image, label = volume(seed)
                new.write(f"s{seed}", image, AFFINE, {"auto": label}, source=str(seed))
    files = [
        sorted(str(f.relative_to(tmp_path / p)) for f in (tmp_path / p).rglob("*") if f.is_file())
        for p in ("one", "two")
    ]
    assert files[0] == files[1]
    for file in files[0]:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


WRITE_FOREVER = """
import sys
from tests.store.conftest import AFFINE, volume
from ukbob_jax.store.writer import StoreWriter
writer = StoreWriter(sys.argv[1])
print("ready", flush=True)
for turn in range(100):
    for seed in range(3):
        image, label = volume(seed + 10 * turn)
        writer.write(f"s{seed}", image, AFFINE, {"auto": label}, source=str(seed + 10 * turn))
"""


@pytest.mark.slow
def test_killed_writer_never_leaves_a_visible_half_subject(tmp_path):
    path, seen = tmp_path / "store", 0
    for delay in np.random.default_rng(0).uniform(0.02, 0.5, 20):
        process = subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, path], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        try:
            store = Store.open(path)
        except FileError as error:
            assert "empty" in str(error)
            continue
        for subject in store.subjects:
            image, label = volume(int(store.rows[subject].source))
            np.testing.assert_array_equal(store.read(subject, "image"), image)
            np.testing.assert_array_equal(store.read(subject, "label/auto"), label)
            store.verify(subject)
            seen += 1
    assert seen > 10
    with StoreWriter(path) as new:
        for seed in range(3):
            image, label = volume(seed)
            new.write(f"s{seed}", image, AFFINE, {"auto": label}, source=str(seed))
    for subject in ("s0", "s1", "s2"):
        files = [file for file in (path / "subjects" / subject).rglob("*") if file.is_file()]
        folders = {file.relative_to(path).parts[2] for file in files}
        assert len(folders - {"done.json"}) == 1 and not [file for file in files if "lock" in file.name]
