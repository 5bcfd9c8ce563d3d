"""An nnU-Net v2 model folder as it predicts: `bob.nnunet.load(folder)`."""

import contextlib
import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ukbob_jax import files
from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.inference.nnunet import checkpoint, export, folders, merge, plans, preprocess, tiles
from ukbob_jax.inference.nnunet.checkpoint import Checkpoint
from ukbob_jax.inference.nnunet.plans import NnunetPlans
from ukbob_jax.inference.nnunet.preprocess import ScanInput
from ukbob_jax.inference.nnunet.tiles import Tiles
from ukbob_jax.inference.windows import memory, sliding
from ukbob_jax.inference.windows.memory import MemoryEstimate
from ukbob_jax.inference.windows.slabs import Segmentation
from ukbob_jax.models import architecture
from ukbob_jax.training.digests import digests
from ukbob_jax.volumes.volume import Volume

_BATCHES = {2: 8, 3: 1}  # tiles in a call of the network, by its dimensions, where nothing else is asked for
_CERTAINTY = 9  # bytes per voxel of labels, entropy and confidence
Announce = Callable[[MemoryEstimate], None]
RunTiles = Callable[["NnunetModel", np.ndarray, Tiles, bool], Iterator[jax.Array]]


@dataclasses.dataclass(frozen=True, eq=False)
class NnunetModel:
    """Networks of one model folder, one per fold, and what they were planned for.

    Attributes:
        plans: of the folder.
        network: Flax module, `b z y x c` -> logits `b z y x k`; of slices `b y x c` -> `b y x k`.
        members: variables of each fold's network.
        checkpoints: the files they are from.
        mirror_axes: of the network's input, which mirroring averages over; of the first fold's checkpoint.
        step_size: from one tile to the next at most, as a fraction of the tile.
        batch: tiles in a call of the network.
        announce: called with the estimate of memory for every new bucket.
        previous: model of a cascade's previous stage, whose labels this one sees; None: no cascade.
        run_tiles: (model, array c z y x, its tiles, mirror) -> merged logits, plane by plane, as `merge.planes` gives
            them; None: tiles of this scan alone on the first device. `batching.TileBatcher` has another.
        importance: of a tile's size, the weight of each voxel of a tile, where tiles overlap.
        title: of its work, where progress is shown.
        estimates: of the buckets met so far.
    """

    plans: NnunetPlans
    network: nn.Module
    members: tuple[dict[str, Any], ...]
    checkpoints: tuple[os.PathLike, ...]
    mirror_axes: tuple[int, ...]
    step_size: float = tiles.STEP
    batch: int = 1
    announce: Announce | None = None
    previous: "NnunetModel | None" = None
    run_tiles: RunTiles | None = None
    importance: Callable[[tuple[int, ...]], np.ndarray] = tiles.gaussian
    title: str = "segment"
    estimates: dict[Any, MemoryEstimate] = dataclasses.field(default_factory=dict)

    @property
    def provenance(self) -> dict[str, Any]:
        """What the labels are from, as JSON values."""
        said = self.plans
        return {
            **{"dataset": said.dataset_name, "trainer": said.trainer, "configuration": said.configuration},
            "folds": [pathlib.Path(path).parent.name for path in self.checkpoints],
            "step_size": self.step_size,
        }

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with every weight and every setting that decides logits."""
        facts = [self.plans.plans, self.plans.dataset, self.plans.configuration, self.step_size]
        weighted = f"{self.importance.__module__}.{self.importance.__qualname__}"
        arrays = [digests(member) for member in self.members]
        earlier = self.previous.digest if self.previous else ""
        return files.fingerprint([arrays, repr(self.network), facts, self.mirror_axes, weighted, earlier])

    def preprocess(
        self,
        paths: ScanInput | Sequence[ScanInput],
        nan: Literal["refuse", "zero"] = "refuse",
        mirror: bool = True,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The array c z y x, float32, that the network sees of a scan, and its properties; see `preprocess.run`.

        Of a cascade the previous stage labels the scan first, with `mirror` as in `predict`.

        Raises:
            MismatchError: another number of channels, or channels on different grids.
            FileError, GeometryError, ValuesError: a file cannot be used.
        """
        if self.previous is None:
            return preprocess.run(paths, self.plans, nan)
        array, properties = preprocess.crop(paths, self.plans, nan)
        earlier = self.previous.preprocess(paths, nan, mirror)
        labels, _ = self.previous.segment(*earlier, mirror=mirror)
        return preprocess.finish_cascade(array, properties, labels, self.plans), properties

    def running(self, run_tiles: RunTiles | None) -> "NnunetModel":
        """The same model with its tiles, and those of a cascade's earlier stage, run by `run_tiles`."""
        previous = self.previous.running(run_tiles) if self.previous else None
        return dataclasses.replace(self, run_tiles=run_tiles, previous=previous)

    def logits(self, array: np.ndarray, mirror: bool = True) -> np.ndarray:
        """Logits k z y x, float32, merged over tiles and folds: classes x volume, which `predict` never holds.

        Args:
            array: c z y x, as `preprocess` gives it.
            mirror: average over flips, where the checkpoint allows any.
        Raises:
            MismatchError: another number of channels.
        """
        laid = self._lay(array)
        inside = tuple(slice(b, b + s) for b, s in zip(laid.before[1:], laid.shape[1:]))
        with contextlib.closing(self._planes(array, laid, mirror)) as found:
            planes = [np.asarray(plane)[(slice(None), *inside)] for plane in found]
        return np.stack(planes, axis=1)

    def predict(self, paths: ScanInput | Sequence[ScanInput], mirror: bool = True) -> Volume:
        """Labels of a scan on the first image's own grid, uint8, or uint16 from 255 labels on.

        Args:
            paths: one file or Volume per channel, in the order of `plans.channels`; or one 4-D for all.
            mirror: as for `logits`.
        Raises:
            MismatchError, FileError, GeometryError, ValuesError: as `preprocess`.
            ConfigError: the scan needs more memory than there is.
        """
        return self.segment(*self.preprocess(paths, mirror=mirror), mirror=mirror)[0]

    def segment(
        self,
        array: np.ndarray,
        properties: dict[str, Any],
        mirror: bool = True,
        certainty: bool = False,
        held: int = 0,
    ) -> tuple[Volume, Segmentation | None]:
        """Labels on the image's grid; with `certainty` also labels, entropy and confidence on the array's grid.

        Args:
            array: c z y x, as `preprocess` gives it.
            properties: the same.
            mirror: as for `logits`.
            certainty: as above.
            held: bytes that the caller keeps meanwhile, for the estimate of memory.
        Raises:
            MismatchError, ConfigError: as `predict`.
        """
        laid = self._lay(array)
        to = export.taps(self.plans, array.shape[1:], properties)
        beside = 3 * math.prod(properties["shape_before_cropping"]) + held
        beside += _CERTAINTY * math.prod(array.shape[1:]) if certainty else 0
        if self.run_tiles is None:  # else whoever runs them knows what else is under way
            self._check_memory(laid, array, beside)
        with contextlib.closing(self._planes(array, laid, mirror)) as planes:
            labels, certain = export.label(planes, laid, to, self.plans, certainty)
        return export.paste(labels, self.plans, properties), certain

    def _lay(self, array: np.ndarray) -> Tiles:
        if array.ndim != 4 or array.shape[0] != self.plans.in_channels:
            raise MismatchError(
                f"array of shape {array.shape}: expected c z y x with {self.plans.in_channels} channels, as preprocess "
                "gives it."
            )
        return tiles.lay(array.shape[1:], self.plans.patch_size, self.step_size)

    def _planes(self, array: np.ndarray, laid: Tiles, mirror: bool) -> Generator[jax.Array, None, None]:
        if self.run_tiles is not None:
            yield from self.run_tiles(self, array, laid, mirror)
            return
        apply = sliding.ModuleApply(self.network)
        axes = self.mirror_axes if mirror else ()
        progress = self.title if len(laid.starts) > 1 else ""
        yield from merge.planes(apply, self.members, array, laid, axes, self.batch, progress, self.importance)

    def _check_memory(self, laid: Tiles, array: np.ndarray, beside: int) -> None:
        """Estimate the memory for a new bucket, refuse what does not fit, announce the rest."""
        key = (laid.bucket, self.batch)
        if key in self.estimates:
            return
        estimate = self.estimate(laid, array.shape, self.batch, beside)
        smaller = (
            {"a batch of 1 tile": lambda: self.estimate(laid, array.shape, 1, beside)}
            if self.batch > 1
            else {}
        )
        memory.check(estimate, smaller)
        self.estimates[key] = estimate
        if self.announce is not None:
            self.announce(estimate)

    def estimate(self, laid: Tiles, shape: Sequence[int], batch: int, beside: int = 0) -> MemoryEstimate:
        """Memory while a scan is labelled.

        Args:
            laid: its tiles.
            shape: of its array, c z y x.
            batch: tiles in a call of the network.
            beside: bytes that are held besides array and sums.
        """
        size = laid.patch[1:] if laid.flat else laid.patch
        x = jax.ShapeDtypeStruct((batch, *size, shape[0]), jnp.float32)
        forward = functools.partial(sliding.traced, sliding.ModuleApply(self.network))
        k, plane = self.plans.out_channels, math.prod(laid.bucket[1:])
        logits = 4 * batch * k * math.prod(size)
        return MemoryEstimate(
            bucket=laid.bucket,
            windows=len(laid.starts),
            weights=sum(map(memory.tree_bytes, self.members)),
            scan=4 * (math.prod(shape) + math.prod(laid.padded) * shape[0]) + beside,
            sums=4 * plane * ((laid.patch[0] + 4) * k + laid.patch[0]),
            network=memory.peak(forward, self.members[0], x) + 2 * logits,
            available=memory.available(jax.local_devices()[0]),
        )


def load(
    folder: str | os.PathLike,
    folds: str | int | Sequence[int | str] = checkpoint.ALL,
    *,
    step_size: float = tiles.STEP,
    batch: int = 0,
    dtype: str = "",
    trainer: str = "",
    announce: Announce | None = None,
) -> NnunetModel:
    """The networks of an nnU-Net v2 model folder; neither PyTorch nor nnU-Net is needed, and no code in it is run.

    Args:
        folder: `.../Dataset123_Name/TRAINER__PLANS__CONFIGURATION`; of a cascade the previous stage's lies beside it.
            Where the name is another, trainer and configuration are the checkpoint's.
        folds: as for `checkpoint.find`: "all", or numbers such as "0,1"; their logits are averaged.
        step_size: from one tile to the next at most, as a fraction of the tile.
        batch: tiles in a call of the network; 0: 1, and 8 for a network of slices.
        dtype: of the network's arithmetic, "float32" or "bfloat16"; empty: float32.
        trainer: take the network of this trainer in place of the checkpoint's, where that is not known here.
        announce: called with the estimate of memory for every new bucket.
    Raises:
        FileError: a file is missing or damaged, or names something that is not known here.
        MismatchError: a checkpoint does not belong to the folder.
        ConfigError: an option cannot be used.
    """
    if batch < 0:
        raise ConfigError(f"batch {batch} must be at least 1, or 0 for what suits the network.")
    if not 0 < step_size <= 1:
        raise ConfigError(f"step_size {step_size} must be above 0 and at most 1; 0.5 is usual.")
    place = folders.find(folder)
    said = plans.read(place, trainer) if folders.is_named(place) else None
    found = [checkpoint.read(path) for path in checkpoint.find(place, folds)]
    said = said or plans.read(place, trainer or found[0].trainer, found[0].configuration)
    for one in found:
        _check_trainer(one, said, trainer)
        checkpoint.check(one, said)
    sizes = {"in_channels": said.in_channels, "out_channels": said.out_channels}
    fields = {**sizes, **said.network.fields, **({"dtype": dtype} if dtype else {})}
    network = architecture.find(said.network.name).build(fields)
    return NnunetModel(
        plans=said,
        network=network,
        members=tuple(checkpoint.variables(one, network) for one in found),
        checkpoints=tuple(one.path for one in found),
        mirror_axes=found[0].mirror_axes,
        step_size=step_size,
        batch=batch or _BATCHES[len(said.patch_size)],
        announce=announce,
        previous=_previous(said, folds, step_size, batch, dtype, trainer, announce),
    )


def _previous(said: NnunetPlans, *options: Any) -> NnunetModel | None:
    """The model whose labels a cascade takes as input, in the folder beside."""
    if not said.previous_stage:
        return None
    whole = said.folder.resolve()
    first = whole.name.split("__")[:2] if folders.is_named(whole) else [said.trainer, said.plans_name]
    beside = whole.with_name("__".join([*first, said.previous_stage]))
    if not beside.is_dir():
        raise FileError(
            f"{said.folder}: a cascade, whose input are also the labels of {said.previous_stage}; put that model's folder, "
            f"{beside.name}, beside it."
        )
    folds, step_size, batch, dtype, trainer, announce = options
    earlier = load(
        beside, folds, step_size=step_size, batch=batch, dtype=dtype, trainer=trainer, announce=announce
    )
    if earlier.plans.labels != said.labels:
        raise MismatchError(f"{beside}: its labels are not those of {said.folder}.")
    return earlier


def _check_trainer(found: Checkpoint, said: NnunetPlans, trainer: str) -> None:
    """Refuse a checkpoint of another network or configuration than the folder's name says."""
    if found.configuration and found.configuration != said.configuration:
        raise MismatchError(
            f"{found.path}: was trained as {found.configuration}, and the folder is named {said.configuration}."
        )
    if trainer or found.trainer == said.trainer:
        return
    other = plans.read(said.folder, found.trainer, said.configuration)
    if other.network != said.network:
        one, two = ({"network": n.name, **n.fields} for n in (other.network, said.network))
        name = next(key for key in {**one, **two} if one.get(key) != two.get(key))
        trained, named = (fields.get(name, "the default") for fields in (one, two))
        raise MismatchError(
            f"{found.path}: was trained by {found.trainer}, whose {name} is {trained}, and the folder is named "
            f"{said.trainer}, whose {name} is {named}. Give the folder the name that it was trained under."
        )
