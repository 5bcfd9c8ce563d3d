"""Measures of every label map of a store, by several processes if need be, each measured once."""

import concurrent.futures
import pathlib
import time
from typing import Any

import jax

from ukbob_jax import anatomy, progress
from ukbob_jax.errors import MismatchError, UkbobError
from ukbob_jax.quality import cache
from ukbob_jax.quality.limits import Limits
from ukbob_jax.quality.measures import OrganMeasures, measure
from ukbob_jax.store.reader import Store

UNION = "union of labels"
_SAVE_SECONDS = 30.0


def version(store: Store, subject: str, label: str) -> str:
    """Return which writing of the label map this is; it changes when the map is replaced."""
    return store.rows[subject].folders[f"label/{label}"].split("/")[0]


def body_set(store: Store, label: str, body: str) -> str:
    """Return `body` where every subject with label set `label` has that label set too, else "".

    One cohort is measured against one kind of body: fractions of a mask and of a union do not compare.
    """
    rows = [row.labels for row in store.rows.values()]
    return body if body and all(body in labels for labels in rows if label in labels) else ""


def body_name(body: str) -> str:
    """Return what limits say of the body that they were fitted with."""
    return f"label set {body}" if body else UNION


def check_body(limits: Limits, body: str, where: str) -> None:
    """Refuse to judge fractions of one kind of body by limits that were fitted on fractions of another.

    Raises:
        MismatchError: naming both.
    """
    fitted = limits.provenance.get("body", UNION)
    if fitted != body_name(body):
        raise MismatchError(
            f"{where}: fitted with the body as {fitted}, here it is the {body_name(body)}. "
            "Fit limits with --config.solf.body= (the union of labels) to judge without body masks."
        )


def measured(
    store: Store,
    subjects: list[str],
    label: str,
    folder: pathlib.Path,
    stations: str = "",
    name: str = "",
    body: str = "",
) -> tuple[dict[str, OrganMeasures], dict[str, UkbobError]]:
    """Measure every subject, or take what any process saved where the label map is the same; also return errors by subject.

    New ones are saved in `folder` while they come, so that a stopped run goes on where it was.

    Args:
        stations: label set with each voxel's station, or "".
        name: added to the file that is saved, where several processes save at a time.
        body: label set that is not 0 in the body, or "": the union of the labels measured.
    """
    known = cache.load_all(folder)
    keys = {subject: _key(store, subject, label, stations, body) for subject in subjects}
    found = {s: known[s] for s in subjects if s in known and known[s][0] == keys[s]}
    missing = [s for s in subjects if s not in found]
    errors: dict[str, UkbobError] = {}
    path, saved = folder / f"measures{name}.npz", time.monotonic()
    devices = devices_to_use()

    def one(task: tuple[int, str]) -> OrganMeasures | UkbobError:
        number, subject = task
        try:
            labels = store.read(subject, f"label/{label}")
            station = store.read(subject, f"label/{stations}") if stations else None
            inside = store.read(subject, f"label/{body}") if body else None
            with jax.default_device(devices[number % len(devices)]):
                spacing = store.rows[subject].spacing_mm
                return measure(labels, spacing, anatomy.NUM_CLASSES, inside, station)
        except UkbobError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(2 * len(devices)) as pool:  # one reads while another counts
        results = progress.track(pool.map(one, enumerate(missing)), "solf", len(missing))
        for result, subject in zip(results, missing):
            if isinstance(result, UkbobError):
                errors[subject] = result
                continue
            found[subject] = keys[subject], result
            if time.monotonic() - saved > _SAVE_SECONDS:
                cache.save(path, found)
                saved = time.monotonic()
    if missing and found:
        cache.save(path, found)
    return {subject: result for subject, (_, result) in found.items()}, errors


def devices_to_use() -> list[Any]:
    """List every accelerator, as JAX's devices; of CPUs one, whose threads use all cores."""
    found = jax.local_devices()
    return found[:1] if found[0].platform == "cpu" else found


def _key(store: Store, subject: str, label: str, stations: str, body: str) -> str:
    """Return a key that changes when the label map, the station map or the body does."""
    row = store.rows[subject]
    used = (name for name in (label, stations, body) if name)
    return ":".join([row.source, *(row.folders.get(f"label/{name}", "") for name in used)])
