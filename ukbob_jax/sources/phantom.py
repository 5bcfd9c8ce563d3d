"""The synthetic cohort as a source: label set "manual" is the truth, "auto" has the planted errors."""

import dataclasses
from typing import Any

import numpy as np

from ukbob_jax import phantom
from ukbob_jax.phantom import label_errors, scanners
from ukbob_jax.splits import assign_splits, digest

VERSION = 1  # raise it when the phantom changes, so that stores are made anew


@dataclasses.dataclass(frozen=True)
class Phantom:
    """One synthetic subject.

    Attributes:
        seed: makes the body; planted errors and the scanner draw from it too.
        shape: voxels, x y z, of the fixed field of view.
        errors: fraction of the large organs' labels in "auto" that get an error.
        scanner: a name of `phantom.scanners.SCANNERS`; "": the scanner of training.
    """

    subject: str
    split: str
    seed: int
    shape: tuple[int, int, int]
    errors: float
    scanner: str

    def files(self) -> list[str]:
        """List nothing: a phantom is computed."""
        return []

    def checksum(self) -> str:
        """Digest everything it is computed from."""
        return digest({"phantom": VERSION, **dataclasses.asdict(self)})

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute image `x y z c` and true label `x y z`."""
        return phantom.subject(self.seed, self.shape)

    def convert(self, scan: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
        """Plant errors and render the scanner; what was planted is in the row's `quality`."""
        image, label = scan
        noisy, planted = (
            label_errors.plant(label, self.seed, share=self.errors) if self.errors else (label, [])
        )
        return {
            "image": scanners.render(image, self.scanner, self.seed) if self.scanner else image,
            "affine": phantom.affine(self.shape),
            "labels": {"manual": label, "auto": noisy},
            "contrasts": phantom.CONTRASTS,
            "attributes": {"sex": phantom.describe(self.seed)["sex"], "seed": self.seed},
            "quality": {"planted": [error._asdict() for error in planted]},
        }


def list_subjects(
    *,
    count: int,
    shape: tuple[int, int, int],
    seed: int,
    first: int = 0,
    errors: float = 0.0,
    corrupted_fraction: float = 1.0,
    scanner: str = "",
    splits: dict[str, int] | None = None,
) -> list[Phantom]:
    """List a cohort of `count` subjects, numbers `first` onwards of the endless cohort that `seed` names.

    Args:
        errors: fraction of a corrupted subject's large organs that get an error.
        corrupted_fraction: of the training subjects; the others' labels are true.
        splits: number of subjects per split; the rest trains.
    Raises:
        ConfigError: more subjects in splits than in the cohort, or an unknown scanner.
    """
    names = {f"phantom-{number:05d}": number for number in range(first, first + count)}
    split_of = assign_splits(list(names), splits or {}, seed)
    training = [name for name in names if split_of[name] == "train"]
    drawn = sorted(training, key=lambda name: digest({"spoilt": seed, "subject": name}))
    wrong = set(drawn[: round(corrupted_fraction * len(drawn))])
    return [
        Phantom(
            subject=name,
            split=split_of[name],
            seed=seed * 1_000_000 + number,
            shape=(shape[0], shape[1], shape[2]),  # a list in a recipe
            errors=errors if name in wrong else 0.0,
            scanner=scanner,
        )
        for name, number in names.items()
    ]
