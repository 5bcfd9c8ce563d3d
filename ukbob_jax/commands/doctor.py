"""Tell on one screen what this installation can do: versions, devices, caches, free memory and disk, missing extras.

Nothing is changed but a file in the cache that is written and deleted. Exit code 0, also where extras are missing.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

from ukbob_jax import console


class Feature(NamedTuple):
    """What an extra is for.

    Attributes:
        what: as the user calls it.
        packages: that it needs; one written `a|b` is either.
        extra: that brings them.
    """

    what: str
    packages: tuple[str, ...]
    extra: str


FEATURES = (
    Feature("DICOM series in", ("pydicom",), "dicom"),
    Feature("DICOM segmentations out", ("pydicom", "highdicom"), "dicom"),
    Feature("compressed DICOM", ("pylibjpeg", "pylibjpeg-openjpeg|pyjpegls"), "dicom-codecs"),
    Feature("NRRD, .seg.nrrd, MetaImage, RTSTRUCT", ("pydicom", "SimpleITK"), "formats"),
    Feature("diffusion series", ("dipy", "SimpleITK"), "dwi"),
    Feature("filters of radiomic distance", ("PyWavelets", "SimpleITK"), "radiomics"),
    Feature("nnssl's preprocessed scans", ("blosc2",), "blosc2"),
    Feature("tasks over a cluster", ("distributed", "dask-jobqueue"), "cluster"),
    Feature("NVIDIA GPUs", ("jax-cuda12-plugin|jax-cuda13-plugin",), "cuda"),
    Feature("TPUs", ("libtpu",), "tpu"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> None:
    """Print what there is."""
    found = examine()
    print(json.dumps(found, indent=1) if options.json else screen(found))


def examine() -> dict[str, Any]:
    """Everything the screen shows, as JSON values."""
    import jax

    import ukbob_jax
    from ukbob_jax.training.provenance import describe_start

    start = describe_start()
    names = ("ukbob_jax", "code", "python", "machine", "packages")
    return {
        **{name: start[name] for name in names},
        "installed": os.fspath(pathlib.Path(ukbob_jax.__file__).parent),
        "devices": [device(one) for one in jax.local_devices()],
        "memory": memory(),
        "disk": {"here": disk(pathlib.Path.cwd()), "temporary": disk(temporary())},
        "compile cache": cache(),
        "features": {feature.what: describe(feature) for feature in FEATURES},
    }


def device(one: Any) -> dict[str, Any]:
    """Kind of a device, and its memory in bytes where it says."""
    stats = one.memory_stats() or {}
    return {"platform": one.platform, "kind": one.device_kind, "memory": stats.get("bytes_limit")}


def memory() -> dict[str, int | None]:
    """Memory of the machine in bytes: what this process may still take, and cores."""
    import jax

    from ukbob_jax import processes
    from ukbob_jax.inference.windows.memory import available

    return {"free": available(jax.local_devices(backend="cpu")[0]), "cores": processes.cores()}


def temporary() -> pathlib.Path:
    """Where temporary files go."""
    import tempfile

    return pathlib.Path(tempfile.gettempdir())


def disk(folder: pathlib.Path) -> dict[str, Any]:
    """Free bytes where a folder lies, and whether it can be written; None: it is not there."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        free = None
    return {"folder": os.fspath(folder), "free": free, "writable": os.access(folder, os.W_OK)}


def cache() -> dict[str, Any]:
    """The compile cache: folder, programs, bytes, limit, and what is wrong with it."""
    from ukbob_jax.devices import cache_folder, cache_limit, use_compile_cache
    from ukbob_jax.errors import ConfigError

    folder = cache_folder()
    found: dict[str, Any] = {"folder": folder or "off", "problem": ""}
    try:
        found["limit"] = cache_limit()
        use_compile_cache()
    except ConfigError as error:
        found["problem"] = str(error)
    programs = [path.stat().st_size for path in pathlib.Path(folder).glob("*-cache")] if folder else []
    return found | {"programs": len(programs), "bytes": sum(programs)}


def describe(feature: Feature) -> dict[str, Any]:
    """The versions of a feature's packages; those that are missing, and the command that brings them."""
    versions, missing = {}, []
    for either in feature.packages:
        there = {name: version for name in either.split("|") if (version := version_of(name))}
        versions |= there
        missing += [] if there else [either.replace("|", " or ")]
    fix = f"pip install 'ukbob-jax[{feature.extra}]'" if missing else ""
    return {"versions": versions, "missing": missing, "fix": fix}


def version_of(package: str) -> str:
    """The version of an installed package; "" where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def screen(found: dict[str, Any]) -> str:
    """The lines for a terminal, at most 40."""
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    kept = found["compile cache"]
    lines = [
        f"ukbob-jax {found['ukbob_jax']} (code {found['code']}) in {found['installed']}",
        f"Python {found['python']}, {found['machine']}",
        packages,
        "",
        *(f"device   {text}" for text in _devices(found["devices"])),
        f"memory   {size(found['memory']['free'])} free, {found['memory']['cores']} cores",
        *(
            f"disk     {size(one['free'])} free in {one['folder']}"
            + ("" if one["writable"] else ", NOT WRITABLE")
            for one in found["disk"].values()
        ),
        f"cache    {kept['folder']}: {kept['programs']} programs, {size(kept['bytes'])}"
        + (f" of {size(kept['limit'])}" if "limit" in kept else ""),
        *([f"         PROBLEM: {kept['problem']}"] if kept["problem"] else []),
        "",
        console.aligned([["feature", "", ""], *(_row(what, one) for what, one in found["features"].items())]),
        "",
        "Nothing is downloaded and nothing is sent. Code: Apache-2.0; weights and data carry the terms of their owners.",
    ]
    return "\n".join(lines)


def _devices(devices: Sequence[dict[str, Any]]) -> list[str]:
    """A line per kind of device."""
    counts: dict[tuple, int] = {}
    for one in devices:
        key = (one["platform"], one["kind"], one["memory"])
        counts[key] = counts.get(key, 0) + 1
    return [
        f"{count} x {kind} ({platform})" + (f", {size(memory)} each" if memory else "")
        for (platform, kind, memory), count in counts.items()
    ]


def _row(what: str, one: dict[str, Any]) -> list[str]:
    if one["missing"]:
        return [what, "missing", f"{', '.join(one['missing'])}: {one['fix']}"]
    return [what, "ok", ", ".join(f"{name} {version}" for name, version in one["versions"].items())]


def size(count: int | None) -> str:
    """Bytes as text."""
    if count is None:
        return "unknown"
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
