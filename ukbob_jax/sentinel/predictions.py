"""Label maps that a segmentation training predicted on its way, early to late: each made once and kept in a folder."""

import dataclasses
import io
import pathlib
from collections.abc import Callable

import numpy as np

from ukbob_jax import files
from ukbob_jax.errors import FileError

SUFFIX = ".npz"
TABLE = "dice.jsonl"  # rows of checkpoint, subject, organ and true Dice


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predicted label maps by checkpoint and subject.

    Attributes:
        folder: where they are kept, CHECKPOINT/SUBJECT.npz.
        names: of the checkpoints, in order.
    """

    folder: pathlib.Path
    names: tuple[str, ...]

    def path(self, name: str, subject: str) -> pathlib.Path:
        """The file of one map."""
        return self.folder / name / f"{subject}{SUFFIX}"

    def keep(self, name: str, subject: str, version: str, make: Callable[[], np.ndarray]) -> bool:
        """Make a map unless it is there, of the same `version` of the scan; return whether it was made."""
        path = self.path(name, subject)
        if path.is_file() and self._read(path)[1] == version:
            return False
        buffer = io.BytesIO()
        np.savez_compressed(buffer, labels=np.asarray(make(), np.uint8), version=np.array(version))
        files.write_bytes(path, buffer.getvalue())
        return True

    def read(self, name: str, subject: str) -> np.ndarray:
        """A map, x y z uint8.

        Raises:
            FileError: it is missing or damaged.
        """
        return self._read(self.path(name, subject))[0]

    def draw(self, subject: str, rng: np.random.Generator) -> np.ndarray:
        """The map of a checkpoint that is drawn, all alike."""
        return self.read(self.names[int(rng.integers(len(self.names)))], subject)

    @staticmethod
    def _read(path: pathlib.Path) -> tuple[np.ndarray, str]:
        try:
            with np.load(path, allow_pickle=False) as found:
                return found["labels"], str(found["version"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise FileError(
                f"{path}: cannot be read ({error}). Remove it, and the training makes it anew."
            ) from None
