"""A model folder in the place of a trained network of ours: scans to label maps with their reports."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ukbob_jax import files
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation.methods import MethodLike
from ukbob_jax.inference.nnunet import model
from ukbob_jax.inference.nnunet.model import NnunetModel, RunTiles
from ukbob_jax.inference.nnunet.preprocess import ScanInput
from ukbob_jax.inference.options import PredictOptions
from ukbob_jax.inference.prediction import Prediction
from ukbob_jax.inference.reports import summary
from ukbob_jax.inference.reports.summary import Certainty
from ukbob_jax.inference.windows.memory import MemoryEstimate
from ukbob_jax.inference.windows.slabs import Segmentation
from ukbob_jax.options import changed
from ukbob_jax.volumes.volume import Volume

# `nan` counts; the two others let scans pass, or describe them for, checks that such networks have none of.
_TAKEN = ("nan", "attributes", "accept_unusual")


@dataclasses.dataclass(frozen=True, eq=False)
class NnunetSegmenter:
    """What `Segmenter.load` gives for a model folder of nnU-Net.

    Attributes:
        planner: the networks; `planner.estimates` are the programs that were compiled.
        mirror: average over flips, where the checkpoint allows any; nnU-Net's default.
    """

    planner: NnunetModel
    mirror: bool = True

    @classmethod
    def load(cls, folder: str | os.PathLike, *, mirror: bool = True, **options: Any) -> "NnunetSegmenter":
        """The networks of a folder; `options` are those of `nnunet.load`.

        Raises:
            FileError, MismatchError, ConfigError: as `nnunet.load`.
        """
        return cls(model.load(folder, **options), mirror)

    def __call__(self, scan: ScanInput | Sequence[ScanInput], adapt: MethodLike = False) -> Volume:
        """Labels of a scan in its own space; as `predict`."""
        return self.predict(scan, method=adapt).volume

    def predict(
        self, scan: ScanInput | Sequence[ScanInput], options: PredictOptions | None = None, **changes: Any
    ) -> Prediction:
        """Segment a scan.

        Args:
            scan: one file, DICOM folder or Volume per channel, in the order of dataset.json; or one 4-D for all.
            options: `nan` counts, `attributes` and `accept_unusual` have nothing to act on, and other settings than the
                defaults are refused.
            **changes: fields that differ from `options`.
        Raises:
            ConfigError: a setting that networks of nnU-Net do not take, or more memory is needed than there is.
            MismatchError, FileError, GeometryError, ValuesError: as `NnunetModel.preprocess`.
        """
        options = changed(options or PredictOptions(), changes, "predict")
        check(options)
        array, properties = self.planner.preprocess(scan, options.nan, self.mirror)
        labels, certain = self.planner.segment(array, properties, self.mirror, certainty=True)
        assert certain is not None
        return Prediction(labels, describe(labels, certain, self.names, scan, self.provenance), self.names)

    def running(self, run_tiles: RunTiles | None) -> "NnunetSegmenter":
        """The same segmenter with its tiles run by `run_tiles`, as `NnunetModel.running`."""
        return dataclasses.replace(self, planner=self.planner.running(run_tiles))

    def labels(self, scan: ScanInput | Sequence[ScanInput]) -> Volume:
        """The volume of `predict` without a report, which takes less time."""
        return self.planner.predict(scan, self.mirror)

    @property
    def names(self) -> dict[int, str]:
        """Id to name of every label that can be written, background included."""
        return self.planner.plans.labels

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of a scan's channels, in the order of `predict`."""
        return self.planner.plans.channels

    @property
    def label_set(self) -> str:
        """Key of `anatomy.DATASETS` whose ids are written; empty: none of them, `names` says it."""
        return ""

    @property
    def provenance(self) -> dict[str, Any]:
        """What the labels are from, as JSON values."""
        axes = list(self.planner.mirror_axes) if self.mirror else []
        return self.planner.provenance | {"mirror_axes": axes}

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with whatever decides a prediction, as `Segmenter.digest`."""
        return files.fingerprint([self.planner.digest, self.mirror])

    @property
    def estimates(self) -> dict[Any, MemoryEstimate]:
        """Of the programs that were compiled."""
        return self.planner.estimates


def describe(
    labels: Volume,
    certain: Segmentation | Certainty,
    names: Mapping[int, str],
    scan: ScanInput | Sequence[ScanInput],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """The report on a label map of `scan`."""
    sources = list(scan) if isinstance(scan, Sequence) and not isinstance(scan, str) else [scan]
    return {
        **summary.describe(labels, certain, names),
        "scan": [str(s) if not isinstance(s, Volume) else "in memory" for s in sources],
        "adaptation": None,
        "nnunet": dict(provenance),
    }


def check(options: PredictOptions) -> None:
    """Refuse settings that would be without effect.

    Raises:
        ConfigError: names the first of them.
    """
    default = PredictOptions()
    for field in dataclasses.fields(options):
        if field.name not in _TAKEN and getattr(options, field.name) != getattr(default, field.name):
            raise ConfigError(
                f"{field.name}: networks of nnU-Net do not take it; their tiles and mirroring are set when they are "
                "loaded (batch, step_size, mirror)."
            )
