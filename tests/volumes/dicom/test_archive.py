"""Zips from elsewhere: what is in them comes out whole, and hostile ones are refused before they do harm."""

import io
import pathlib
import stat
import tracemalloc
import zipfile

import pytest

from ukbob_jax.errors import FileError
from ukbob_jax.volumes.dicom.archive import ArchiveLimits, fingerprint, unpack

CONTENT = {"a.dcm": b"first" * 50, "deep/b.dcm": bytes(range(256)) * 3, "manifest.csv": b"x,y\n"}


def pack(path: pathlib.Path, content=CONTENT, **options) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def entry(name: str, kind: int = stat.S_IFREG) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o644) << 16
    return info


def test_members_come_out_whole_and_numbered(tmp_path):
    path = pack(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("folder")
    assert list(unpack(path)) == list(enumerate(CONTENT.values(), 1))
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]  # nothing was written


HOSTILE = {
    "up": ("../../etc/cron.d/x", "path that leads out"),
    "up inside": ("a/../../x", "path that leads out"),
    "absolute": ("/etc/passwd", "path that leads out"),
    "windows up": ("..\\..\\x", "path that leads out"),
    "drive": ("C:\\x", "path that leads out"),
    "archive": ("more.ZIP", "archive in the archive"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(name, tmp_path):
    member, message = HOSTILE[name]
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.dcm", b"good")
        archive.writestr(member, b"bad")
    with pytest.raises(FileError, match=f"member 2 .*{message}") as caught:
        list(unpack(path))
    assert member not in str(caught.value)  # what is hostile is not repeated


@pytest.mark.parametrize("kind, message", [(stat.S_IFLNK, "is a link"), (stat.S_IFIFO, "is neither a file")])
def test_links_and_devices_are_refused(kind, message, tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry("innocent.dcm", kind), b"/etc/passwd")
    with pytest.raises(FileError, match=f"member 1 {message}"):
        list(unpack(path))


def test_archive_under_another_name_is_refused(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("x", b"x")
    path = pack(tmp_path / "a.zip", {"image.dcm": inner.getvalue()})
    with pytest.raises(FileError, match="member 1 is an archive in the archive"):
        list(unpack(path))


@pytest.mark.parametrize(
    "limits, message",
    [
        (ArchiveLimits(files=2), "3 members, more than 2"),
        (ArchiveLimits(file_bytes=700), "member 2 unpacks to .* MiB, more than"),
        (ArchiveLimits(total_bytes=1000), "unpacks to .* more than"),
        (ArchiveLimits(ratio=1.5), r"more than 1\.5 times"),
    ],
)
def test_limits_hold_before_anything_is_unpacked(limits, message, tmp_path, monkeypatch):
    path = pack(tmp_path / "a.zip")
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *args: pytest.fail("something was unpacked"))
    with pytest.raises(FileError, match=message):
        list(unpack(path, limits))


def test_bomb_is_refused(tmp_path):
    path = pack(tmp_path / "a.zip", {"zeros.dcm": bytes(50 * 2**20)})
    assert path.stat().st_size < 60_000
    with pytest.raises(FileError, match="unpack to 50 MiB, more than 200 times"):
        list(unpack(path))


def test_understated_size_is_no_way_around_the_limits(tmp_path):
    path = pack(tmp_path / "a.zip", {"zeros.dcm": bytes(2**20)})
    data = bytearray(path.read_bytes())
    true = (2**20).to_bytes(4, "little")
    while (at := data.find(true)) >= 0:
        data[at : at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(FileError, match="member 1 is damaged"):
        list(unpack(path))


def test_understated_size_takes_no_memory_either(tmp_path):
    size = 2**26 + 2**13 + 77  # its bytes occur nowhere else in the archive
    path = pack(tmp_path / "a.zip", {"zeros.dcm": bytes(size)})
    path.write_bytes(path.read_bytes().replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    tracemalloc.start()
    with pytest.raises(FileError, match="member 1 is damaged"):
        list(unpack(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_spoilt_name_of_a_member_is_damage(tmp_path):
    path = pack(tmp_path / "a.zip", {"é.dcm": b"x"})
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xc3\xff", 1))  # in the member's own header
    with pytest.raises(FileError, match="member 1 is damaged"):
        list(unpack(path))


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_cannot_be_bounded_are_refused(packing, tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("a.dcm", bytes(1000))
    with pytest.raises(FileError, match="member 1 is packed otherwise than by deflate"):
        list(unpack(path))


@pytest.mark.parametrize("damage", ["cut", "flip", "text", "empty", "absent"])
def test_damaged_archive_is_told(damage, tmp_path):
    path = pack(tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    data[data.find(b"a.dcm") + 8] ^= 0xFF if damage == "flip" else 0
    data = data[: len(data) // 2] if damage == "cut" else data
    path.write_bytes({"text": b"<html>", "empty": b""}.get(damage, data))
    if damage == "absent":
        path.unlink()
    with pytest.raises(FileError, match=r"a\.zip: (not a zip|no such file|member 1 is damaged)") as caught:
        list(unpack(path))
    assert "\n" not in str(caught.value)


def test_encrypted_member_is_refused(tmp_path):
    path = pack(tmp_path / "a.zip", {"a.dcm": b"x"})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(FileError, match="member 1 is encrypted"):
        list(unpack(path))


def test_fingerprint_follows_the_content_only(tmp_path):
    one = fingerprint(pack(tmp_path / "a.zip"))
    assert one == fingerprint(pack(tmp_path / "b.zip", dict(reversed(CONTENT.items())), compresslevel=1))
    for changed in (
        CONTENT | {"a.dcm": b"other" * 50},
        CONTENT | {"c.dcm": b""},
        {"a.dcm": CONTENT["a.dcm"]},
    ):
        assert one != fingerprint(pack(tmp_path / "c.zip", changed))
    with pytest.raises(FileError, match="not a zip"):
        (tmp_path / "d.zip").write_bytes(b"no")
        fingerprint(tmp_path / "d.zip")
