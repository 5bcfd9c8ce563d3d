"""SHA-256 of one file of a store, wherever the store lies."""

import hashlib

import tensorstore as ts


def digest(folder: ts.KvStore, key: str) -> str | None:
    """Return the SHA-256 of the file `key` below `folder`, in hexadecimal; None where there is no such file.

    A local file is read piece by piece, so that no copy of it is held; from a bucket it comes whole.
    """
    place = (folder / key).spec().to_json()
    if place["driver"] == "file":
        try:
            with open(place["path"], "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None
    found = folder.read(key).result()
    return None if found.state == "missing" else hashlib.sha256(found.value).hexdigest()
