"""The section `export2d` of a recipe: which slices are exported, and as what. Fields and defaults, written once."""

import dataclasses
from typing import Any

import numpy as np

from ukbob_jax import advice
from ukbob_jax.errors import ConfigError

AXES = ("x", "y", "z")
STYLES = ("sa_med2d", "demo")
INTENSITIES = ("volume", "slice", "window")
PIXELS = ("raw", "isotropic")
_CHOICES = {"style": STYLES, "intensity": INTENSITIES, "pixels": PIXELS}
_NOT_RULES = ("output", "mapping", "process", "processes")  # of the mapping its ids count, not where it lies


@dataclasses.dataclass(frozen=True)
class Export2dOptions:
    """The configuration's section `export2d`.

    Attributes:
        output: folder that is written.
        dataset: second part of every file's name.
        style: "sa_med2d", the layout of SA-Med2D-20M, or "demo", the one SAM-Med2D's loader reads.
        axes: of the volume, that are cut: "x" (sagittal), "y" (coronal), "z" (axial).
        contrasts: names to export; empty: all of each subject.
        codes: "contrast=code" for contrasts whose modality code is not known or is not the wanted one.
        classes: names to export; empty: all of the label set.
        mapping: JSON file of class name -> four-digit id; empty: the ids of our taxonomy.
        intensity: what becomes 0 and 255: minimum and maximum of the "volume" or of each "slice", or a fixed "window".
        window: lowest and highest value of a fixed window.
        pixels: "raw", a pixel per voxel, or "isotropic": slices are resampled to square pixels of the finer spacing.
        merge_pixels: components of a class at most so many pixels apart are one instance; 0: never. 2 bridges a gap of one.
        min_area: least share of the slice that an instance covers.
        aspect: slices whose short side is below this share of the long one are left out; 0: none.
        split: of the store, that is exported; empty: all.
        test_split: of the store, whose slices are for testing in style "demo".
        process: which share of the subjects to export, of
        processes: so many; the shares only write slices, a run with 1 makes the tables.
    """

    output: str = "{workdir}/export2d"
    dataset: str = "UKBOB"
    style: str = "sa_med2d"
    axes: tuple[str, ...] = AXES
    contrasts: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    mapping: str = ""
    intensity: str = "volume"
    window: tuple[float, ...] = (0.0, 0.0)
    pixels: str = "raw"
    merge_pixels: float = 0.0
    min_area: float = 100 / 256**2
    aspect: float = 0.5
    split: str = ""
    test_split: str = "test"
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be used, naming the field."""
        for name in ("axes", "contrasts", "codes", "classes", "window"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, tuple(filter(None, getattr(self, name).split(","))))
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{field(name)}: {getattr(self, name)!r}; choose one of {', '.join(known)}."
                )
        if not self.axes or len(set(self.axes)) < len(self.axes) or not set(self.axes) <= set(AXES):
            raise ConfigError(f"{field('axes')}: {self.axes}; choose some of {', '.join(AXES)}, each once.")
        if self.intensity == "window" and not (
            len(self.window) == 2 and -np.inf < self.window[0] < self.window[1] < np.inf
        ):
            raise ConfigError(f"{field('window')}: {self.window}; give a lower and a higher value.")
        if not 0 <= self.min_area < 1 or not 0 <= self.aspect <= 1:
            raise ConfigError(
                f"{field('min_area')} is {self.min_area}, {field('aspect')} {self.aspect}: both are shares in [0, 1]."
            )
        if not 0 <= self.merge_pixels < np.inf:
            raise ConfigError(
                f"{field('merge_pixels')}: {self.merge_pixels}; give a distance in pixels, 0 or more."
            )

    def rules(self) -> dict[str, Any]:
        """What decides the bytes that are written, as JSON has it; a field that does not count has no value."""
        found = {name: value for name, value in dataclasses.asdict(self).items() if name not in _NOT_RULES}
        if self.intensity != "window":
            del found["window"]
        if self.style != "demo":
            del found["test_split"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def field(name: str) -> str:
    """A field as the user of this program writes it."""
    return advice.setting(name) or name
