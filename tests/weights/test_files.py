"""Weight files of both formats, with a description and a digest."""

import numpy as np
import pytest

from tests.weights.monai_files import MODEL, state_dict
from ukbob_jax import weights
from ukbob_jax.weights import files


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
