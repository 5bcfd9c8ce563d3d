"""How bytes lie in a store: folders, array layouts, and rows that notice a flipped bit.

    store.json                           format and version
    manifest.jsonl                       one row per subject; a cache of the done.json files, absent while subjects change
    datasets.json                        keys of the public data sets it was made from, where known; see `origins`
    subjects/<id>/done.json              the row plus digests; its rename into place makes the subject exist
    subjects/<id>/<generation>/image     zarr3, int16 (float32 where int16 would lose much), x y z c
    subjects/<id>/<generation>/label/S   zarr3, uint8, x y z, label set S; S may be mask/NAME, then 0 and 1
    subjects/<id>/<generation>/samples/S zarr3, int16, k n 3: voxels of each class in S, -1 where it has fewer

A rewritten subject or an added label set goes into the next generation's folder, and `done.json` names the folder of
every array, so that what was there stays readable until the new row is in place. Paths are local or URLs (gs://).
"""

import os
import re
from typing import Any

import tensorstore as ts

from ukbob_jax.errors import ValuesError
from ukbob_jax.volumes.case import ANATOMY as ANATOMY
from ukbob_jax.volumes.case import ANONYMISATION as ANONYMISATION

FORMAT = {"format": "ukbob-store", "version": 1}
CHUNK = 32  # voxels, target per axis
SAMPLES = 512  # voxels kept per class
ATTRIBUTES = (
    "age_years",
    "bmi_kg_m2",
    "body_part",
    "derived_from",
    "echo_time",
    "echo_time_ms",
    "field_strength_t",
    "flip_angle_deg",
    "handedness",
    "health_status",
    "height_mm",
    "is_brain_extract",
    "manufacturer",
    "modality",
    "phase_encoding_direction",
    "quality_score",
    "race",
    "repetition_time",
    "repetition_time_ms",
    "scanner",
    "seed",
    "sex",
    "site",
    "study",
    "weight_kg",
)  # technical facts a row may carry; nothing that names or dates a person
MASKS = "mask/"  # label sets that begin so hold 0 and 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LZ4 = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 2, "blocksize": 0}
_CODECS = {
    "int16": {"name": "blosc", "configuration": _LZ4},
    "float32": {"name": "blosc", "configuration": {**_LZ4, "typesize": 4}},
    "uint8": {"name": "zstd", "configuration": {"level": 9, "checksum": False}},
}
_CRC = {"name": "crc32c"}


def open_root(path: str | os.PathLike) -> ts.KvStore:
    """Open the files under `path`, a local folder or a URL such as gs://bucket/folder, by relative name."""
    text = os.fspath(path)
    spec = text if "://" in text else {"driver": "file", "path": os.path.abspath(text)}
    return ts.KvStore.open(spec).result() / ("" if text.endswith("/") else "/")


def check_name(name: str, what: str) -> str:
    """Return `name` when it is safe as a folder name.

    Raises:
        ValuesError: it is empty, too long, or has separators or other characters that could leave the store.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValuesError(
            f"{what} {name!r}: use 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit."
        )
    return name


def check_label_set(name: str, what: str) -> str:
    """Return `name` when it names a label set: as `check_name`, or "mask/" and such a name.

    Raises:
        ValuesError: as `check_name`, or "mask", whose folder the masks lie in.
    """
    if name == MASKS.rstrip("/"):
        raise ValuesError(f"{what} {name!r}: masks are named {ANATOMY}, {ANONYMISATION} or the like.")
    rest = name.removeprefix(MASKS) if isinstance(name, str) else name
    check_name(rest, what)
    return name


def is_mask(label_set: str) -> bool:
    """Return whether a label set holds 0 and 1 only."""
    return label_set.startswith(MASKS)


def subject_folder(subject: str) -> str:
    """Return the folder of a subject below the store."""
    return f"subjects/{check_name(subject, 'subject')}/"


def chunks(size: tuple[int, ...]) -> list[int]:
    """Choose chunk lengths of about `CHUNK` voxels that tile `size`."""
    return [-(-n // max(1, round(n / CHUNK))) for n in size]


def array_spec(
    folder: ts.KvStore, name: str, shape: tuple[int, ...], image_dtype: str = "int16"
) -> dict[str, Any]:
    """Return the TensorStore spec of one array, the same for writing and reading.

    On reading, TensorStore compares it with the stored `zarr.json`: a layout that differs is an error. Empty chunks
    are written and missing ones are an error, so that lost data never reads as background.
    """
    kind = name.split("/")[0]
    if kind == "image":
        inner, dtype, axes = [*chunks(shape[:3]), shape[3]], image_dtype, ["x", "y", "z", "c"]
        codecs = [{"name": "transpose", "configuration": {"order": [3, 0, 1, 2]}}]  # compresses per contrast
    elif kind == "label":
        inner, dtype, axes, codecs = chunks(shape), "uint8", ["x", "y", "z"], []
    else:
        inner, dtype, axes, codecs = [1, *shape[1:]], "int16", ["k", "n", "axis"], []
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    codecs = [*codecs, {"name": "bytes"} if dtype == "uint8" else little, _CODECS[dtype], _CRC]
    sharding = {"chunk_shape": inner, "codecs": codecs, "index_codecs": [little, _CRC]}
    shard = [-(-n // step) * step for n, step in zip(shape, inner)]
    return {
        "driver": "zarr3",
        "kvstore": (folder / "").spec().to_json(),
        "metadata": {
            "shape": list(shape),
            "data_type": dtype,
            "dimension_names": axes,
            "fill_value": 0,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        },
        "store_data_equal_to_fill_value": True,
        "fill_missing_data_reads": False,
    }


def below(folder: str) -> ts.KvStore.KeyRange:
    """Return the range of keys in `folder`, which ends with a slash."""
    return ts.KvStore.KeyRange(folder, folder[:-1] + chr(ord("/") + 1))
