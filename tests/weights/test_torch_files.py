"""The reader of PyTorch files: what `torch.save` writes comes back, anything else is refused and never run.

`UKBOB_FUZZ=100000 pytest tests/weights/test_torch_files.py -s` tries that many damaged files.
"""

import collections
import datetime
import json
import os
import pathlib
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest

from ukbob_jax.errors import FileError
from ukbob_jax.weights import files, torch_files

FUZZ = int(os.environ.get("UKBOB_FUZZ", "400"))


def sample():
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.normal(size=(3, 2)).astype(np.float32),
        "a.bias": np.zeros((0, 3), np.float32),
        "count": np.array(3, np.int64),
        "half": np.arange(4, dtype=np.float16),
    }


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "w.pt"
    torch_files.save(path, {"state_dict": sample(), "note": "text"})
    return path


def zipped(path, pickled, records=()):
    """A file in the current format around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, data in records:
            archive.writestr(f"archive/{name}", data)
    return path


def pickle_of(contents):
    return b"\x80\x02" + torch_files._Writer().value(contents) + b"."


@pytest.mark.reference
@pytest.mark.parametrize("name", ["checkpoint_sample.pt", "checkpoint_sample_legacy.pt"])
def test_both_formats_of_torch_save_come_back(reference, name):
    """Views, shared storages, empty and 0-d tensors, every type."""
    folder = reference / "swin_unetr"
    expected, facts = (
        np.load(folder / "checkpoint_sample.npz"),
        json.loads((folder / "checkpoint_sample.json").read_text()),
    )
    file = torch_files.load(folder / name)
    assert (file.value["epoch"], file.value["best_acc"]) == (facts["epoch"], facts["best_acc"])
    tensors = files.read(folder / name).tensors
    assert list(tensors) == list(facts["tensors"])
    for key, array in tensors.items():
        assert array.dtype.name == facts["tensors"][key]["dtype"]
        assert not array.flags.writeable
        np.testing.assert_array_equal(array.astype(expected[key].dtype), expected[key], err_msg=key)


def test_what_we_write_comes_back(written):
    tensors = files.read(written).tensors
    for name, array in sample().items():
        assert tensors[name].dtype == array.dtype and tensors[name].shape == array.shape
        np.testing.assert_array_equal(tensors[name], array)


def test_torch_reads_what_we_write(written):
    torch = pytest.importorskip("torch")
    loaded = torch.load(written, weights_only=True)
    assert loaded["note"] == "text"
    for name, array in sample().items():
        np.testing.assert_array_equal(loaded["state_dict"][name].numpy(), array)


def nested():
    """Everything that is written, one inside the other; two names of one tensor."""
    first = np.arange(6, dtype=np.float32).reshape(2, 3)
    plain = {
        "none": None,
        "no": False,
        "big": [2**70, -(2**63), -1],
        "real": (0.1, float("inf"), 1e-300),
        3: "key",
    }
    return {
        "weights": {"a": first, "b": first, "c": [first[:1].copy()]},
        "plain": plain,
        "empty": [{}, [], (), ""],
    }


def test_torch_reads_nested_values_and_names_of_one_tensor_share_it(tmp_path):
    torch = pytest.importorskip("torch")
    torch_files.save(tmp_path / "n.pth", {**nested(), "text": "\ud800 ü", "scalar": np.float32(0.5)})
    found = torch.load(tmp_path / "n.pth", weights_only=True)
    assert found["plain"] == nested()["plain"] and found["empty"] == nested()["empty"]
    assert (found["text"], found["scalar"]) == ("\ud800 ü", 0.5) and type(found["plain"]["no"]) is bool
    a, b, c = found["weights"]["a"], found["weights"]["b"], found["weights"]["c"][0]
    np.testing.assert_array_equal(a.numpy(), nested()["weights"]["a"])
    assert a.data_ptr() == b.data_ptr() != c.data_ptr() and c.tolist() == [[0.0, 1.0, 2.0]]


def test_nested_values_come_back_and_the_same_input_gives_the_same_bytes(tmp_path):
    for name in "ab":
        torch_files.save(tmp_path / name, nested())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    file = torch_files.load(tmp_path / "a")
    assert file.value["plain"] == nested()["plain"] and file.value["empty"] == nested()["empty"]
    one, two = file.value["weights"]["a"], file.value["weights"]["b"]
    assert one == two
    np.testing.assert_array_equal(file.read(one), nested()["weights"]["a"])


@pytest.mark.parametrize(
    "value, named", [({1, 2}, "set is not written"), (np.zeros(2, "U1"), "<U1 is no type")]
)
def test_what_torch_files_do_not_hold_is_refused(tmp_path, value, named):
    with pytest.raises(ValueError, match=named):
        torch_files.save(tmp_path / "n.pth", {"value": [value]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{}, {"pickle_protocol": 4}, {"_use_new_zipfile_serialization": False}])
def test_a_trainers_checkpoint_of_torch_loads(tmp_path, options):
    import argparse

    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    extras = {
        "args": argparse.Namespace(lr=1e-3, device=torch.device("cpu"), data=pathlib.Path("data")),
        "seen": collections.defaultdict(list, a=[1]),
        "counts": collections.Counter("aab"),
        "started": datetime.datetime(2024, 5, 1, 9, 30),
        "accuracy": np.float64(0.5),
        "size": torch.Size([2]),
    }
    checkpoint = {"optimizer": optimizer.state_dict(), **extras, "epoch": 3, "state_dict": layer.state_dict()}
    torch.save(checkpoint, tmp_path / "t.pt", **options)
    tensors = files.read(tmp_path / "t.pt").tensors
    np.testing.assert_array_equal(tensors["weight"], layer.weight.detach().numpy())
    assert set(tensors) == {"weight", "bias"}


def test_a_whole_pickled_model_is_refused_by_its_class(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(FileError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
        torch_files.load(tmp_path / "model.pt")


def test_a_pickle_cannot_ask_for_more_memory_than_the_file_has(tmp_path):
    """What one flipped byte can turn into gigabytes: memo indices, lengths, tensors outside or larger than the data."""
    path = tmp_path / "big.pt"
    memo = b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b"."
    assert torch_files.load(zipped(path, memo)).value is None
    length = b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"."
    with pytest.raises(FileError, match=r"big\.pt"):
        torch_files.load(zipped(path, length))
    for shape, strides in (((2**40,), (0,)), ((4,), (1,)), ((1,), (-1,))):
        tensors = {"w": np.zeros(3, np.float32)}
        pickled = pickle_of({"state_dict": tensors})
        long = lambda n: b"\x8a\x08" + struct.pack("<q", n)  # noqa: E731
        whole = b"(" + long(3) + b"t(" + long(1) + b"t"
        assert whole in pickled
        pickled = pickled.replace(whole, b"(" + long(shape[0]) + b"t(" + long(strides[0]) + b"t")
        with pytest.raises(FileError, match="tensor"):
            torch_files.load(zipped(path, pickled, [("data/0", bytes(12))]))


@pytest.mark.parametrize("damage", ["bomb", "two", "none", "big"])
def test_archives_torch_would_not_write_are_refused(tmp_path, damage):
    path = tmp_path / "odd.pt"
    with zipfile.ZipFile(path, "w") as archive:
        if damage == "bomb":
            archive.writestr("archive/data.pkl", bytes(10**6), compress_type=zipfile.ZIP_DEFLATED)
        for name in {"two": "ab", "big": "a"}.get(damage, ""):
            archive.writestr(f"{name}/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("a/byteorder", "big")
    with pytest.raises(FileError, match=r"odd\.pt"):
        torch_files.load(path)


def damaged(data, rng):
    """`data` with a few bytes changed, removed, doubled, or cut short."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        place, kind = rng.randrange(len(data)), rng.randrange(6)
        if kind <= 1:
            data[place] = rng.randrange(256)
        elif kind == 2:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 3:
            del data[place : place + rng.choice((1, 4, 100))]
        elif kind == 4:
            data[place:place] = data[place : place + rng.choice((1, 4, 100))]
        else:
            data[place : place + 4] = struct.pack("<I", rng.choice((0, 2**31 - 1, 2**32 - 1, len(data))))
        if not data:
            return b""
    return bytes(data)


def fuzz_seeds(folder: pathlib.Path) -> dict[str, bytes]:
    path = folder / "seed.pt"
    torch_files.save(path, {"state_dict": sample(), "note": "text"})
    pickled = pickle_of({"state_dict": sample()})
    head = b"".join(
        pickle.dumps(v, protocol=2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    storages = [struct.pack("<q", array.size) + array.tobytes() for array in sample().values()]
    keys = pickle.dumps([str(i) for i in range(len(storages))], protocol=2)
    return {"zip": path.read_bytes(), "pickle": pickled, "legacy": head + pickled + keys + b"".join(storages)}


def test_damaged_files_are_refused_or_read_but_never_anything_else(tmp_path):
    """Of damaged files, only `FileError` may leave the reader."""
    rng, path = random.Random(1), tmp_path / "damaged.pt"
    seeds = fuzz_seeds(tmp_path)
    for name, data in seeds.items():
        (zipped(path, data) if name == "pickle" else path.write_bytes(data))
        assert name == "pickle" or len(files.read(path).tensors) == 4
    refused, failures = collections.Counter(), []
    for number in range(FUZZ):
        kind = ("zip", "pickle", "legacy")[number % 3]
        data = damaged(seeds[kind], rng)
        if kind == "pickle":  # in a sound archive, past its checksums
            zipped(path, data, [(f"data/{i}", array.tobytes()) for i, array in enumerate(sample().values())])
        else:
            path.write_bytes(data)
        try:
            files.read(path)
        except FileError:
            refused[kind] += 1
        except BaseException as error:
            failures.append((kind, type(error).__name__, str(error)[:80]))
    total = refused.total()
    print(
        f"{FUZZ} damaged files: {total} refused, {FUZZ - total - len(failures)} read, {len(failures)} failures"
    )
    assert not failures
    for kind in ("zip", "pickle", "legacy"):  # most damage is noticed, whatever the container
        assert refused[kind] > 0.7 * (FUZZ // 3), refused
