"""Diffusion series of a BIDS folder as T2-weighted image, ADC and FA: channels `t2`, `adc`, `fa`.

ADC is in mm²/s, FA from 0 to 1, T2 in units of the scan. The brain, where it is cut out, is label set `mask/anatomy`.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax import files
from ukbob_jax.diffusion import chain, gradients, picture, shells, tensor
from ukbob_jax.errors import MismatchError
from ukbob_jax.sources import persons
from ukbob_jax.sources.files import file_digest
from ukbob_jax.sources.unusable import Unusable
from ukbob_jax.splits import assign_splits, digest, units
from ukbob_jax.volumes import layouts, plausibility
from ukbob_jax.volumes.case import Case
from ukbob_jax.volumes.nifti import read_volume, write_volume
from ukbob_jax.volumes.volume import Volume

VERSION = 1  # raise it when reading or converting changes, so that stores are made anew
CONTRASTS = ("t2", "adc", "fa")
BRAIN = "mask/anatomy"
PICTURE = "maps.png"


class Series(NamedTuple):
    """A series as it lies in its file: volume `x y z n`, and the gradient of each volume in the world."""

    volume: Volume
    gradients: gradients.Gradients


@dataclasses.dataclass(frozen=True)
class SeriesFiles:
    """One series.

    Attributes:
        case: image and gradients.
        split: of the subject.
        steps: what is done to it.
        assume_ras: accept files that do not say how they are oriented.
        output: folder that receives the maps as files and a picture; "": none.
    """

    case: Case
    split: str
    steps: chain.Steps
    assume_ras: bool = False
    output: str = ""

    @property
    def subject(self) -> str:
        """The subject's id."""
        return self.case.subject

    def files(self) -> list[str]:
        """List the image and its gradients."""
        return [str(path) for path in (*self.case.images, *self.case.gradients)]

    def checksum(self) -> str:
        """Digest the files' names and bytes, and the settings; where else maps are written to does not count."""
        content = [(pathlib.Path(path).name, file_digest(path)) for path in self.files()]
        said = {"person": self.case.person, "split": self.split, "assume_ras": self.assume_ras}
        about = dict(self.case.description.attributes)
        return digest(
            {
                "dwi": VERSION,
                **dataclasses.asdict(self.steps),
                **said,
                "attributes": about,
                "content": content,
            }
        )

    def read(self) -> Series:
        """Read the series and its gradients.

        Raises:
            FileError, GeometryError, MismatchError, ValuesError: as `read_volume` and `gradients.read`.
        """
        path = self.case.images[0]
        volume = read_volume(path, channels=True, assume_ras=self.assume_ras)
        bval, bvec = self.case.gradients
        found = gradients.read(bval, bvec, volume.affine, volume.array.shape[3])
        return Series(volume, found)

    def convert(self, scan: Series) -> dict[str, Any]:
        """Carry out the steps; with `output` also write maps and picture there.

        Raises:
            ConfigError: dipy or SimpleITK is not installed.
            ValuesError: gradients that do not determine a tensor.
            FileError: the maps cannot be written.
        """
        found = chain.run(scan.volume, scan.gradients, self.steps, str(self.case.images[0]))
        place = lambda array: Volume(array, scan.volume.affine, scan.volume.codes).to_ras()  # noqa: E731
        image = place(np.stack([found.maps.t2, found.maps.adc, found.maps.fa], axis=-1))  # x y z c
        direction, mask = place(found.maps.direction), place(found.mask.astype(np.uint8))
        if self.output:
            t2, adc, fa = np.moveaxis(image.array, -1, 0)
            maps = tensor.Maps(t2, adc, fa, direction.array)
            self._write(maps, image)
        doubts = list(plausibility.doubts(image.affine, image.shape))
        if found.condition > shells.ILL_CONDITIONED:
            doubts.append(
                f"directions determine the tensor badly: condition number {found.condition:.3g}, good ones have 1.3 to 2"
            )
        if found.unaligned:
            doubts.append(
                f"motion of {found.unaligned} volumes could not be found; they were left as they were"
            )
        return {
            "image": image.array,
            "affine": image.affine,
            "labels": {BRAIN: mask.array} if self.steps.brain else {},
            "contrasts": CONTRASTS,
            "attributes": dict(self.case.description.attributes),
            "person": self.case.person,
            "description": dataclasses.replace(self.case.description, units="", label_names={}),
            "quality": {
                "diffusion": {
                    "shells": [[round(b, 1), count] for b, count in found.shells],
                    "moved_mm": round(found.moved_mm, 3),
                    "unaligned": found.unaligned,
                    "condition": round(found.condition, 3),
                },
                **({"doubts": doubts} if doubts else {}),
            },
        }

    def _write(self, maps: tensor.Maps, grid: Volume) -> None:
        folder = pathlib.Path(self.output) / self.subject
        for name in CONTRASTS:
            write_volume(folder / f"{name}.nii.gz", dataclasses.replace(grid, array=getattr(maps, name)))
        files.write_bytes(folder / PICTURE, picture.png(maps, grid.spacing_mm, self.subject))


def list_subjects(
    *,
    root: str,
    session: str = "",
    run: str = "",
    output: str = "",
    splits: Mapping[str, int] | None = None,
    seed: int = 0,
    assume_ras: bool = False,
    denoise: bool = True,
    ringing: bool = True,
    motion: bool = True,
    receive_field: bool = True,
    brain: bool = True,
    b0_s_mm2: float = 50.0,
    slice_axis: int = 2,
) -> list[SeriesFiles | Unusable]:
    """List the diffusion series of a BIDS folder, of every session and run; one without gradients is unusable.

    Args:
        root: folder of the data set.
        session, run: take these only, as the layout `bids`.
        output: folder that receives the maps of each subject as NIfTI and a picture; "": none.
        splits, seed: number of persons in each split, the rest trains.
        assume_ras: accept files that do not say how they are oriented.
        denoise, ringing, motion, receive_field, brain, b0_s_mm2, slice_axis: as `chain.Steps`.
    Raises:
        ConfigError: a setting that means nothing.
        FileError, MismatchError: as the layout.
    """
    steps = chain.Steps(denoise, ringing, motion, receive_field, brain, b0_s_mm2, slice_axis)
    chosen = {name: value for name, value in (("session", session), ("run", run)) if value}
    cases = layouts.list_cases("bids", root=root, contrasts="dwi", datatype="dwi", **chosen)
    cases = [_with_gradients(case) for case in cases]
    persons.warn_of_several_splits(cases)
    owners = {case.subject: case.person or case.subject for case in cases if not case.problem}
    unit_of = units(list(owners), owners)
    split_of = assign_splits(list(dict.fromkeys(unit_of.values())), splits or {}, seed)
    return [
        Unusable(case.subject, "", tuple(map(str, case.images)), MismatchError(case.problem))
        if case.problem
        else SeriesFiles(case, split_of[unit_of[case.subject]], steps, assume_ras, output)
        for case in cases
    ]


def _with_gradients(case: Case) -> Case:
    """The case, with a problem where no .bval and .bvec apply to it."""
    if case.problem or case.gradients:
        return case
    return case._replace(problem=f"{case.images[0]}: no .bval and .bvec beside it or above it. Add them.")
