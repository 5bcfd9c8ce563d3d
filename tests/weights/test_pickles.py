"""A reader of pickles that runs no code."""

import os
import pathlib
import pickle

import pytest

from tests.weights.test_torch_files import zipped
from ukbob_jax.errors import FileError
from ukbob_jax.weights import torch_files


class Attack:
    """A pickle of this calls `os.system` where pickles are trusted."""

    def __init__(self, marker: pathlib.Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("container", ["zip", "bare", "legacy"])
def test_pickled_code_is_refused_and_not_run(tmp_path, protocol, container):
    path, marker = tmp_path / "evil.pt", tmp_path / "ran"
    evil = pickle.dumps({"state_dict": {}, "x": Attack(marker)}, protocol=protocol)
    head = b"".join(
        pickle.dumps(v, protocol=2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    if container == "zip":
        zipped(path, evil)
    else:
        path.write_bytes(head + evil if container == "legacy" else evil)
    with pytest.raises(FileError, match=r"evil\.pt") as refusal:
        torch_files.load(path)
    assert not marker.exists()
    if protocol >= 2 and container == "zip":
        assert "system" in str(refusal.value)
