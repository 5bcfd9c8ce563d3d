"""A neck-to-knee archive made of one phantom, and how it is read and joined."""

import functools
import pathlib

from tests.volumes import ukb_archive as ukb
from ukbob_jax.phantom import CONTRASTS
from ukbob_jax.volumes.dicom import dixon
from ukbob_jax.volumes.dicom.stations import Stations
from ukbob_jax.volumes.volume import Volume

SHAPE = (40, 30, 72)  # voxels of 12.5 x 10 x 15.3 mm: the coarsest on which stations overlap by two slices


@functools.cache
def truth(seed: int = 1) -> Volume:
    return ukb.subject(seed, SHAPE)


@functools.cache
def scanned(*gains: float) -> tuple[ukb.Image, ...]:
    return tuple(ukb.images(ukb.cut(truth(), gains=gains)))


def read(path: pathlib.Path, found, contrasts=CONTRASTS, **options) -> Stations:
    return dixon.read_archive(ukb.write_zip(path / "1_20201_2_0.zip", list(found), **options), contrasts)


def join(stations: Stations, contrasts=CONTRASTS) -> dixon.Dixon:
    return dixon.join(stations, contrasts, (), "archive")
