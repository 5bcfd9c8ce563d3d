"""A model folder in the place of a trained network of ours: scans to label maps with their reports."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from ukbob_jax import files
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation.methods import MethodLike
from ukbob_jax.inference.nnunet import model
from ukbob_jax.inference.nnunet.model import NnunetModel
from ukbob_jax.inference.nnunet.preprocess import ScanInput
from ukbob_jax.inference.options import PredictOptions
from ukbob_jax.inference.reports import summary
from ukbob_jax.inference.segmenter import Prediction
from ukbob_jax.options import changed
from ukbob_jax.training.digests import digests
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
        _check(options)
        array, properties = self.planner.preprocess(scan, options.nan, self.mirror)
        labels, certain = self.planner.segment(array, properties, self.mirror, certainty=True)
        assert certain is not None
        plans = self.planner.plans
        report = summary.describe(labels, certain, plans.labels)
        sources = list(scan) if isinstance(scan, Sequence) and not isinstance(scan, str) else [scan]
        report["scan"] = [str(s) if not isinstance(s, Volume) else "in memory" for s in sources]
        report["adaptation"] = None
        report["nnunet"] = {
            **{"dataset": plans.dataset_name, "trainer": plans.trainer, "configuration": plans.configuration},
            "folds": [os.path.basename(os.path.dirname(path)) for path in self.planner.checkpoints],
            "mirror_axes": list(self.planner.mirror_axes) if self.mirror else [],
            "step_size": self.planner.step_size,
        }
        return Prediction(labels, report, plans.labels)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with whatever decides a prediction, as `Segmenter.digest`."""
        planner = self.planner
        facts = [planner.plans.plans, planner.plans.dataset, planner.plans.configuration, planner.step_size]
        stages = (planner, planner.previous) if planner.previous else (planner,)
        arrays = [digests(member) for stage in stages for member in stage.members]
        return files.fingerprint([arrays, repr(planner.network), facts, planner.mirror_axes, self.mirror])


def _check(options: PredictOptions) -> None:
    """Refuse settings that would be without effect."""
    default = PredictOptions()
    for field in dataclasses.fields(options):
        if field.name not in _TAKEN and getattr(options, field.name) != getattr(default, field.name):
            raise ConfigError(
                f"{field.name}: networks of nnU-Net do not take it; their tiles and mirroring are set when they are "
                "loaded (batch, step_size, mirror)."
            )
