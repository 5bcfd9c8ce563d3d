"""A trained network applied to a scan: from a file to a label map in the file's own space, in three lines.

segmenter = bob.Segmenter.load("workdir")
labels = segmenter("scan.nii.gz", adapt=True)
bob.write_volume("labels.nii.gz", labels)
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import linen as nn

from ukbob_jax import files
from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.inference import averaging
from ukbob_jax.inference.adaptation import methods
from ukbob_jax.inference.adaptation.etta import AdaptResult
from ukbob_jax.inference.averaging import View
from ukbob_jax.inference.reports import body_parts, summary, verdict
from ukbob_jax.inference.windows import slabs
from ukbob_jax.inference.windows.memory import Plan
from ukbob_jax.inference.windows.planning import Planner
from ukbob_jax.inference.windows.sliding import ModuleApply
from ukbob_jax.models.card import ModelCard
from ukbob_jax.quality.limits import Limits
from ukbob_jax.training.checkpoints import restore_params
from ukbob_jax.training.digests import digests
from ukbob_jax.volumes import intensity
from ukbob_jax.volumes.nifti import check_same_space, read_volume, write_volume
from ukbob_jax.volumes.resample import LINEAR, NEAREST
from ukbob_jax.volumes.volume import Volume

# What averaged networks must share.
SAME = ("labels", "spacing_mm", "normalize", "contrasts", "window", "regions")

Scan = str | os.PathLike | Volume


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A label map and what to know about it.

    Attributes:
        volume: labels, uint8, with the scan's own shape, affine and header codes.
        report: JSON values: volume, entropy, confidence and border contact per structure, and the adaptation.
        names: id to name.
    """

    volume: Volume
    report: dict[str, Any]
    names: dict[int, str]

    def save(self, path: str | os.PathLike) -> pathlib.Path:
        """Write the label map with its names to `path`, and the report as JSON beside it; returns the latter.

        Raises:
            FileError: a name that does not end in .nii or .nii.gz, or a folder that cannot be written.
        """
        path = pathlib.Path(path)
        write_volume(path, self.volume, self.names)
        beside = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")
        files.write_json(beside, self.report)
        return beside


class Segmenter:
    """A network with everything that inference must know of its training: spacing, intensities, window, names.

    Or several such networks, whose probabilities are averaged.
    """

    def __init__(
        self,
        model: nn.Module,
        params: Mapping[str, Any],
        card: ModelCard,
        model_state: Mapping[str, Any] | None = None,
        *,
        others: Sequence["Segmenter"] = (),
        announce: Callable[[Plan], None] | None = None,
    ) -> None:
        """Use given parameters; `Segmenter.load` takes them from a workdir.

        Args:
            model: Flax module, `b x y z c` -> logits `b x y z k`.
            params: its parameters.
            card: of the checkpoint.
            model_state: its other collections.
            others: networks of the same architecture and description to average with.
            announce: called with the plan of every new bucket, before its program is compiled.

        Raises:
            MismatchError: the networks differ in architecture, labels or input.
        """
        self.model = model
        self.params = params
        self.card = card
        self.model_state = dict(model_state or {})

        for other in others:
            _check_alike(self, other)
        self.members = ((params, self.model_state), *((o.params, o.model_state) for o in others))
        self.planner = Planner(model, self.members[0], len(self.members), self.card.window, announce)

    @classmethod
    def load(
        cls,
        workdir: str | os.PathLike | Sequence[str | os.PathLike],
        which: str = "best",
        *,
        dtype: str = "",
        announce: Callable[[Plan], None] | None = None,
    ) -> "Segmenter":
        """The network of a training run, or the mean of several runs' networks.

        Args:
            workdir: of the run, or a list of them; holds `checkpoints`.
            which: "best" by validation score, or "latest".
            dtype: of the arithmetic, "float32" or "bfloat16"; empty: as in training.
            announce: as in `Segmenter`.

        Raises:
            FileError: there is no checkpoint, or it is damaged.
            MismatchError: the networks differ in architecture, labels or input.
        """
        folders = [workdir] if isinstance(workdir, str | os.PathLike) else list(workdir)
        first, *others = (_restore(folder, which, dtype) for folder in folders)
        return cls(*first, others=[cls(*other) for other in others], announce=announce)

    def __call__(self, scan: Scan | Sequence[Scan], adapt: methods.Adapt = False) -> Volume:
        """Labels of a scan in its own space; see `predict`."""
        return self.predict(scan, adapt).volume

    def predict(
        self,
        scan: Scan | Sequence[Scan],
        adapt: methods.Adapt = False,
        *,
        overlap: float | Sequence[float] = 0.5,
        batch: int = 4,
        views: Sequence[View] = averaging.PLAIN,
        limits: Limits | None = None,
        attributes: Mapping[str, Any] | None = None,
        gate: bool = False,
    ) -> Prediction:
        """Segment a scan.

        Args:
            scan: a file, a folder with one DICOM series, or a Volume, 3-D, or 4-D with one contrast after the other; or
                one 3-D per contrast. The order of contrasts is that of `card.contrasts`.
            adapt: True adapts the norms to this scan with `etta`'s defaults; a name is one of `methods.WAYS`; a mapping
                gives options, and the name as "way" where it is not "etta".
            overlap: share of a window that its neighbour covers.
            batch: windows in a call of the network.
            views: averaged; `averaging.MIRRORED` adds the mirror image, sides exchanged.
            limits: of SOLF; the report then has its verdict on each structure.
            attributes: of the person: `sex` ("F" or "M") and `height_mm`, for limits with strata and for `gate`.
            gate: remove structures whose part of the body is not in the scan; see `body_parts`.

        Raises:
            ConfigError: the scan needs more memory than there is; names smaller settings.
            MismatchError: another number of contrasts, or contrasts on different grids.
            FileError, GeometryError, ValuesError: the file cannot be used, as `read_volume`.
        """
        given = list(scan) if isinstance(scan, Sequence) and not isinstance(scan, str) else [scan]
        native, image = self._read(given)
        x, grid = self.prepare(image)
        way, options = methods.parse(adapt)
        views = averaging.AUGMENTED if way == "tta" else tuple(views)
        window = {"overlap": overlap, "batch": batch}
        self.planner.check(x.shape, native.shape, len(views), way not in ("off", "tta"), **window)
        results = [self._adapted(member, x, way, options) for member in self.members]
        members = [_variables(*pair) for pair in zip(self.members, results)]
        found = self._segment(x, members, views, window)
        labels = Volume(found.labels, grid.affine).resample_like(native, NEAREST)
        labels, gated = self._gated(labels, attributes or {}) if gate else (labels, {})
        report = summary.describe(labels, found, self.card.used)
        if limits is not None:
            summary.add(report, verdict.judge(labels, self.card.used, limits, attributes or {}))
        report |= gated
        report["scan"] = [str(s) if not isinstance(s, Volume) else "in memory" for s in given]
        report["adaptation"] = summary.adaptations(results, way, self.card.channels)
        return Prediction(labels, report, self.card.used)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with whatever decides a prediction, for results to be kept under.

        That is: every array of every network averaged, their architecture, and what the description says of input
        and labels. The arrays that predict are looked at, whatever file they came from: seconds for a large network.
        """
        arrays = [digests({"params": params, "model_state": state}) for params, state in self.members]
        said = self.card.to_json()
        facts = {name: said.get(name) for name in SAME}
        return files.fingerprint([arrays, repr(self.model), facts])

    def _segment(
        self, x: np.ndarray, members: list[dict], views: tuple[View, ...], window: dict[str, Any]
    ) -> slabs.Segmentation:
        """Labels, entropy and confidence on the network's grid, as numpy arrays."""
        apply, variables = ModuleApply(self.model), members[0]
        if len(members) > 1 or views != averaging.PLAIN:
            mirrored = any(view.mirrored for view in views)
            card = self.card
            mirror = (
                averaging.mirror_table(card.used, card.num_classes) if mirrored and not card.regions else ()
            )
            apply = averaging.Average(apply, views, card.excluded, mirror, card.activation)
            variables = averaging.stack(members)
        options = {"exclude": self.card.excluded, "region_labels": self.card.region_labels, **window}
        found = slabs.segment(apply, variables, x, self.card.window, **options)
        return slabs.Segmentation(*(np.asarray(part) for part in found))

    def _gated(self, labels: Volume, attributes: Mapping[str, Any]) -> tuple[Volume, dict[str, Any]]:
        """Labels without impossible structures, and what the report says of them."""
        voxel_ml = abs(np.linalg.det(labels.affine[:3, :3])) / 1000
        found = body_parts.gate(labels.array, voxel_ml, self.card.used, attributes.get("sex", ""))
        told = {"body_parts": list(found.present), "removed": found.removed}
        return Volume(found.labels, labels.affine, labels.codes), told

    def _read(self, given: list[Scan]) -> tuple[Volume, Volume]:
        """The first file as it is stored, and all contrasts in RAS, `x y z c`."""
        stored = [s if isinstance(s, Volume) else _open(s) for s in given]
        turned = [v.to_ras() for v in stored]
        for source, volume in zip(given[1:], turned[1:]):
            check_same_space(turned[0], volume, _name(given[0]), _name(source))
        array = np.concatenate(
            [v.array if v.array.ndim == 4 else v.array[..., None] for v in turned], axis=-1
        )
        contrasts = self.card.contrasts
        if array.shape[-1] != len(contrasts):
            raise MismatchError(
                f"{', '.join(map(_name, given))}: {array.shape[-1]} contrasts, but this network takes "
                f"{len(contrasts)} ({', '.join(contrasts)}). Give one file per contrast in this order, or one 4-D file."
            )
        return stored[0], Volume(array, turned[0].affine, turned[0].codes)

    def prepare(self, image: Volume) -> tuple[np.ndarray, Volume]:
        """Intensities as in training, `x y z c` float32, and the volume whose grid they are on."""
        if self.card.spacing_mm:
            image = image.resample(self.card.spacing_mm, LINEAR)
        statistics = intensity.statistics(image.array)
        return np.asarray(intensity.normalize(image.array, statistics, self.card.normalize)), image

    def adapt(self, x: np.ndarray, adapt: methods.Adapt) -> tuple[Any, AdaptResult | None]:
        """Parameters for this scan, and how they came about; None where adaptation was not asked for."""
        result = self._adapted(self.members[0], x, *methods.parse(adapt))
        return (self.params if result is None else result.params), result

    def _adapted(
        self, member: tuple[Any, dict], x: np.ndarray, way: str, options: dict[str, Any]
    ) -> AdaptResult | None:
        """What the way makes of one network, (parameters, other collections), for this scan."""
        card = self.card
        fixed = {"roi": card.window, "exclude": card.excluded, "activation": card.activation}
        return methods.adapt(way, self.model, *member, x, **fixed, **options)


def _variables(member: tuple[Any, dict], result: AdaptResult | None) -> dict[str, Any]:
    """All collections of a network after adaptation."""
    params, state = member
    if result is None:
        return {"params": params, **state}
    return {"params": result.params, **(state if result.model_state is None else result.model_state)}


def _restore(workdir: str | os.PathLike, which: str, dtype: str) -> tuple[nn.Module, Any, ModelCard, Any]:
    """Model, parameters, card and other collections of a workdir's checkpoint."""
    folder = pathlib.Path(workdir) / "checkpoints"
    if not folder.is_dir():
        raise FileError(f"{workdir}: no folder checkpoints in it. Give the workdir of a training run.")
    params, model_state, meta = restore_params(folder, which)
    card = ModelCard.from_json(meta, folder)
    return card.build(dtype), params, card, model_state


def _check_alike(first: Segmenter, other: Segmenter) -> None:
    """Refuse to average networks that do not answer the same question."""
    for what in SAME:
        if getattr(first.card, what) != getattr(other.card, what):
            raise MismatchError(
                f"networks to average differ in {what}: {getattr(first.card, what)} and {getattr(other.card, what)}."
            )
    if first.model != other.model:
        raise MismatchError("networks to average differ in architecture; choose runs of one model section.")


def _open(scan: str | os.PathLike) -> Volume:
    """A file, or the DICOM series in a folder."""
    if pathlib.Path(scan).is_dir():
        from ukbob_jax.volumes.dicom import read_series  # pydicom is optional

        return read_series(scan)
    return read_volume(scan, channels=True)


def _name(scan: Scan) -> str:
    """The scan in a message."""
    return repr(scan) if isinstance(scan, Volume) else str(scan)
