"""A prediction of ours beside nnU-Net's: arrays, logits, labels in files."""

import pathlib
from typing import NamedTuple

import nibabel as nib
import numpy as np

import ukbob_jax as bob
from tests.inference.nnunet.random_models import theirs
from tests.inference.nnunet.random_models.folders import Made
from ukbob_jax.inference.nnunet import preprocess
from ukbob_jax.inference.nnunet.model import NnunetModel

DATA, LOGITS, AFFINE = 2e-4, 2e-3, 1e-4  # what may differ: normalised intensities, logits, mm


class Difference(NamedTuple):
    """One scan.

    Attributes:
        data: largest of the preprocessed arrays.
        logits: largest of the merged logits.
        largest: of nnU-Net's logits.
        labels: voxels with other labels, of those where probabilities decide clearly.
        close: voxels with other labels where they do not.
        voxels: of the scan.
        affine: largest of the two files of labels.
        seen: labels that nnU-Net wrote.
        problem: what does not fit at all; "": nothing.
    """

    data: float
    logits: float
    largest: float
    labels: int
    close: int
    voxels: int
    affine: float
    seen: int
    problem: str = ""

    @property
    def equal(self) -> bool:
        """Whether nothing differs by more than rounding."""
        within = self.data <= DATA and self.logits <= LOGITS and self.affine <= AFFINE
        return within and self.labels == 0 and not self.problem


def both(made: Made, out: pathlib.Path, scans: int = 2) -> list[Difference]:
    """Predict the first scans of a folder twice, and compare."""
    spec = made.spec
    out.mkdir(exist_ok=True)
    used = theirs.predictor(made.theirs, spec.folds, spec.step)
    first = theirs.predictor(made.first, spec.folds, spec.step) if made.first else None
    ours = bob.nnunet.load(made.folder, spec.folds, step_size=spec.step)
    found = []
    for number, scan in enumerate(made.scans[:scans]):
        seen = theirs.predict(first, scan, out / f"first_{number}.nii.gz").labels if first else None
        expected = theirs.predict(used, scan, out / f"theirs_{number}.nii.gz", seen)
        found.append(compare(ours, scan, expected, out / f"ours_{number}.nii.gz", seen))
    return found


def compare(
    ours: NnunetModel,
    scan: tuple[str, ...],
    expected: theirs.Theirs,
    out: pathlib.Path,
    first: pathlib.Path | None,
) -> Difference:
    """One scan of which nnU-Net's prediction is known; `first` is its labels of a cascade's first stage."""
    files = scan if len(scan) > 1 else scan[0]
    if first is None:
        array, properties = ours.preprocess(files)
    else:  # nnU-Net's labels of the first stage: ours may differ where probabilities are close
        array, properties = preprocess.crop(files, ours.plans)
        found = bob.read_volume(first, kind="label")
        array = preprocess.finish_cascade(array, properties, found, ours.plans)
    if array.shape != expected.data.shape:
        return _odd(f"preprocessed {array.shape}, nnU-Net {expected.data.shape}")
    logits = ours.logits(array)
    labels, _ = ours.segment(array, properties)
    bob.write_volume(out, labels)
    one, other = nib.load(out), nib.load(expected.labels)
    found, wanted = (np.asarray(image.dataobj) for image in (one, other))
    if found.shape != wanted.shape:
        return _odd(f"labels {found.shape}, nnU-Net {wanted.shape}")
    differ = found != wanted
    return Difference(
        data=float(np.abs(array - expected.data).max()),
        logits=float(np.abs(logits - expected.logits).max()),
        largest=float(np.abs(expected.logits).max()),
        labels=int((differ & ~expected.close).sum()),
        close=int((differ & expected.close).sum()),
        voxels=wanted.size,
        affine=float(np.abs(one.affine - other.affine).max()),
        seen=len(np.unique(wanted)),
    )


def _odd(problem: str) -> Difference:
    return Difference(np.inf, np.inf, 0.0, 0, 0, 0, np.inf, 0, problem)
