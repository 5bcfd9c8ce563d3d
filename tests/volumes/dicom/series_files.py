"""A series of DICOM files made of a small random volume, whatever its orientation."""

import pathlib

import numpy as np
from pydicom.uid import generate_uid

from tests.volumes import ukb_archive
from ukbob_jax.volumes.volume import Volume

SHAPE = (7, 6, 5)


def volume(directions=((1, 0, 0), (0, 1, 0), (0, 0, 1)), seed: int = 0) -> Volume:
    """Unequal sizes, spacings and offsets, so that no two axes can be confused."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(directions) * (1.25, 2.5, 4.0)
    affine[:3, 3] = (-31.5, 12.25, 140.75)
    return Volume(np.random.default_rng(seed).integers(0, 4000, SHAPE).astype(np.int16), affine)


def images(truth: Volume, **tags) -> list[ukb_archive.Image]:
    """A series of `truth`, whatever its orientation: rows along its second axis, columns along its first."""
    to_lps = np.diag([-1.0, -1.0, 1.0])
    uid = generate_uid()
    found = []
    for z in range(truth.shape[2]):
        one = ukb_archive.header(1, "water", truth)
        corner = to_lps @ (truth.affine @ [0, 0, z, 1])[:3]
        along = to_lps @ (truth.affine[:3, :3] / truth.spacing_mm)
        one.ImagePositionPatient = [f"{v:.10g}" for v in corner]
        one.ImageOrientationPatient = [f"{v:.10g}" for v in (*along[:, 0], *along[:, 1])]
        one.SeriesInstanceUID, one.SOPInstanceUID = uid, generate_uid()
        for tag, value in tags.items():
            setattr(one, tag, value)
        found.append(ukb_archive.Image(1, "water", z, one, truth.array[:, :, z].T.astype(np.uint16)))
    return found


def write(folder: pathlib.Path, found: list[ukb_archive.Image]) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(3).permutation(len(found))
    for name, number in enumerate(order):
        (folder / f"IM{name:04d}").write_bytes(ukb_archive.encode(found[number]))
    return folder
