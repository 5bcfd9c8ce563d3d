"""A trained network applied to a scan: from a file to a label map in the file's own space, in three lines.

segmenter = bob.Segmenter.load("workdir")
labels = segmenter("scan.nii.gz", adapt=True)
bob.write_volume("labels.nii.gz", labels)
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from flax import linen as nn

from ukbob_jax import advice, files
from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.inference.adaptation.etta import AdaptResult, Compare
from ukbob_jax.inference.adaptation.grade_guard import comparison
from ukbob_jax.inference.adaptation.methods import Method, MethodLike
from ukbob_jax.inference.nnunet.folders import is_folder as is_nnunet
from ukbob_jax.inference.options import PredictOptions
from ukbob_jax.inference.prediction import Prediction
from ukbob_jax.inference.reports import body_parts, summary
from ukbob_jax.inference.windows import averaging, slabs
from ukbob_jax.inference.windows.averaging import View
from ukbob_jax.inference.windows.memory import MemoryEstimate
from ukbob_jax.inference.windows.planning import Planner
from ukbob_jax.inference.windows.sliding import Apply, ModuleApply
from ukbob_jax.inference.windows.window import Window
from ukbob_jax.models.card import PRETRAINING, ModelCard
from ukbob_jax.options import changed
from ukbob_jax.training.checkpoints import restore_params
from ukbob_jax.training.digests import digests
from ukbob_jax.volumes import array_checks, intensity, plausibility
from ukbob_jax.volumes.nifti import check_same_space, read_volume
from ukbob_jax.volumes.resample import LINEAR, NEAREST
from ukbob_jax.volumes.volume import Volume

if TYPE_CHECKING:
    from ukbob_jax.inference.nnunet.segmenter import NnunetSegmenter

# What averaged networks must share.
SAME = ("labels", "spacing_mm", "normalize", "contrasts", "window", "regions")

ScanInput = str | os.PathLike | Volume


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
        announce: Callable[[MemoryEstimate], None] | None = None,
    ) -> None:
        """Use given parameters; `Segmenter.load` takes them from a workdir.

        Args:
            model: Flax module, `b x y z c` -> logits `b x y z k`.
            params: its parameters.
            card: of the checkpoint.
            model_state: its other collections.
            others: networks of the same architecture and description to average with.
            announce: called with the estimate for every new bucket, before its program is compiled.

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
        self.planner = Planner(model, self.members[0], len(self.members), announce)

    @classmethod
    def load(
        cls,
        workdir: str | os.PathLike | Sequence[str | os.PathLike],
        which: str = "best",
        *,
        dtype: str = "",
        announce: Callable[[MemoryEstimate], None] | None = None,
    ) -> "Segmenter | NnunetSegmenter":
        """The network of a training run, or the mean of several runs' networks, or those of an nnU-Net model folder.

        Args:
            workdir: of the run, or a list of them; holds `checkpoints`. Or `.../TRAINER__PLANS__CONFIGURATION` of
                nnU-Net v2, with all its folds and with mirroring; `nnunet.load` has more settings.
            which: "best" by validation score, or "latest".
            dtype: of the network's arithmetic, "float32" or "bfloat16"; empty: as in training.
            announce: as in `Segmenter`.

        Raises:
            FileError: there is no checkpoint, or it is damaged.
            MismatchError: the networks differ in architecture, labels or input.
        """
        folders = [workdir] if isinstance(workdir, str | os.PathLike) else list(workdir)
        if theirs := [folder for folder in folders if is_nnunet(folder)]:
            from ukbob_jax.inference.nnunet.segmenter import (
                NnunetSegmenter,
            )  # which takes `Prediction` from here

            if len(folders) > 1:
                raise ConfigError(
                    f"{theirs[0]}: a model folder of nnU-Net cannot be averaged with other networks."
                )
            return NnunetSegmenter.load(theirs[0], dtype=dtype, announce=announce)
        first, *others = (_restore(folder, which, dtype) for folder in folders)
        return cls(*first, others=[cls(*other) for other in others], announce=announce)

    def __call__(self, scan: ScanInput | Sequence[ScanInput], adapt: MethodLike = False) -> Volume:
        """Labels of a scan in its own space.

        Args:
            scan: as for `predict`.
            adapt: True adapts the norms to this scan with `etta`'s defaults; else a method, as `Method.parse` reads it.
        """
        return self.predict(scan, method=adapt).volume

    def predict(
        self, scan: ScanInput | Sequence[ScanInput], options: PredictOptions | None = None, **changes: Any
    ) -> Prediction:
        """Segment a scan.

        Args:
            scan: a file, a folder with one DICOM series or one Dixon scan, or a Volume, 3-D, or 4-D with one contrast
                after the other; or one 3-D per contrast. The order of contrasts is that of `card.contrasts`.
            options: None takes the defaults of `PredictOptions`.
            **changes: fields of `PredictOptions` that differ from `options`, such as `method="tent"`.

        Raises:
            ConfigError: an option cannot be used, or the scan needs more memory than there is; names smaller settings.
            MismatchError: another number of contrasts, contrasts on different grids, or a scan unlike those of training.
            FileError, GeometryError, ValuesError: the file cannot be used, as `read_volume`.
        """
        options = changed(options or PredictOptions(), changes, "predict")
        method, views, window = options.adaptation, options.averaged_views, options.window(self.card.window)
        sources = list(scan) if isinstance(scan, Sequence) and not isinstance(scan, str) else [scan]
        native, image = self._read(sources, options.nan, options.series)
        unusual = [
            *plausibility.compare(image.affine, image.shape, self.card.training),
            *plausibility.compare_values(image.array, self.card.training, self.card.normalize),
        ]
        if unusual and not options.accept_unusual:
            raise MismatchError(
                f"{', '.join(map(_name, sources))}: {'; '.join(unusual)}. Correct the file; or segment it all the same "
                f"with {advice.setting('accept_unusual', True)}."
            )
        x, grid = self.prepare(image)
        self.planner.check(x.shape, native.shape, len(views), method.adapts, window)
        results = [self._adapted(member, x, method, grid, window) for member in self.members]
        members = [_variables(*pair) for pair in zip(self.members, results)]
        segmentation = self.segment(ModuleApply(self.model), x, members, views, window)
        labels = Volume(np.asarray(segmentation.labels), grid.affine).resample_like(native, NEAREST)
        removed = {}
        if options.gate:
            labels, removed = self.remove_out_of_view(labels, options.attributes)
        report = summary.describe(labels, segmentation, self.card.used)
        if options.limits is not None:
            from ukbob_jax.inference.reports import verdict  # the whole of SOLF

            summary.add(report, verdict.judge(labels, self.card.used, options.limits, options.attributes))
        report |= removed
        if unusual:
            report["unusual"] = unusual
        report["scan"] = [str(s) if not isinstance(s, Volume) else "in memory" for s in sources]
        report["adaptation"] = summary.adaptations(results, method.name, self.card.channels)
        return Prediction(labels, report, self.card.used)

    @property
    def names(self) -> dict[int, str]:
        """Id to name of every label that can be written, background included."""
        return self.card.used

    @property
    def estimates(self) -> dict[Any, MemoryEstimate]:
        """Of the programs that were compiled."""
        return self.planner.estimates

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

    def segment(
        self, apply: Apply, x: np.ndarray, members: Sequence[Any], views: tuple[View, ...], window: Window
    ) -> slabs.Segmentation:
        """Labels, entropy and confidence on the network's grid.

        Args:
            apply: `(variables, b x y z c)` -> logits of this network's classes.
            x: `x y z c`, as `prepare` gives it.
            members: the variables of each network that is averaged.
            views: averaged.
            window: its size, and how it slides.
        """
        apply, variables = averaging.averaged(
            apply,
            members,
            views,
            self.card.labels,
            exclude=self.card.excluded,
            regions=self.card.regions is not None,
        )
        return slabs.segment(
            apply, variables, x, window, exclude=self.card.excluded, region_labels=self.card.region_labels
        )

    def remove_out_of_view(
        self, labels: Volume, attributes: Mapping[str, Any]
    ) -> tuple[Volume, dict[str, Any]]:
        """Labels without structures that cannot be in the scan, and what the report says of them."""
        voxel_ml = abs(np.linalg.det(labels.affine[:3, :3])) / 1000
        view = body_parts.remove_out_of_view(
            labels.array, float(voxel_ml), self.card.used, attributes.get("sex") or ""
        )
        entries = {"body_parts": list(view.present), "removed": view.removed}
        return dataclasses.replace(labels, array=view.labels), entries

    def _read(
        self, sources: list[ScanInput], nan: Literal["refuse", "zero"] = "refuse", series: str = ""
    ) -> tuple[Volume, Volume]:
        """The first file as it is stored, and all contrasts in RAS, `x y z c`."""
        for source in sources:
            if isinstance(source, Volume):  # files are checked where they are read
                array_checks.check_finite(_name(source), source.array)
            elif self.card.normalize == intensity.PREPROCESSED:
                raise MismatchError(
                    f"{_name(source)}: this network takes scans that nnU-Net's preprocessing has made. Give the folder "
                    "that its training wrote beside the checkpoints, nnunet/DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION."
                )
        contrasts = self.card.contrasts if len(sources) == 1 else ()
        stored = [s if isinstance(s, Volume) else _open(s, nan, series, contrasts) for s in sources]
        turned = [v.to_ras() for v in stored]
        for source, volume in zip(sources[1:], turned[1:]):
            check_same_space(turned[0], volume, _name(sources[0]), _name(source))
        array = np.concatenate(
            [v.array if v.array.ndim == 4 else v.array[..., None] for v in turned], axis=-1
        )
        contrasts = self.card.contrasts
        if array.shape[-1] != len(contrasts):
            raise MismatchError(
                f"{', '.join(map(_name, sources))}: {array.shape[-1]} contrasts, but this network takes "
                f"{len(contrasts)} ({', '.join(contrasts)}). Give one file per contrast in this order, or one 4-D file."
            )
        return stored[0], Volume(array, turned[0].affine, turned[0].codes)

    def prepare(self, image: Volume) -> tuple[np.ndarray, Volume]:
        """Intensities as in training, `x y z c` float32, and the volume whose grid they are on."""
        if self.card.spacing_mm:
            image = image.resample(self.card.spacing_mm, LINEAR)
        statistics = intensity.statistics(image.array)
        return np.asarray(intensity.normalize(image.array, statistics, self.card.normalize)), image

    def adapted(self, x: np.ndarray, method: Method, image: Volume, window: Window) -> dict[str, Any]:
        """All collections of the first network, adapted to a scan `x y z c` with its volume, as `prepare` gives them."""
        return _variables(self.members[0], self._adapted(self.members[0], x, method, image, window))

    def _adapted(
        self, member: tuple[Any, dict], x: np.ndarray, method: Method, image: Volume, window: Window
    ) -> AdaptResult | None:
        """Adapt one network, (parameters, other collections), to this scan."""
        params, state = member

        def labels(params: Mapping[str, Any]) -> np.ndarray:
            apply, variables = ModuleApply(self.model), {"params": params, **state}
            return np.asarray(self.segment(apply, x, [variables], averaging.PLAIN, window).labels)

        def grading(grader: Any) -> Compare:
            spacing_mm = np.linalg.norm(image.affine[:3, :3], axis=0).tolist()
            return comparison(grader, image.array, spacing_mm, self.card.contrasts, labels, params)

        network = (self.model, params, state)
        return method.run(network, x, self.card.window, self.card.activation, self.card.excluded, grading)


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
        what = "no folder checkpoints in it" if folder.parent.is_dir() else "no such folder"
        raise FileError(f"{workdir}: {what}. Give the workdir of a training run.")
    params, model_state, meta = restore_params(folder, which)
    card = ModelCard.from_json(meta, folder)
    if card.task == PRETRAINING:
        raise MismatchError(
            f"{folder}: is of a pre-training, which knows no labels. Train on labels from it first."
        )
    if card.task != "segmentation":
        raise MismatchError(
            f"{folder}: is of a network of {card.task}, which draws no labels. Give the workdir of a training on labels."
        )
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


def _open(
    scan: str | os.PathLike, nan: Literal["refuse", "zero"], series: str, contrasts: Sequence[str]
) -> Volume:
    """A file, or the DICOM series in a folder: of a Dixon scan the `contrasts`, in this order."""
    if pathlib.Path(scan).is_dir():
        from ukbob_jax.volumes.dicom import dixon_names, read_series  # pydicom is optional

        return read_series(scan, series, channels=dixon_names(contrasts))
    if series:
        raise ConfigError(
            f"{scan}: a series can be chosen in a folder of DICOM files only; leave {advice.setting('series')} out."
        )
    return read_volume(scan, channels=True, nan=nan)


def _name(scan: ScanInput) -> str:
    """The scan in a message."""
    return repr(scan) if isinstance(scan, Volume) else str(scan)
