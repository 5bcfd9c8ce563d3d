"""Random changes of a batch, on the device: `compose("gamma", "noise")` gives `(key, batch) -> batch`.

Every augmentation is a function of one sample, `(key, draws, image x y z c, label x y z) -> (image, label)`, applied
with its own probability; `compose` chains them and maps them over the batch. The label is None in batches without one.
`draws` are `DRAWS` numbers uniform in [0, 1), all made at once since every call of a random generator costs a second
of compile time; `key` is for more. Images are normalised ones. Those named in `INTENSITY` never touch the label.

Each names the work it follows; probabilities and ranges are ours. Short names: nnU-Net is Isensee et al. 2021 (Nature
Methods 18, supplement), TorchIO is Perez-Garcia et al. 2021 (Computer Methods and Programs in Biomedicine 208).
"""

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError

Label = jax.Array | None  # None: a batch without labels
Sample = tuple[jax.Array, Label]
Augmentation = Callable[..., Sample]  # (key, draws, image, label)
Batch = dict[str, jax.Array]
T = TypeVar("T", jax.Array, Sample)

BIAS_KNOTS = 4  # control points of the bias field, per axis
DRAWS = 1 + BIAS_KNOTS**3  # the first decides whether to apply
MAX_THICKNESS = 4  # voxels that one slice of a low-resolution scan may cover
ELASTIC_KNOTS = 4  # control points of the elastic deformation, per axis
FOLD_FREE = 1 / 6  # of the knots' distance: with shifts below it no two voxels change their order


def compose(*steps: str | Augmentation) -> Callable[[jax.Array, Batch], Batch]:
    """Chain `steps`, names in `AUGMENTATIONS` or `PRESETS` or functions of one sample, as a function of a batch.

    A sample's change depends on the key and on its row, not on the other rows. Jit it, alone or within the step. A mask
    "anonymised", bool b x y z, moves with the image; what comes from outside counts as anonymised.
    Put noise last: XLA works its input out anew for every minimum and maximum that a later step takes.

    Raises:
        ConfigError: an unknown name.
    """
    chain: list[Augmentation] = []
    for step in steps:
        if not isinstance(step, str):
            chain.append(step)
        elif step in PRESETS:
            chain += PRESETS[step]
        elif step in AUGMENTATIONS:
            chain.append(AUGMENTATIONS[step])
        else:
            known = ", ".join((*AUGMENTATIONS, *PRESETS))
            raise ConfigError(f"config.augment: {step!r} is not known; choose from {known}.")

    def one(key: jax.Array, row: jax.Array, image: jax.Array, label: Label) -> Sample:
        key = jax.random.fold_in(key, row)
        draws = jax.random.uniform(key, (len(chain), DRAWS))
        for number, step in enumerate(chain):
            image, label = step(jax.random.fold_in(key, number), draws[number], image, label)
        return image, label

    def augment(key: jax.Array, batch: Batch) -> Batch:
        rows = jnp.arange(batch["image"].shape[0])
        each = jax.vmap(one, in_axes=(None, 0, 0, 0))
        changed = dict(batch)
        if "anonymised" in batch:  # as a label map, in which no augmentation takes 0 or IGNORE for another id
            mask = jnp.where(batch["anonymised"], anatomy.IGNORE, 0).astype(jnp.uint8)
            changed["image"], mask = each(key, rows, batch["image"], mask)
            changed["anonymised"] = mask != 0
        if "label" in batch or "anonymised" not in batch:
            changed["image"], label = each(key, rows, batch["image"], batch.get("label"))
            changed.update({} if label is None else {"label": label})
        return changed

    return augment


def gamma(
    key: jax.Array, draws: jax.Array, image: jax.Array, label: Label, *, probability: float = 0.3,
    low: float = 0.7, high: float = 1.5,
) -> Sample:  # fmt: skip
    """Bend the intensities of all channels by one power, between each channel's minimum and maximum (after nnU-Net)."""
    power = jnp.exp(_uniform(draws[1], np.log(low), np.log(high)))
    bottom, reach = _range(image)
    bent = bottom + reach * ((image - bottom) / jnp.where(reach > 0, reach, 1)) ** power
    return _apply_if(draws, probability, bent, image), label


def bend(
    key: jax.Array, draws: jax.Array, image: jax.Array, label: Label, *, probability: float = 0.3,
    low: float = 0.7, high: float = 1.5, inverted: bool = False,
) -> Sample:  # fmt: skip
    """Bend each channel by a power of its own and give it its mean and standard deviation back (nnU-Net's gamma).

    Half of the powers lie below 1. `inverted` bends the negative of the image.
    """
    c = image.shape[-1]
    numbers = draws[1 : 1 + 2 * c].reshape(2, 1, 1, 1, -1)
    power = _about_one(numbers[0], numbers[1], low, high)
    signed = -image if inverted else image
    bottom, reach = _range(signed)
    bent = bottom + reach * ((signed - bottom) / jnp.where(reach > 0, reach, 1)) ** power
    (mean, std), (level, spread) = _moments(signed), _moments(bent)
    bent = (bent - level) * (std / jnp.maximum(spread, 1e-7)) + mean
    return _apply_if(draws, probability, -bent if inverted else bent, image), label


def contrast(
    key: jax.Array, draws: jax.Array, image: jax.Array, label: Label, *, probability: float = 0.15,
    low: float = 0.75, high: float = 1.25,
) -> Sample:  # fmt: skip
    """Stretch each channel about its mean by a factor of its own, within its minimum and maximum (nnU-Net)."""
    c = image.shape[-1]
    numbers = draws[1 : 1 + 2 * c].reshape(2, 1, 1, 1, -1)
    factor = _about_one(numbers[0], numbers[1], low, high)
    (mean, _), (bottom, reach) = _moments(image), _range(image)
    stretched = jnp.clip((image - mean) * factor + mean, bottom, bottom + reach)
    return _apply_if(draws, probability, stretched, image), label


def intensity(
    key: jax.Array, draws: jax.Array, image: jax.Array, label: Label, *, probability: float = 0.3,
    scale: float = 0.15, shift: float = 0.15,
) -> Sample:  # fmt: skip
    """Multiply each channel by up to 1 +- `scale` and add up to +- `shift` (standard deviations) (Myronenko 2019)."""
    numbers = draws[1 : 1 + 2 * image.shape[-1]].reshape(2, 1, 1, 1, -1)
    factor, offset = _uniform(numbers[0], 1 - scale, 1 + scale), _uniform(numbers[1], -shift, shift)
    return _apply_if(draws, probability, image * factor + offset, image), label


def noise(
    key: jax.Array, draws: jax.Array, image: jax.Array, label: Label, *, probability: float = 0.2,
    sigma: float = 0.15,
) -> Sample:  # fmt: skip
    """Add Gaussian noise of up to `sigma` standard deviations (nnU-Net)."""
    noisy = image + sigma * draws[1] * jax.random.normal(key, image.shape, image.dtype)
    return _apply_if(draws, probability, noisy, image), label


def bias_field(
    key: jax.Array, draws: jax.Array, image: jax.Array, label: Label, *, probability: float = 0.2,
    strength: float = 0.3,
) -> Sample:  # fmt: skip
    """Shade all channels by one smooth field, as a receive coil does: the exponential of a coarse random grid.

    The field multiplies intensities counted from each channel's minimum; `strength` is the grid's standard deviation. A
    random smooth field in log space as in SynthSeg (Billot et al. 2023).
    """
    limit = strength * np.sqrt(3.0)  # a uniform number between +- this has that standard deviation
    knots = _uniform(draws[1:], -limit, limit).reshape((BIAS_KNOTS,) * 3)
    spread = [jnp.asarray(_interpolation(BIAS_KNOTS, n)) for n in image.shape[:3]]
    field = jnp.exp(jnp.einsum("xi,yj,zk,ijk->xyz", *spread, knots))[..., None]
    bottom, _ = _range(image)
    return _apply_if(draws, probability, bottom + (image - bottom) * field, image), label


def contrast_dropout(
    key: jax.Array, draws: jax.Array, image: jax.Array, label: Label, *, probability: float = 0.2,
    fraction: float = 0.5,
) -> Sample:  # fmt: skip
    """Set channels to 0, each with chance `fraction`, but never all of them (ModDrop, Neverova et al. 2016)."""
    channels = image.shape[-1]
    spare = jnp.arange(channels) == jnp.floor(draws[1] * channels).astype(jnp.int32)
    kept = (draws[2 : 2 + channels] >= fraction) | spare
    return _apply_if(draws, probability, image * kept[None, None, None].astype(image.dtype), image), label


def low_resolution(
    key: jax.Array, draws: jax.Array, image: jax.Array, label: Label, *, probability: float = 0.2,
    thickest: int = MAX_THICKNESS,
) -> Sample:  # fmt: skip
    """Average 1 to `thickest` voxels, at most `MAX_THICKNESS`, along each axis into one slice and interpolate back.

    nnU-Net and SynthSeg (Billot et al. 2023) simulate thick slices so.
    """
    thickness = jnp.floor(draws[1:4] * thickest).astype(jnp.int32)
    x, y, z = (
        jnp.asarray(_coarsening(n))[thickness[axis]] for axis, n in enumerate(image.shape[:3])
    )  # n n each
    coarse = jnp.einsum("xi,yj,zk,ijkc->xyzc", x, y, z, image, optimize="optimal")
    return _apply_if(draws, probability, coarse, image), label


def blur(
    key: jax.Array, draws: jax.Array, image: jax.Array, label: Label, *, probability: float = 0.2,
    low: float = 0.5, high: float = 1.5,
) -> Sample:  # fmt: skip
    """Smooth all channels by one Gaussian of `low` to `high` voxels (nnU-Net); weights sum to 1 at the border too."""
    sigma = _uniform(draws[1], low, high)
    x, y, z = (_gaussian(n, sigma) for n in image.shape[:3])
    smooth = jnp.einsum("xi,yj,zk,ijkc->xyzc", x, y, z, image, optimize="optimal")
    return _apply_if(draws, probability, smooth, image), label


def affine(
    key: jax.Array, draws: jax.Array, image: jax.Array, label: Label, *, probability: float = 0.2,
    degrees: float | Sequence[float] = 10.0, scale: float = 0.1, shift: float = 0.05,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> Sample:  # fmt: skip
    """Rotate, scale and move a little about the centre (TorchIO): linear for the image, nearest for the label.

    What comes from outside is 0 in the image and ignore in the label. Angles, up to `degrees` about all axes or about
    each, are true in mm; `shift` is a fraction of the crop's length.
    """
    largest = np.broadcast_to(np.asarray(degrees, np.float32), 3)
    turn = _rotation(jnp.deg2rad(largest * _uniform(draws[1:4], -1.0, 1.0)))
    zoom = _uniform(draws[4], 1 - scale, 1 + scale)
    shape = image.shape[:3]
    size = np.array(shape, np.float32)
    move = size * _uniform(draws[5:8], -shift, shift)
    spacing = np.array(spacing_mm, np.float32)
    matrix = turn * spacing[None, :] / spacing[:, None] / zoom  # voxels of the result -> voxels of the source
    centre = (size - 1) / 2
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij"))
    offset = (centre + move)[:, None, None, None]
    places = jnp.einsum("ab,bxyz->axyz", matrix, grid - centre[:, None, None, None]) + offset
    moved, moved_label = _resampled(image, label, places)
    return _apply_if(draws, probability, (moved, moved_label), (image, label))


def elastic(
    key: jax.Array, draws: jax.Array, image: jax.Array, label: Label, *, probability: float = 0.2,
    strength: float = 0.8,
) -> Sample:  # fmt: skip
    """Bend smoothly, by random shifts of a few knots (Simard et al. 2003): linear for the image, nearest for the label.

    Shifts reach `strength` of what keeps every voxel beside its neighbours, so that organs neither tear nor fold. What
    comes from outside is 0 in the image and ignore in the label.
    """
    shape = image.shape[:3]
    reach = np.array([strength * FOLD_FREE * n / ELASTIC_KNOTS for n in shape], np.float32)
    knots = jax.random.uniform(key, (3, *(ELASTIC_KNOTS,) * 3), minval=-1.0, maxval=1.0)
    spread = [jnp.asarray(_interpolation(ELASTIC_KNOTS, n)) for n in shape]
    shifts = jnp.einsum("xi,yj,zk,aijk->axyz", *spread, knots, optimize="optimal")
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij"))
    moved, moved_label = _resampled(image, label, grid + reach[:, None, None, None] * shifts)
    return _apply_if(draws, probability, (moved, moved_label), (image, label))


def rot90(
    key: jax.Array, draws: jax.Array, image: jax.Array, label: Label, *, probability: float = 0.5,
    axes: tuple[int, int] = (0, 1),
) -> Sample:  # fmt: skip
    """Turn by 90, 180 or 270 degrees in the plane of `axes` (Hatamizadeh et al. 2022); a turn mirrors nothing.

    Raises:
        ConfigError: the crop is not square in that plane, so the shape would change.
    """
    shape = image.shape[:3]
    if shape[axes[0]] != shape[axes[1]]:
        raise ConfigError(f"config.augment: rot90: crop {shape} is not square in axes {axes}. Leave it out.")
    turns = jnp.floor(draws[1] * 3).astype(jnp.int32)
    turned = [functools.partial(jnp.rot90, k=k, axes=axes) for k in (1, 2, 3)]
    changed = jax.tree.map(lambda array: jax.lax.switch(turns, turned, array), (image, label))
    return _apply_if(draws, probability, changed, (image, label))


def flip(
    key: jax.Array, draws: jax.Array, image: jax.Array, label: Label, *, probability: float = 0.5,
    mirror: np.ndarray = anatomy.MIRROR,
) -> Sample:  # fmt: skip
    """Mirror left and right, and swap the ids of paired organs with them (Ronneberger et al. 2015, without the ids).

    Not for bodies as a rule: a mirrored one has its liver on the left. With ids other than the taxonomy's give their
    own `mirror`, uint8[256]. There is no flip of another axis: it would be the same mirror image, turned.
    """
    swapped = None if label is None else jnp.asarray(mirror)[label[::-1].astype(jnp.int32)]
    return _apply_if(draws, probability, (image[::-1], swapped), (image, label))


def mirror(
    key: jax.Array, draws: jax.Array, image: jax.Array, label: Label, *, probability: float = 1.0
) -> Sample:
    """Mirror along each axis with chance 1/2, and leave the ids as they are (nnU-Net).

    A left kidney is still called so on the right: whoever averages over mirror images afterwards needs such a network,
    and one that is to tell the sides apart must not be trained so.
    """
    changed = image, label
    for axis in range(3):
        turned = jax.tree.map(lambda array, axis=axis: jnp.flip(array, axis), changed)
        changed = _apply_if(draws[1 + axis :], 0.5, turned, changed)
    return _apply_if(draws, probability, changed, (image, label)) if probability < 1 else changed


INTENSITY: dict[str, Augmentation] = {
    "gamma": gamma,
    "intensity": intensity,
    "noise": noise,
    "bias_field": bias_field,
    "contrast_dropout": contrast_dropout,
    "low_resolution": low_resolution,
    "blur": blur,
    "bend": bend,
    "contrast": contrast,
}
SPATIAL: dict[str, Augmentation] = {
    "affine": affine,
    "elastic": elastic,
    "rot90": rot90,
    "flip": flip,
    "mirror": mirror,
}
AUGMENTATIONS: dict[str, Augmentation] = {**INTENSITY, **SPATIAL}

# nnU-Net's order, probabilities and ranges, as near as the functions above come (docs/nnunet.md says where they differ).
_NNUNET: tuple[Augmentation, ...] = (
    functools.partial(affine, probability=0.2, degrees=0.0, scale=0.3, shift=0.0),
    functools.partial(noise, probability=0.1, sigma=0.1),
    functools.partial(blur, probability=0.2, low=0.5, high=1.0),
    functools.partial(intensity, probability=0.15, scale=0.25, shift=0.0),
    functools.partial(contrast, probability=0.15),
    functools.partial(low_resolution, probability=0.25, thickest=2),
    functools.partial(bend, probability=0.1, inverted=True),
    functools.partial(bend, probability=0.3),
)
PRESETS: dict[str, tuple[Augmentation, ...]] = {
    "nnunet": (functools.partial(affine, probability=0.2, degrees=30.0, scale=0.0, shift=0.0), *_NNUNET),
    # of crops whose first axis is the short one of thick slices: they turn within their planes
    "nnunet_thick": (
        functools.partial(affine, probability=0.2, degrees=(180.0, 0.0, 0.0), scale=0.0, shift=0.0),
        *_NNUNET,
    ),
}


def _apply_if(draws: jax.Array, probability: float, changed: T, same: T) -> T:
    """Return the image, or image and label, `changed` in a fraction `probability` of the draws, else `same`."""
    return jax.tree.map(lambda new, old: jnp.where(draws[0] < probability, new, old), changed, same)


def _uniform(draws: jax.Array, low: float, high: float) -> jax.Array:
    """Return numbers uniform in [low, high) from draws in [0, 1)."""
    return low + (high - low) * draws


def _about_one(side: jax.Array, place: jax.Array, low: float, high: float) -> jax.Array:
    """Return factors of which half are uniform in [low, 1) and half in [1, high), from draws in [0, 1)."""
    return jnp.where(side < 0.5, _uniform(place, low, 1.0), _uniform(place, 1.0, high))


def _moments(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean and standard deviation of each channel, `1 1 1 c`."""
    return image.mean(axis=(0, 1, 2), keepdims=True), image.std(axis=(0, 1, 2), keepdims=True)


def _range(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return minimum and extent of each channel, `1 1 1 c`."""
    bottom = image.min(axis=(0, 1, 2), keepdims=True)
    return bottom, image.max(axis=(0, 1, 2), keepdims=True) - bottom


def _resampled(image: jax.Array, label: Label, places: jax.Array | np.ndarray) -> Sample:
    """Return image and label at `places` (`3 x y z`, voxels): linear and nearest; 0 and ignore from outside."""
    resample = functools.partial(map_coordinates, coordinates=list(places), mode="constant")
    moved = jax.vmap(functools.partial(resample, order=1, cval=0.0), in_axes=-1, out_axes=-1)(image)
    if label is None:
        return moved, None
    return moved, resample(label.astype(jnp.int32), order=0, cval=anatomy.IGNORE).astype(label.dtype)


def _gaussian(n: int, sigma: jax.Array) -> jax.Array:
    """Return the weights of a Gaussian of `sigma` voxels, `n n`; every row sums to 1."""
    distance = np.subtract.outer(np.arange(n, dtype=np.float32), np.arange(n, dtype=np.float32))
    weights = jnp.exp(-0.5 * (distance / sigma) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def _interpolation(few: int, many: int) -> np.ndarray:
    """Return linear interpolation of `few` cells on `many` of the same extent, `many few`; constant at the ends."""
    place = np.clip((np.arange(many) + 0.5) * few / many - 0.5, 0, few - 1)
    low = np.minimum(place.astype(int), max(few - 2, 0))
    weights = np.zeros((many, few), np.float32)
    weights[np.arange(many), low] = 1 - (place - low)
    if few > 1:
        weights[np.arange(many), low + 1] += place - low
    return weights


def _coarsening(n: int) -> np.ndarray:
    """For 1, 2, ... `MAX_THICKNESS` voxels a slice: average into slices and interpolate back, `f n n`."""
    stack = [np.eye(n, dtype=np.float32)]
    for thickness in range(2, MAX_THICKNESS + 1):
        few = max(1, round(n / thickness))
        edges = np.linspace(0, n, few + 1)
        inside = np.minimum(edges[1:, None], np.arange(1, n + 1)[None]) - np.maximum(
            edges[:-1, None], np.arange(n)[None]
        )
        average = np.clip(inside, 0, None) * few / n  # few n: fraction of each voxel in each slice
        stack.append((_interpolation(few, n) @ average).astype(np.float32))
    return np.stack(stack)


def _rotation(angles: jax.Array) -> jax.Array:
    """Turn about x, then y, then z by `angles`, radians; `3 3`."""
    (a, b, c), (p, q, r) = jnp.cos(angles), jnp.sin(angles)
    one, zero = jnp.ones_like(a), jnp.zeros_like(a)
    about_x = jnp.array([[one, zero, zero], [zero, a, -p], [zero, p, a]])
    about_y = jnp.array([[b, zero, q], [zero, one, zero], [-q, zero, b]])
    about_z = jnp.array([[c, -r, zero], [r, c, zero], [zero, zero, one]])
    return about_z @ about_y @ about_x
