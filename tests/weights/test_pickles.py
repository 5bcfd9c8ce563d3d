"""A reader of pickles that runs no code."""

import io
import os
import pathlib
import pickle

import pytest

from tests.weights.test_torch_files import zipped
from ukbob_jax.errors import FileError
from ukbob_jax.weights import pickles, torch_files


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


PLAIN = {
    "numbers": [0, -1, 255, 2**31, -(2**70), 0.5, True, False, None],
    "texts": ("", "a", "x" * 300, b"bytes", b"y" * 300),
    "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    "nested": {"a": {"b": [{"c": []}]}, 3: "three"},
}


def plain(data):
    return pickles.load(io.BytesIO(data), {}, lambda key: key)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_come_back(protocol):
    value = PLAIN if protocol > 2 else {**PLAIN, "texts": ("", "a")}  # in 2, bytes are a call of a codec
    found = plain(pickle.dumps(value, protocol=protocol))
    assert found == value and [type(n) for n in found["numbers"]] == [type(n) for n in PLAIN["numbers"]]


def test_an_object_that_is_there_twice_is_one():
    shared = [1]
    found = plain(pickle.dumps([shared, shared], protocol=2))
    assert found == [[1], [1]] and found[0] is found[1]


def test_reading_stops_behind_the_pickle():
    file = io.BytesIO(pickle.dumps(1, protocol=2) + pickle.dumps("two", protocol=2) + b"rest")
    assert [pickles.load(file, {}, id) for _ in range(2)] == [1, "two"] and file.read() == b"rest"


def test_only_named_functions_are_called_with_what_stands_in_for_them():
    data = pickle.dumps(pathlib.PurePosixPath("a/b"), protocol=2)
    with pytest.raises(pickles.Refused, match="PurePosixPath"):
        plain(data)
    stand_in = pickles.Named("path", lambda *parts: "|".join(parts))
    names = {(module, "PurePosixPath"): stand_in for module in ("pathlib", "pathlib._local")}
    assert pickles.load(io.BytesIO(data), names, id) == "a|b"


def test_persistent_ids_become_values():
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", value.real) if isinstance(value, complex) else None

    file = io.BytesIO()
    Pickler(file, protocol=2).dump([1 + 0j, 2 + 0j])
    file.seek(0)
    assert pickles.load(file, {}, lambda key: key[1] * 10) == [10.0, 20.0]


@pytest.mark.parametrize(
    "data, error, message",
    [
        (b"cos\nsystem\n.", pickles.Refused, "os.system"),
        (b"(i__main__\nA\n.", pickles.Refused, "opcode INST"),
        (b"\x80\x02K\x01K\x02a.", TypeError, "appends to something that is no list"),
        (b"\x80\x02K\x01K\x02K\x03s.", TypeError, "no dictionary"),
        (b"\x80\x02}))s.", TypeError, "no dictionary"),  # a tuple as key
        (b"\x80\x02K\x01)R.", TypeError, "calls something that is no function"),
        (b"\x80\x02K\x01\x86.", IndexError, "takes more than it put"),
        (b"\x80\x02h\x05.", KeyError, "5"),
        (b"\x80\x02N", ValueError, "pickle exhausted before seeing STOP"),
    ],
)
def test_what_is_no_plain_data_is_refused(data, error, message):
    with pytest.raises(error, match=message):
        plain(data)
