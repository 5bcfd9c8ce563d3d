"""What goes wrong in Dixon scans of the whole body, at five severities; numpy only, the same for the same seed.

Each corruption takes `image` (x y z c, magnitudes, RAS, channels as `CHANNELS`) and `label` (x y z), and gives both
back: where anatomy moves the label moves with it, and where a part was not scanned the label becomes 255.
"""

from collections.abc import Callable

import numpy as np

CHANNELS = ("fat", "water", "in_phase", "opposed_phase")
SEVERITIES = (1, 2, 3, 4, 5)
STATIONS = 6  # along z, as in a whole-body protocol
IGNORE = 255
Pair = tuple[np.ndarray, np.ndarray]
Corruption = Callable[[np.ndarray, np.ndarray, float, np.random.Generator], Pair]


def bias_field(image: np.ndarray, label: np.ndarray, strength: float, rng: np.random.Generator) -> Pair:
    """Signal multiplied by exp(strength * f), f a cubic polynomial in the place with standard deviation 1."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in image.shape[:3]], indexing="ij")
    powers = [(i, j, k) for i in range(4) for j in range(4) for k in range(4) if 0 < i + j + k <= 3]
    field = sum(rng.normal() * axes[0] ** i * axes[1] ** j * axes[2] ** k for i, j, k in powers)
    field = (field - field.mean()) / field.std()
    return image * np.exp(strength * field)[..., None], label


def rician_noise(image: np.ndarray, label: np.ndarray, strength: float, rng: np.random.Generator) -> Pair:
    """Magnitude of the signal with complex noise of `strength` times each channel's 99th percentile."""
    sigma = strength * brightness(image)
    return np.hypot(image + sigma * rng.normal(size=image.shape), sigma * rng.normal(size=image.shape)), label


def ghosting(image: np.ndarray, label: np.ndarray, strength: float, rng: np.random.Generator) -> Pair:
    """Breathing: lines of k-space along y are weighted by a wave of 3 to 6 periods; ghosts of the body appear."""
    lines = np.arange(image.shape[1]) - image.shape[1] // 2
    wave = 1 - strength * (
        0.5 + 0.5 * np.cos(2 * np.pi * lines / rng.integers(3, 7) + rng.uniform(0, 2 * np.pi))
    )
    wave[np.abs(lines) <= 1] = 1  # the centre holds the brightness
    spectrum = np.fft.fft(image, axis=1) * np.fft.ifftshift(wave)[None, :, None, None]
    return np.abs(np.fft.ifft(spectrum, axis=1)), label


def gibbs(image: np.ndarray, label: np.ndarray, strength: float, rng: np.random.Generator) -> Pair:
    """k-space cut off beyond a share 1 - `strength` of each axis in the plane: edges ring."""
    spectrum = np.fft.fftn(image, axes=(0, 1))
    for axis in (0, 1):
        n = image.shape[axis]
        kept = np.abs(np.fft.fftfreq(n)) <= max(0.5 * (1 - strength), 1.5 / n)
        spectrum *= kept.reshape([-1 if a == axis else 1 for a in range(4)])
    return np.abs(np.fft.ifftn(spectrum, axes=(0, 1))), label


def low_resolution(image: np.ndarray, label: np.ndarray, strength: float, rng: np.random.Generator) -> Pair:
    """Voxels `strength` times as long along z and the square root of it in the plane, interpolated back."""
    for axis, factor in enumerate((strength**0.5, strength**0.5, strength)):
        n = image.shape[axis]
        matrix = through_coarse(n, max(2, round(n / factor)))
        image = np.moveaxis(np.tensordot(matrix, image, axes=(1, axis)), 0, axis)
    return image, label


def spike(image: np.ndarray, label: np.ndarray, strength: float, rng: np.random.Generator) -> Pair:
    """One wrong point of k-space, `strength` times the strongest there is: stripes through the volume."""
    out = np.empty_like(image)
    place = tuple(int(rng.integers(n // 8, n // 3)) for n in image.shape[:3])
    for c in range(image.shape[-1]):
        spectrum = np.fft.fftn(image[..., c])
        spectrum[place] += strength * np.abs(spectrum).max() * np.exp(2j * np.pi * rng.uniform())
        out[..., c] = np.abs(np.fft.ifftn(spectrum))
    return out, label


def contrast(image: np.ndarray, label: np.ndarray, strength: float, rng: np.random.Generator) -> Pair:
    """Each channel's values, as shares of its brightness, to a power of exp(+-strength): another sequence."""
    top, power = brightness(image), np.exp(strength * rng.choice((-1.0, 1.0), image.shape[-1]))
    return (image / top) ** power * top, label


def fat_water_swap(image: np.ndarray, label: np.ndarray, strength: float, rng: np.random.Generator) -> Pair:
    """Fat and water exchanged in a run of `strength` of the slices: a station whose phase was guessed wrongly."""
    rows = run(image.shape[2], strength, rng)
    out = image.copy()
    out[:, :, rows, :2] = image[:, :, rows, 1::-1]
    return out, label


def station_intensity_jump(
    image: np.ndarray, label: np.ndarray, strength: float, rng: np.random.Generator
) -> Pair:
    """Each station has its own gain, exp(strength * +-1..): steps at the seams."""
    gain = np.exp(strength * rng.uniform(-1, 1, STATIONS))
    return image * gain[stations(image.shape[2])][None, None, :, None], label


def station_misalignment(
    image: np.ndarray, label: np.ndarray, strength: float, rng: np.random.Generator
) -> Pair:
    """Each station moved in the plane by up to `strength` of its width: the person moved between them."""
    out, moved = image.copy(), label.copy()
    shift = rng.uniform(-strength, strength, (STATIONS, 2))
    for s in range(STATIONS):
        rows = stations(image.shape[2]) == s
        for axis in (0, 1):
            offset = shift[s, axis] * image.shape[axis]
            out[:, :, rows] = shifted(out[:, :, rows], offset, axis)
            moved[:, :, rows] = shifted(moved[:, :, rows], round(offset), axis).astype(label.dtype)
    return out, moved


def missing_station(image: np.ndarray, label: np.ndarray, strength: float, rng: np.random.Generator) -> Pair:
    """A run of `strength` of the slices was not scanned: no signal, and no label to compare with."""
    rows = run(image.shape[2], strength, rng)
    out, unknown = image.copy(), label.copy()
    out[:, :, rows], unknown[:, :, rows] = 0, IGNORE
    return out, unknown


# corruption, and its strength at severities 1 to 5
CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, ...]]] = {
    "bias_field": (bias_field, (0.15, 0.25, 0.4, 0.55, 0.75)),
    "rician_noise": (rician_noise, (0.02, 0.04, 0.07, 0.11, 0.16)),
    "ghosting": (ghosting, (0.2, 0.35, 0.5, 0.65, 0.8)),
    "gibbs": (gibbs, (0.15, 0.3, 0.45, 0.55, 0.65)),
    "low_resolution": (low_resolution, (1.3, 1.6, 2.0, 2.5, 3.0)),
    "spike": (spike, (0.02, 0.05, 0.1, 0.18, 0.3)),
    "contrast": (contrast, (0.15, 0.3, 0.45, 0.6, 0.8)),
    "fat_water_swap": (fat_water_swap, (0.08, 0.15, 0.25, 0.5, 1.0)),
    "station_intensity_jump": (station_intensity_jump, (0.1, 0.2, 0.35, 0.5, 0.7)),
    "station_misalignment": (station_misalignment, (0.01, 0.02, 0.035, 0.05, 0.08)),
    "missing_station": (missing_station, (0.04, 0.08, 0.12, 0.18, 0.25)),
}


def corrupt(image: np.ndarray, label: np.ndarray, name: str, severity: int, seed: int) -> Pair:
    """A scan and its label after a corruption.

    Args:
        image: `x y z c`.
        label: `x y z`.
        name: a key of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: of the subject; corruption and severity draw from streams of their own.

    Returns:
        image, float32, never negative; label, of the dtype given. Neither input is changed.
    """
    function, strengths = CORRUPTIONS[name]
    rng = np.random.default_rng([seed, list(CORRUPTIONS).index(name)])  # severities differ in strength alone
    out, moved = function(np.asarray(image, np.float64), label, strengths[severity - 1], rng)
    return np.maximum(out, 0).astype(np.float32), moved


def brightness(image: np.ndarray) -> np.ndarray:
    """99th percentile of each channel, `c`, at least 1."""
    return np.maximum(np.percentile(image.reshape(-1, image.shape[-1]), 99, axis=0), 1.0)


def stations(slices: int) -> np.ndarray:
    """Station of each slice, `z`."""
    return np.arange(slices) * STATIONS // slices


def run(slices: int, share: float, rng: np.random.Generator) -> slice:
    """Neighbouring slices, `share` of all and at least one."""
    length = max(1, round(share * slices))
    start = int(rng.integers(0, slices - length + 1))
    return slice(start, start + length)


def shifted(array: np.ndarray, offset: float, axis: int) -> np.ndarray:
    """Moved by `offset` voxels along an axis, linearly between voxels; zeros come in."""
    whole = int(np.floor(offset))
    share = offset - whole
    return (1 - share) * rolled(array, whole, axis) + (share * rolled(array, whole + 1, axis) if share else 0)


def rolled(array: np.ndarray, offset: int, axis: int) -> np.ndarray:
    """Moved by whole voxels; zeros come in."""
    out = np.moveaxis(np.roll(array, offset, axis), axis, 0)
    if offset > 0:
        out[:offset] = 0
    elif offset < 0:
        out[offset:] = 0
    return np.moveaxis(out, 0, axis)


def through_coarse(n: int, m: int) -> np.ndarray:
    """(n, n) matrix: means over m thick voxels, then linear interpolation back."""
    edges = np.linspace(0, n, m + 1)
    cover = np.clip(
        np.minimum(edges[1:, None], np.arange(1, n + 1)) - np.maximum(edges[:-1, None], np.arange(n)), 0, None
    )
    place = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
    back = np.maximum(1 - np.abs(place[:, None] - np.arange(m)), 0)
    return back @ (cover * m / n)
