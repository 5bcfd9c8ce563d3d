"""Labels from a model folder of nnU-Net: subjects side by side, their tiles together on all devices."""

import contextlib
import dataclasses
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ukbob_jax import files
from ukbob_jax.data.options import Config
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation.etta import AdaptResult
from ukbob_jax.inference.adaptation.methods import Method
from ukbob_jax.inference.nnunet import adapting, presets
from ukbob_jax.inference.nnunet.batching import TileBatcher
from ukbob_jax.inference.nnunet.checkpoint import ALL
from ukbob_jax.inference.nnunet.model import NnunetModel
from ukbob_jax.inference.nnunet.presets import PresetSegmenter
from ukbob_jax.inference.nnunet.segmenter import NnunetSegmenter
from ukbob_jax.inference.nnunet.tile_network import told
from ukbob_jax.inference.nnunet.tiles import STEP, Tiles
from ukbob_jax.labelling import names
from ukbob_jax.labelling.labelled import Labelled
from ukbob_jax.labelling.merge import Merge
from ukbob_jax.training import sharding
from ukbob_jax.volumes.volume import Volume

STORED = "RAS"  # axes of a store's images
FolderSegmenter = NnunetSegmenter | PresetSegmenter


@dataclasses.dataclass(frozen=True, eq=False)
class FolderLabeller:
    """A model folder as labeller; scans may be given by several threads at a time.

    Attributes:
        segmenter: of the folder.
        lookup: uint8, its labels -> our ids.
        contrasts: of an image, in their order; for a model of several channels that of its channels.
        merge: of the label maps of several contrasts, for a model of one channel.
        orientation: where the axes point of what the model is given, such as "LPS".
        method: how the network is adapted to each scan.
        batcher: runs the tiles.
        facts: the provenance of its labels, JSON values.
        told: results of adaptation, for `summary`.
    """

    segmenter: FolderSegmenter
    lookup: np.ndarray
    contrasts: tuple[str, ...]
    merge: Merge
    orientation: str
    method: Method
    batcher: TileBatcher
    facts: dict[str, Any]
    told: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def __call__(self, image: Volume, attributes: Mapping[str, Any]) -> Labelled:
        """Label a scan.

        Args:
            image: `x y z c`, contrasts as above.
            attributes: of the person: `sex`, for the rules of merging.
        Raises:
            UkbobError: of `Segmenter.predict`.
        """
        channels = [Volume(image.array[..., c], image.affine) for c in range(image.array.shape[3])]
        together = len(self.segmenter.channels) > 1
        found = [self._one(group, image) for group in ([channels] if together else [[c] for c in channels])]
        facts = [one for _, one in found if one]
        merged = self.merge([labels for labels, _ in found], self.contrasts, attributes.get("sex"))
        return Labelled(merged, {"adaptation": facts} if facts else {})

    def summary(self) -> list[str]:
        """Lines on how full the batches were, and on what adaptation did beside leaving the networks alone."""
        filled = self.batcher.filled
        if not filled.batches:
            return []
        share = 100 * filled.tiles / filled.places
        lines = [
            f"label: {filled.tiles} tiles in {filled.batches} batches over {len(self.batcher.devices)} devices, "
            f"{share:.0f} % of the places filled"
        ]
        if self.told:
            off, on = (np.mean([one[f"entropy_{when}"] for one in self.told]) for when in ("before", "after"))
            taken = sum(one["accepted"] for one in self.told)
            lines.append(
                f"{self.method.name}: mean entropy {off:.4f} (off) -> {on:.4f}, used in {taken} of {len(self.told)} scans"
            )
        return lines

    def _one(self, channels: list[Volume], image: Volume) -> tuple[np.ndarray, dict[str, Any]]:
        """Our ids of a scan `x y z`, and what adaptation did; channels as they are stored."""
        results: list[AdaptResult] = []

        def run(model: NnunetModel, array: np.ndarray, tiles: Tiles, mirror: bool) -> Iterator[jax.Array]:
            own: tuple[adapting.Leaves, ...] = ()
            if self.method.adapts:
                with self.batcher.device():
                    found = adapting.adapt(model, array, self.method)
                results.extend(found)
                own = adapting.leaves(found, self.method)
            return self.batcher.planes(model, array, tiles, mirror, own)

        given = [channel.reorient(self.orientation) for channel in channels]
        try:
            labels = self.segmenter.running(run).labels(given).reorient(image.orientation)
        except jax.errors.JaxRuntimeError as error:
            raise told(error) from error
        facts = adapting.facts(results) if results else {}
        if facts:
            with self.lock:
                self.told.append(facts)
        return self.lookup[labels.array], facts


def make(
    settings: Config, stored: Sequence[str], method: Method, dtype: str, mesh: Mapping[str, int]
) -> FolderLabeller:
    """The labeller of a recipe, with its networks read and checked.

    Args:
        settings: section `labeller`.
        stored: contrasts of the store.
        method: how the network is adapted to each scan.
        dtype: of the network's arithmetic; empty: float32.
        mesh: section `mesh`, of the devices of this process.
    Raises:
        ConfigError, FileError, MismatchError: a setting or the folder cannot be used.
    """
    segmenter, models = _load(settings, dtype)
    for model in models:
        adapting.check(model, method, "labeller.method")
    if isinstance(segmenter, PresetSegmenter):
        lookup = names.by_label_set(segmenter.names, segmenter.recipe.label_set)
    else:
        lookup = names.to_taxonomy(segmenter.names, settings.model, settings.labels, settings.label_table)
    contrasts = order(segmenter.channels, settings.contrasts, stored)
    together = len(segmenter.channels) > 1
    merged = Merge.parse(settings.merge, settings.water_only, () if together else contrasts)
    orientation = settings.orientation or ("" if settings.preset else _own_orientation(models[0])) or STORED
    check_orientation(orientation)
    if settings.workers < 0:
        raise ConfigError(
            f"labeller.workers={settings.workers}: must be at least 1, or 0 for what suits the devices."
        )
    mesh_of_devices, batch = _devices(mesh, settings.batch or models[0].batch)
    batcher = TileBatcher(
        mesh_of_devices,
        batch,
        settings.workers,
        announce=lambda estimate: print(estimate, file=sys.stderr, flush=True),
        beside=max(adapting.gradient_bytes(model, method) for model in models),
    )
    facts = {
        **{"labeller": "nnunet", "model": dict(segmenter.provenance), "digest": segmenter.digest},
        **{"dtype": dtype, "orientation": orientation, **method.to_json()},
        "ids": files.fingerprint(lookup.tolist()),
    }
    if not together and len(contrasts) > 1:
        facts["merge"] = [merged.kind, list(merged.water_only) if merged.kind == "rules" else []]
    return FolderLabeller(segmenter, lookup, contrasts, merged, orientation, method, batcher, facts)


def _load(settings: Config, dtype: str) -> tuple[FolderSegmenter, list[NnunetModel]]:
    """The segmenter of a recipe, and its models; all weights stay in memory."""
    if not settings.model:
        raise ConfigError(
            "labeller.model is empty: name a model folder, .../Dataset123_Name/TRAINER__PLANS__CONFIGURATION, or with "
            "labeller.preset the folder of its weights."
        )
    if not settings.preset:
        if settings.speed:
            raise ConfigError(f"labeller.speed={settings.speed!r} goes with labeller.preset, which is empty.")
        options = {"folds": settings.folds or ALL, "step_size": settings.step_size or STEP, "dtype": dtype}
        one = NnunetSegmenter.load(settings.model, mirror=settings.mirror, **options)
        return one, [one.planner]
    for field in ("labels", "label_table", "orientation"):
        if settings[field]:
            raise ConfigError(f"labeller.{field}: the preset {settings.preset} knows it; leave it empty.")
    made = presets.preset(
        settings.preset,
        settings.model,
        speed=settings.speed,
        folds=settings.folds or None,
        step_size=settings.step_size or None,
        dtype=dtype,
        kept_bytes=sys.maxsize,
    )
    return made, [part.get() for part in made.models]


def _own_orientation(model: NnunetModel) -> str:
    """What dataset.json says of the axes of the images that the model was trained on; "": nothing."""
    said = model.plans.dataset.get("orientation", "")
    return "".join(said) if isinstance(said, str | list) else str(said)


def _devices(mesh: Mapping[str, int], batch: int) -> tuple[Mesh, int]:
    """The devices of this process as the recipe's mesh has them, and tiles per device."""
    devices = jax.local_devices()
    data, fsdp, space = (mesh[axis] for axis in ("data", "fsdp", "space"))
    count = fsdp * (data if data > 0 else max(len(devices) // (fsdp * space), 1))
    if batch < 1:
        raise ConfigError(f"labeller.batch={batch}: must be at least 1, or 0 for what suits the network.")
    return sharding.make_mesh(**mesh, batch_size=batch * count, devices=devices), batch


@contextlib.contextmanager
def working(labeller: FolderLabeller) -> Iterator[None]:
    """Hold the devices, and say at the end what was done on them."""
    try:
        with labeller.batcher:
            yield
    finally:
        for line in labeller.summary():
            print(line, file=sys.stderr, flush=True)


def order(channels: Sequence[str], wanted: Sequence[str], stored: Sequence[str]) -> tuple[str, ...]:
    """The contrasts that a model is given; of a model of one channel each is labelled by itself.

    Args:
        channels: of the model, by the names of its dataset.json.
        wanted: of the recipe; empty: none is named.
        stored: of the store.
    Returns:
        Contrasts: of several channels one for each. Where the names of the channels are those of the contrasts, in any
        case and with blanks or hyphens, they say which is which; else the recipe's order does.
    Raises:
        ConfigError: another number than the model has channels, or nothing says which is which.
    """
    if len(channels) == 1:
        return tuple(wanted)
    by_name = {_plain(name): name for name in wanted or stored}
    if all(_plain(name) in by_name for name in channels):
        found = tuple(by_name[_plain(name)] for name in channels)
        if len(set(found)) == len(channels) and len(wanted) in (0, len(found)):
            return found
    if len(wanted) != len(channels):
        what = f"{len(wanted)} are chosen" if wanted else "none is chosen"
        raise ConfigError(
            f"labeller.contrasts: the model takes {len(channels)} together ({', '.join(channels)}), and {what}; name as "
            f"many of {', '.join(stored)}, in this order."
        )
    return tuple(wanted)


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def check_orientation(orientation: str) -> None:
    """Refuse an orientation that names no three axes.

    Raises:
        ConfigError: not one letter of each pair R L, A P, S I.
    """
    if sorted("RLAPSI".find(axis) // 2 for axis in orientation) != [0, 1, 2]:
        raise ConfigError(
            f"labeller.orientation={orientation!r}: expected one letter of each pair R L, A P, S I, such as LPS."
        )
