"""A trained network applied to a scan: from a file to a label map in the file's own space, in three lines.

segmenter = bob.Segmenter.load("workdir")
labels = segmenter("scan.nii.gz", adapt=True)
bob.write_volume("labels.nii.gz", labels)
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import linen as nn

from ukbob_jax import files
from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.inference import slabs, summary
from ukbob_jax.inference.etta import AdaptResult, etta
from ukbob_jax.inference.sliding import ModuleApply
from ukbob_jax.models.swin_unetr import SwinUNETR
from ukbob_jax.training.checkpoints import restore_params
from ukbob_jax.volumes import intensity
from ukbob_jax.volumes.nifti import check_same_space, read_volume, write_volume
from ukbob_jax.volumes.volume import Volume

LINEAR, NEAREST = 1, 0
UNUSED = "unused"  # name of a class that no label map has

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
    """A network with everything that inference must know of its training: spacing, intensities, window, names."""

    def __init__(
        self,
        model: nn.Module,
        params: Mapping[str, Any],
        meta: Mapping[str, Any],
        model_state: Mapping[str, Any] | None = None,
    ) -> None:
        """Use given parameters; `Segmenter.load` takes them from a workdir.

        Args:
            model: Flax module, `b x y z c` -> logits `b x y z k`.
            params: its parameters.
            meta: of the checkpoint: `labels`, `spacing_mm`, `normalize`, `contrasts` and `roi` are used.
            model_state: its other collections.
        """
        self.model = model
        self.params = params
        self.meta = dict(meta)
        self.model_state = dict(model_state or {})
        self.names = {int(label): name for label, name in meta["labels"].items()}
        last = max(self.names)
        self.excluded = tuple(c for c in range(last) if self.names.get(c, UNUSED) == UNUSED)

    @classmethod
    def load(cls, workdir: str | os.PathLike, which: str = "best") -> "Segmenter":
        """The network of a training run.

        Args:
            workdir: of the run; holds `checkpoints`.
            which: "best" by validation score, or "latest".

        Raises:
            FileError: there is no checkpoint, or it is damaged.
        """
        folder = pathlib.Path(workdir) / "checkpoints"
        if not folder.is_dir():
            raise FileError(f"{workdir}: no folder checkpoints in it. Give the workdir of a training run.")
        params, model_state, meta = restore_params(folder, which)
        return cls(SwinUNETR.from_config(meta["model"]), params, meta, model_state)

    def __call__(self, scan: Scan | Sequence[Scan], adapt: bool | Mapping[str, Any] = False) -> Volume:
        """Labels of a scan in its own space; see `predict`."""
        return self.predict(scan, adapt).volume

    def predict(
        self,
        scan: Scan | Sequence[Scan],
        adapt: bool | Mapping[str, Any] = False,
        *,
        overlap: float | Sequence[float] = 0.5,
        batch: int = 4,
    ) -> Prediction:
        """Segment a scan.

        Args:
            scan: a file or a Volume, 3-D, or 4-D with one contrast after the other; or one 3-D per contrast. The
                order of contrasts is that of `meta["contrasts"]`.
            adapt: True adapts the norms to this scan with `etta`'s defaults; a mapping gives its options.
            overlap: share of a window that its neighbour covers.
            batch: windows in a call of the network.

        Raises:
            MismatchError: another number of contrasts, or contrasts on different grids.
            FileError, GeometryError, ValuesError: the file cannot be used, as `read_volume`.
        """
        given = list(scan) if isinstance(scan, Sequence) and not isinstance(scan, str) else [scan]
        native, image = self._read(given)
        x, grid = self.prepare(image)
        params, adapted = self.adapt(x, adapt)
        found = slabs.segment(
            ModuleApply(self.model),
            {"params": params, **self.model_state},
            x,
            self.meta["roi"],
            exclude=self.excluded,
            overlap=overlap,
            batch=batch,
        )
        found = slabs.Segmentation(*(np.asarray(part) for part in found))
        labels = Volume(found.labels, grid.affine).resample_like(native, NEAREST)
        names = {label: name for label, name in self.names.items() if label not in self.excluded}
        report = summary.describe(labels, found, names)
        report["scan"] = [str(s) if not isinstance(s, Volume) else "in memory" for s in given]
        report["adaptation"] = None if adapted is None else summary.adaptation(adapted, self.names)
        return Prediction(labels, report, names)

    def _read(self, given: list[Scan]) -> tuple[Volume, Volume]:
        """The first file as it is stored, and all contrasts in RAS, `x y z c`."""
        stored = [s if isinstance(s, Volume) else read_volume(s, channels=True) for s in given]
        turned = [v.to_ras() for v in stored]
        for source, volume in zip(given[1:], turned[1:]):
            check_same_space(turned[0], volume, _name(given[0]), _name(source))
        array = np.concatenate(
            [v.array if v.array.ndim == 4 else v.array[..., None] for v in turned], axis=-1
        )
        contrasts = list(self.meta["contrasts"])
        if array.shape[-1] != len(contrasts):
            raise MismatchError(
                f"{', '.join(map(_name, given))}: {array.shape[-1]} contrasts, but this network takes "
                f"{len(contrasts)} ({', '.join(contrasts)}). Give one file per contrast in this order, or one 4-D file."
            )
        return stored[0], Volume(array, turned[0].affine, turned[0].codes)

    def prepare(self, image: Volume) -> tuple[np.ndarray, Volume]:
        """Intensities as in training, `x y z c` float32, and the volume whose grid they are on."""
        if self.meta.get("spacing_mm"):
            image = image.resample(self.meta["spacing_mm"], LINEAR)
        statistics = intensity.statistics(image.array)
        return np.asarray(intensity.normalize(image.array, statistics, self.meta["normalize"])), image

    def adapt(self, x: np.ndarray, adapt: bool | Mapping[str, Any]) -> tuple[Any, AdaptResult | None]:
        """Parameters for this scan, and how they came about; None where adaptation was not asked for."""
        if adapt is False:
            return self.params, None
        options = {} if adapt is True else dict(adapt)
        fixed = {"roi": self.meta["roi"], "model_state": self.model_state, "exclude": self.excluded}
        result = etta(self.model, self.params, x, **fixed, **options)
        return result.params, result


def _name(scan: Scan) -> str:
    """The scan in a message."""
    return repr(scan) if isinstance(scan, Volume) else str(scan)
