"""Weight files of both formats, with a description and a digest."""

import re

import numpy as np
import pytest

from tests.weights.monai_files import MODEL, state_dict
from ukbob_jax import weights
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.weights import files, torch_files


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_flipped_bit_is_noticed(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    weights.save(path, weights.from_monai(state_dict(), MODEL), MODEL)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match=str(path)):
        weights.load(path, MODEL)


@pytest.mark.parametrize("name", ["w.npz", "w.pt", "w.safetensors"])
def test_missing_or_foreign_files_are_refused_by_name(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}: no such file"):
        weights.load(tmp_path / name, MODEL)
    (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=name):
        weights.load(tmp_path / name, MODEL)


def test_a_safetensors_file_of_others_loads(tmp_path):
    import safetensors.numpy

    theirs = state_dict()
    half = {
        name: array.astype(np.float16) if array.dtype == np.float32 else array
        for name, array in theirs.items()
    }
    safetensors.numpy.save_file(half, tmp_path / "a.safetensors")
    params = weights.load(tmp_path / "a.safetensors", MODEL)
    np.testing.assert_array_equal(params["head"]["bias"], half["out.conv.conv.bias"].astype(np.float32))
    assert files.read(tmp_path / "a.safetensors").description is None


TENSORS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "count": np.array(3, np.int64),
    "half": np.array([1.5, -2.0], np.float16),
}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_what_is_written_is_read_and_the_same_input_gives_the_same_bytes(tmp_path, suffix):
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    files.write(first, TENSORS, {"note": "text", "seed": 3})
    files.write(second, TENSORS, {"seed": 3, "note": "text"})
    found = files.read(first)
    assert found.description == {"note": "text", "seed": 3, "sha256": files.digest(TENSORS)}
    assert found.tensors.keys() == TENSORS.keys()
    for name, array in found.tensors.items():
        assert array.dtype == TENSORS[name].dtype and array.shape == TENSORS[name].shape
        np.testing.assert_array_equal(array, TENSORS[name])
        assert not array.flags.writeable
    assert first.read_bytes() == second.read_bytes()


def test_a_digest_is_of_names_types_shapes_and_numbers_in_any_order():
    expected = files.digest(TENSORS)
    assert files.digest(dict(reversed(TENSORS.items()))) == expected
    assert files.digest(TENSORS | {"a.weight": np.asfortranarray(TENSORS["a.weight"])}) == expected
    weight = TENSORS["a.weight"]
    changes = {
        "number": TENSORS | {"a.weight": weight + 1},
        "shape": TENSORS | {"a.weight": weight.reshape(3, 2)},
        "type": TENSORS | {"a.weight": weight.view(np.int32)},
        "name": {name.upper(): array for name, array in TENSORS.items()},
        "fewer": {"count": TENSORS["count"]},
    }
    assert len({expected, *map(files.digest, changes.values())}) == 1 + len(changes)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "network_weights"])
def test_weights_are_found_where_trainers_put_them(tmp_path, wrapper):
    path = tmp_path / "a.pt"
    torch_files.save(path, {"state_dict": TENSORS})  # under state_dict
    found = torch_files.load(path)
    value = found.value["state_dict"]
    assert (
        files._weights(value if wrapper is None else {"epoch": 3, wrapper: value}, re.compile("x")) == value
    )


def test_of_unknown_dictionaries_the_one_with_the_networks_first_tensor_is_taken(tmp_path):
    path = tmp_path / "a.pt"
    torch_files.save(path, {"state_dict": TENSORS})
    value, first = torch_files.load(path).value["state_dict"], re.compile(r"a\.weight")
    assert files._weights({"student": value, "optimizer": {"lr": 0.1}}, first) == value
    assert files._weights({"student": value, "teacher": value}, first) is None
    assert files._weights([value], first) is None


def test_files_that_cannot_be_used_are_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"a\.npz: weights are written to \.pt, \.pth, \.safetensors"):
        files.write(tmp_path / "a.npz", TENSORS, {})
    files.write(tmp_path / "empty.safetensors", {}, {})
    with pytest.raises(FileError, match=r"empty\.safetensors: holds no tensors"):
        files.read(tmp_path / "empty.safetensors")
    torch_files.save(tmp_path / "odd.pt", {"state_dict": TENSORS, files.DESCRIPTION: "[1]"})
    with pytest.raises(FileError, match=r"odd\.pt: its description \(ukbob_jax\) is damaged"):
        files.read(tmp_path / "odd.pt")
    torch_files.save(tmp_path / "other.pt", {"state_dict": TENSORS, files.DESCRIPTION: '{"sha256": "0"}'})
    with pytest.raises(
        FileError, match=r"other\.pt: its numbers do not have the digest they were saved with"
    ):
        files.read(tmp_path / "other.pt")
