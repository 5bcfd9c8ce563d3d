"""Who a phantom subject is: sex, height and build, drawn from its seed alone."""

import dataclasses

import numpy as np

from ukbob_jax.errors import ConfigError

SEXES = ("F", "M")
_REFERENCE_HEIGHT_MM = 1700.0

# mean and spread by sex: standing height in mm, and factors on the reference body
_HEIGHT_MM = {"F": (1630.0, 62.0), "M": (1765.0, 66.0)}
_SHOULDERS = {"F": 0.95, "M": 1.03}
_HIPS = {"F": 1.03, "M": 0.98}
_SUBCUTANEOUS = {"F": 1.15, "M": 0.80}
_MUSCLE = {"F": 0.92, "M": 1.05}


@dataclasses.dataclass(frozen=True)
class Person:
    """Traits of one subject. Factors multiply the reference body, which stands 1.70 m tall."""

    sex: str  # "F" or "M"
    height_mm: float
    frame: float  # width and depth of the skeleton
    shoulders: float  # width above the chest
    hips: float  # width of the pelvis
    legs: float  # share of the height in the legs
    subcutaneous: float  # thickness of the fat under the skin
    visceral_mm: float  # how far the belly stands out
    muscle: float  # thickness of the limbs
    liver_fat: float  # fat fraction of the liver
    bladder: float  # radius of the bladder
    breath_mm: float  # how much lower than at rest the diaphragm stands

    @property
    def tallness(self) -> float:
        """Height over the reference height."""
        return self.height_mm / _REFERENCE_HEIGHT_MM


def stream(seed: int, purpose: int) -> np.random.Generator:
    """Random numbers for one purpose of one subject; purposes do not disturb each other."""
    return np.random.default_rng([purpose, int(seed)])


def draw(seed: int, sex: str | None = None) -> Person:
    """The subject with this seed; `sex` overrides the drawn one and keeps all other draws.

    Raises:
        ConfigError: `sex` is neither None, "F" nor "M", or the seed is negative.
    """
    if sex not in (None, *SEXES):
        raise ConfigError(f"sex {sex!r} is not known; give 'F', 'M' or None.")
    if seed < 0:
        raise ConfigError(f"seed {seed} is negative; give a whole number from 0.")
    rng = stream(seed, 0)
    drawn = SEXES[int(rng.integers(2))]
    sex = sex or drawn
    z = np.clip(rng.standard_normal(10), -2.5, 2.5)
    mean, spread = _HEIGHT_MM[sex]
    weight = 0.7 * z[3] + 0.7 * z[4]  # fat under the skin and around the organs go together, but not strictly
    return Person(
        sex=sex,
        height_mm=float(mean + spread * z[0]),
        frame=float(np.exp(0.035 * z[1] + 0.25 * np.log((mean + spread * z[0]) / _REFERENCE_HEIGHT_MM))),
        shoulders=float(_SHOULDERS[sex] * np.exp(0.02 * z[2])),
        hips=float(_HIPS[sex] * np.exp(0.02 * z[5])),
        legs=float(np.exp(0.02 * z[6])),
        subcutaneous=float(_SUBCUTANEOUS[sex] * np.exp(0.32 * z[3])),
        visceral_mm=float(max(0.0, 12.0 + (14.0 if sex == "M" else 9.0) * weight)),
        muscle=float(_MUSCLE[sex] * np.exp(0.05 * z[7])),
        liver_fat=float(np.clip(0.06 * np.exp(0.6 * weight), 0.02, 0.35)),
        bladder=float(np.exp(0.10 * z[8])),
        breath_mm=float(7.0 * z[9]),
    )


def describe(seed: int, sex: str | None = None) -> dict[str, str | float]:
    """Sex, height in mm and build factors of the subject with this seed, as plain values."""
    return dataclasses.asdict(draw(seed, sex))
