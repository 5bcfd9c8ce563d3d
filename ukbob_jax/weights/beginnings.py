"""What a file of weights that cannot be read is, as far as its first bytes tell."""

import pathlib
import zipfile

_READ = 64  # bytes


def looks_like(path: pathlib.Path) -> str:
    """Why a file is no checkpoint: empty, text, a pointer, an archive without end; "" where its beginning does not tell."""
    try:
        with path.open("rb") as file:
            start = file.read(_READ)
    except OSError:
        return ""
    if not start:
        return "an empty file"
    if start.startswith(b"version https://git-lfs"):
        return "the pointer that Git LFS leaves; git lfs pull fetches the file itself"
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        return "a zip archive whose end is missing, as when a download stops"
    if all((byte >= 32 and byte != 127) or byte in b"\t\r\n" for byte in start) and start.isascii():
        return "text, such as a page that says why a download failed"
    return ""
