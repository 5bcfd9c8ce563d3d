"""The endless data of a training whose images are made on the device: batches that say how many rows there are."""

import dataclasses
from collections.abc import Generator
from typing import Any

import jax
import numpy as np

from ukbob_jax.data import pipeline
from ukbob_jax.data.options import Config
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.store.reader import Store

NAME = "made"  # of the one subject, and of contrasts without a store


@dataclasses.dataclass(frozen=True, eq=False)
class MadeData:
    """What a pre-training asks of `TrainingData`, without images.

    Attributes:
        contrasts: names of the channels, in order.
        store: that they are of; None: none.
        spacing_mm: that all its scans share; None: no store, or they differ.
        subjects: one, which stands for all volumes.
    """

    contrasts: tuple[str, ...]
    store: Store | None = None
    spacing_mm: list[float] | None = None
    subjects: tuple[str, ...] = (NAME,)

    @classmethod
    def open(cls, config: Config, workdir: str) -> "MadeData":
        """Take contrasts and spacing from `config.store` if one is named, else as many as the network has channels.

        Raises:
            ConfigError, FileError: as `TrainingData.open`.
        """
        if config.store:
            data = TrainingData.open(config, workdir)
            return cls(data.contrasts, data.store, data.common_spacing())
        given = tuple(config.data.contrasts)
        return cls(given or tuple(f"{NAME}_{n}" for n in range(config.model.in_channels or 1)))

    def fingerprint(self) -> str:
        """Return what is learnt from: nothing that is stored."""
        return NAME

    def median_spacing(self) -> list[float]:
        """Return the spacing in mm, 1 where there is none."""
        return self.spacing_mm or [1.0, 1.0, 1.0]

    def common_spacing(self) -> list[float] | None:
        """Return the spacing in mm; None: unknown."""
        return self.spacing_mm

    def extremes(self) -> dict[str, list]:
        """Return nothing: no scan was seen."""
        return {}

    def appearance(self) -> dict[str, Any]:
        """Return nothing: no scan was seen."""
        return {}

    def batches(
        self, config: Config, start_step: int, *, views: int = 1, **_: Any
    ) -> Generator[pipeline.Batch]:
        """Yield packed batches of this process's rows, each of one voxel (`unpack.unpack`), without end."""
        del start_step
        rows, channels = config.data.batch_size * views // jax.process_count(), len(self.contrasts)
        while True:
            yield {
                "stored": np.zeros((rows, channels, 1, 1, 1), np.int16),
                "size": np.ones((rows, 3), np.int32),
                "offset": np.zeros((rows, channels), np.float32),
                "scale": np.ones((rows, channels), np.float32),
                "range": np.tile(np.array([0, 0], np.float32), (rows, 1)),
                "subject": np.zeros(rows, np.int32),
            }
