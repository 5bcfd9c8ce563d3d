"""What a segmenter says of a scan."""

import dataclasses
import os
import pathlib
from typing import Any

from ukbob_jax import files
from ukbob_jax.volumes import case
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.volume import Volume


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
            FileError: a name that ends otherwise than `write_volume` takes, or a folder that cannot be written.
        """
        path = pathlib.Path(path)
        write_volume(path, self.volume, self.names)
        beside = path.with_name(case.stem(path) + ".json")
        files.write_json(beside, self.report)
        return beside
