import gzip
import itertools
import pathlib

import numpy as np
import pytest

from ukbob_jax.errors import FileError
from ukbob_jax.volumes import gzip_bytes

PATH = pathlib.Path("scan.nii.gz")
DATA = np.random.default_rng(0).integers(0, 8, 300_000, np.uint8).tobytes()  # several steps of input


@pytest.mark.parametrize("cuts", [(), (1000,), (7, 200_000)])
@pytest.mark.parametrize("padding", [b"", bytes(512)])
def test_members_are_joined_and_zeros_after_them_do_not_count(cuts, padding):
    ends = [0, *cuts, len(DATA)]
    stored = b"".join(gzip.compress(DATA[a:b], 1) + padding for a, b in itertools.pairwise(ends))
    assert gzip_bytes.inflate(PATH, stored, len(DATA)) == DATA


@pytest.mark.parametrize("cuts", [(7,), (7, 200), (352,), (1, 2, 3)])
def test_a_header_may_span_members(cuts):
    ends = [0, *cuts, len(DATA)]
    stored = b"".join(gzip.compress(DATA[a:b], 1) + bytes(8) for a, b in itertools.pairwise(ends))
    assert gzip_bytes.head(PATH, stored, 352) == DATA[:352]
    assert gzip_bytes.head(PATH, gzip.compress(DATA[:100]), 352) == DATA[:100]


def test_plain_bytes_pass_through():
    assert gzip_bytes.inflate(PATH, DATA, 0) is DATA
    assert gzip_bytes.head(PATH, DATA, 10) == gzip_bytes.head(PATH, gzip.compress(DATA), 10) == DATA[:10]


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda g: g[:-4], "truncated"),
        (lambda g: g[: len(g) // 2], "truncated"),
        (lambda g: g[:-8] + bytes([g[-8] ^ 1]) + g[-7:], "CRC check failed"),
        (lambda g: g[:-1] + bytes([g[-1] ^ 1]), "length check failed"),
        (lambda g: g[:10] + b"\xff\xff" + g[12:], "the gzip stream is corrupt"),
        (lambda g: g + b"more", "the gzip stream is corrupt"),
    ],
)
def test_damage_is_found_before_the_bytes_are_used(damage, message):
    with pytest.raises(FileError, match=rf"^scan\.nii\.gz: .*{message}"):
        gzip_bytes.inflate(PATH, damage(gzip.compress(DATA, 1)), len(DATA))


def test_more_than_the_header_declares_is_refused():
    stored = gzip.compress(DATA)
    assert len(gzip_bytes.inflate(PATH, stored, len(DATA))) == len(DATA)
    with pytest.raises(FileError, match=f"holds over {len(DATA) - 1} bytes"):
        gzip_bytes.inflate(PATH, stored, len(DATA) - 1)


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "empty.nii").write_bytes(b"")
    for path, message in (("none.nii", "no such file"), (".", "a folder"), ("empty.nii", "is empty")):
        with pytest.raises(FileError, match=message):
            gzip_bytes.read(tmp_path / path)
    (tmp_path / "a.nii").write_bytes(DATA)
    assert gzip_bytes.read(tmp_path / "a.nii") == DATA
