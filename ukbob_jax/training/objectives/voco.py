"""VoCo: where in the volume does a crop lie? Its features agree with those of the base crops as far as they overlap.

s = ReLU(cos(target, base)), o = the share of the target that lies in the base; Wu et al. 2024. Three forms are in use,
whose formulas stand with their functions.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax.errors import ConfigError
from ukbob_jax.training.objectives import forward
from ukbob_jax.training.objectives.contrast import Projection, check_width, unit
from ukbob_jax.training.objectives.masked import absolute
from ukbob_jax.training.state import TrainState
from ukbob_jax.training.step import Batch, Metrics, ModelState, Objective, Params

FORMS = ("nnssl", "first")  # with one student
AUTHORS = "authors"  # with a teacher's head
EPSILON = 1e-6
Size = tuple[int, ...]  # x y z


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocoOptions:
    """The fields of `config.pretrain` for "voco"; the defaults are those of the benchmark (nnssl).

    Attributes:
        grid: base crops along x y z, which together are the crop of the recipe.
        targets: further crops of their size, anywhere in it.
        width: of the projection's two hidden layers and of its output.
        form: of the loss: "nnssl" or "first", see `voco`; "authors", see `voco_authors`.
    """

    grid: Size = (4, 4, 1)
    targets: int = 4
    width: int = 2048
    form: str = "nnssl"

    def __post_init__(self) -> None:
        if len(self.grid) != 3 or min(self.grid) < 1 or max(self.grid) < 2:
            raise ConfigError(
                f"config.pretrain.grid: {self.grid} is not three numbers of base crops, two at least."
            )
        if self.targets < 1:
            raise ConfigError(f"config.pretrain.targets: {self.targets} is less than 1.")
        if self.form not in (*FORMS, AUTHORS):
            raise ConfigError(
                f"config.pretrain.form: {self.form!r} is unknown; choose one of {', '.join((*FORMS, AUTHORS))}."
            )
        check_width(self.width)


def crop_size(size: Sequence[int], grid: Sequence[int]) -> Size:
    """Voxels x y z of the crops of which a grid makes up `size`.

    Raises:
        ConfigError: they do not divide it.
    """
    if any(side % n for side, n in zip(size, grid)):
        raise ConfigError(
            f"config.data.crop: {tuple(size)} voxels do not divide into config.pretrain.grid {tuple(grid)}."
        )
    return tuple(side // n for side, n in zip(size, grid))


def cut(key: jax.Array, batch: Batch, *, grid: Sequence[int], targets: int) -> Batch:
    """Cut every image into its base crops, and `targets` further ones from anywhere, all last places included.

    Args:
        key: of the places.
        batch: "image" `b x y z c`; other arrays are kept, but for a mask of anonymised voxels.
        grid: base crops along x y z.
        targets: further crops of each image.
    Returns:
        "image" `b*(n+t) x y z c`, of each image first the n base crops, x slowest, then the t others, and "overlap"
        `b t n` of the others with the base crops.
    """
    image = batch["image"]
    b, *size, c = image.shape
    crop, (gx, gy, gz) = crop_size(size, grid), grid
    cells = image.reshape(b, gx, crop[0], gy, crop[1], gz, crop[2], c).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    bases = cells.reshape(b, gx * gy * gz, *crop, c)
    last = jnp.asarray([side - width + 1 for side, width in zip(size, crop)], jnp.int32)
    starts = jax.random.randint(key, (b, targets, 3), 0, last[None, None])
    zero = jnp.zeros((), starts.dtype)
    one = lambda x, start: jax.lax.dynamic_slice(x, (*start, zero), (*crop, c))  # noqa: E731
    others = jax.vmap(lambda x, places: jax.vmap(functools.partial(one, x))(places))(image, starts)
    rows = jnp.concatenate([bases, others], axis=1).reshape(-1, *crop, c)
    kept = {
        name: array for name, array in batch.items() if name != "anonymised"
    }  # of whole images, in no loss here
    return {**kept, "image": rows, "overlap": overlaps(starts, crop, size, grid)}


class VocoLoss(NamedTuple):
    """Scalars, float32: the weighted sum, and its parts."""

    total: jax.Array
    prediction: jax.Array
    regulariser: jax.Array


class VocoAuthorsLoss(NamedTuple):
    """Scalars, float32: the sum, and its parts."""

    total: jax.Array
    intra: jax.Array
    inter: jax.Array
    regulariser: jax.Array


def overlaps(offsets: Any, crop: Sequence[int], volume: Sequence[int], grid: Sequence[int]) -> jax.Array:
    """The share of each target crop that lies in each base crop.

    Base crops tile the volume from its first voxel on, x slowest and z fastest; rows sum to 1 only where they cover all
    of it.

    Args:
        offsets: `... t 3` integers, first voxel of each target crop.
        crop: voxels x y z of a crop of either kind.
        volume: voxels x y z.
        grid: base crops along x y z.
    Returns:
        float32 `... t n`, n = prod(grid).
    Raises:
        ConfigError: the base crops do not fit the volume.
    """
    if any(c * n > v for c, n, v in zip(crop, grid, volume)):
        raise ConfigError(
            f"config.pretrain.grid: {tuple(grid)} base crops of {tuple(crop)} voxels do not fit {tuple(volume)}."
        )
    bases = np.stack(np.meshgrid(*(np.arange(n) * c for n, c in zip(grid, crop)), indexing="ij"), -1).reshape(
        -1, 3
    )
    starts = jnp.asarray(offsets)[..., None, :]  # ... t 1 3
    bases = jnp.asarray(bases, starts.dtype).reshape(*(1,) * (starts.ndim - 2), *bases.shape)
    sides = jnp.asarray(crop, starts.dtype).reshape(*(1,) * (starts.ndim - 1), 3)
    shared = jnp.clip(sides - jnp.abs(starts - bases), 0)
    return jnp.prod(shared.astype(jnp.float32), axis=-1) / float(np.prod(crop))


def similarity(one: jax.Array, other: jax.Array) -> jax.Array:
    """ReLU of the cosine: `b t d` and `b n d` to `b t n`."""
    cosine = jnp.einsum("btd,bnd->btn", unit(one), unit(other), precision=jax.lax.Precision.HIGHEST)
    return jax.nn.relu(cosine)


def voco(
    base: jax.Array,
    target: jax.Array,
    overlap: jax.Array,
    form: str = "nnssl",
    weights: tuple[float, float] = (1.0, 1.0),
) -> VocoLoss:
    """VoCo's loss for one student.

    "nnssl": prediction = sum(o e) / sum(o) + sum over o = 0 of s^2 / their number, e = -log(1 - |o - s| + 1e-6), with
    the bases as constants; regulariser = mean of s over pairs of different bases, whose gradient both have.
    "first", the first published form: prediction = mean of e over o > 0 + mean of s^2 over o = 0; regulariser = mean
    of s^2 over the pairs. Sums and means are over the batch. A term without members is 0.

    Args:
        base: `b n d`, features of the base crops.
        target: `b t d`, of the others.
        overlap: `b t n`, `overlaps`.
        form: "nnssl" or "first".
        weights: of prediction and regulariser.
    Raises:
        ValueError: an unknown form, or the shapes do not belong together.
    """
    if form not in FORMS:
        raise ValueError(f"form={form!r}: expected one of {', '.join(FORMS)}.")
    _check(base, target, overlap)
    constant = jax.lax.stop_gradient(base) if form == "nnssl" else base
    s, o = similarity(target, constant), jnp.asarray(overlap, jnp.float32)
    positive = o > 0
    error = -jnp.log(1 - absolute(o - s) + EPSILON)
    gains = o if form == "nnssl" else positive.astype(jnp.float32)
    negatives = jnp.sum(~positive, dtype=jnp.float32) + (EPSILON * o.size if form == "nnssl" else 0.0)
    prediction = _mean(jnp.sum(gains * error), jnp.sum(gains))
    prediction += _mean(jnp.sum(jnp.where(positive, 0, s * s)), negatives)
    pairs = similarity(base, base)
    pairs = pairs if form == "nnssl" else pairs * pairs
    regulariser = _off_diagonal(pairs)
    return VocoLoss(weights[0] * prediction + weights[1] * regulariser, prediction, regulariser)


def voco_authors(
    student: jax.Array,
    bases_student: jax.Array,
    teacher: jax.Array,
    bases_teacher: jax.Array,
    labels: jax.Array,
) -> VocoAuthorsLoss:
    """The authors' present loss, with a teacher head.

    Per volume i, and then the mean: intra = CE(labels_i, s(student_i, bases_teacher_i)); inter, with j = i + 1 mod b,
    = CE(s(teacher_i, bases_teacher_j), s(student_i, bases_student_j)); regulariser = mean over pairs p < q of
    student bases of s^2, q a constant. CE(o, s) = sum(-o log(1 - |o - s| + 1e-6)) / (sum(o) + 1e-6) +
    sum over o = 0 of -log(1 - s + 1e-6) / (their number + 1e-6). All of the teacher is a constant.

    Args:
        student: `b t d`, or `(b t) d` with the crops of a volume in a row; of the student's head.
        bases_student: `b n d` or `(b n) d`.
        teacher: as `student`, of the teacher's head.
        bases_teacher: as `bases_student`.
        labels: `b t n`, `overlaps`.
    """
    b, t, n = labels.shape
    student, teacher = student.reshape(b, t, -1), teacher.reshape(b, t, -1)
    bases, fixed = bases_student.reshape(b, n, -1), bases_teacher.reshape(b, n, -1)
    teacher, fixed = jax.lax.stop_gradient((teacher, fixed))
    intra = jnp.mean(authors_ce(jnp.asarray(labels, jnp.float32), similarity(student, fixed)))
    truth = similarity(teacher, jnp.roll(fixed, -1, axis=0))
    inter = jnp.mean(authors_ce(truth, similarity(student, jnp.roll(bases, -1, axis=0))))
    pairs = similarity(bases, jax.lax.stop_gradient(bases)) ** 2
    regulariser = jnp.sum(jnp.triu(pairs, 1)) / max(b * n * (n - 1) // 2, 1)
    return VocoAuthorsLoss(intra + inter + regulariser, intra, inter, regulariser)


def authors_ce(overlap: jax.Array, s: jax.Array) -> jax.Array:
    """CE(o, s) of `voco_authors` for each volume: `b t n` to `b`."""
    axes = (1, 2)
    positive = overlap > 0
    near = jnp.sum(-overlap * jnp.log(1 - absolute(overlap - s) + EPSILON), axes) / (
        jnp.sum(overlap, axes) + EPSILON
    )
    far = jnp.sum(jnp.where(positive, 0, -jnp.log(1 - s + EPSILON)), axes)
    return near + far / (jnp.sum(~positive, axes, dtype=jnp.float32) + EPSILON)


def objective_of(model: nn.Module, head: Projection, options: VocoOptions) -> Objective:
    """VoCo: batches are what `cut` gives, each crop then augmented by itself.

    The teacher of the authors' form is the running average of the head, `state.ema`, on the same encoder.

    Args:
        model: whose encoder learns.
        head: from pooled maps to what is compared.
        options: of the crops and the loss.
    """

    def objective(
        params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[ModelState, Metrics]]:
        overlap = batch["overlap"]
        b, t, n = overlap.shape
        maps, model_state = forward.encode(model, params, state, batch["image"], key)
        features = forward.pooled(maps)
        rows = forward.own(head, params, features).reshape(b, n + t, -1)
        if options.form == AUTHORS:
            taught = forward.own(head, state.ema, jax.lax.stop_gradient(features)).reshape(b, n + t, -1)
            loss = voco_authors(rows[:, n:], rows[:, :n], taught[:, n:], taught[:, :n], overlap)
        else:
            loss = voco(rows[:, :n], rows[:, n:], overlap, options.form)
        parts = loss._asdict()
        return parts.pop("total"), (model_state, parts)

    return objective


def _off_diagonal(pairs: jax.Array) -> jax.Array:
    """Mean over the pairs of different bases, `b n n`; 0 for a single base."""
    b, n, _ = pairs.shape
    own = jnp.arange(n)
    different = (own[:, None] != own[None])[None]
    return jnp.sum(jnp.where(different, pairs, 0)) / max(b * n * (n - 1), 1)


def _mean(total: jax.Array, count: jax.Array) -> jax.Array:
    return total / jnp.where(count > 0, count, 1)


def _check(base: jax.Array, target: jax.Array, overlap: jax.Array) -> None:
    wanted = (target.shape[0], target.shape[1], base.shape[1])
    if overlap.shape != wanted or base.shape[0] != target.shape[0] or base.shape[-1] != target.shape[-1]:
        raise ValueError(
            f"base {base.shape} (b n d), target {target.shape} (b t d) and overlap {overlap.shape} (b t n) do not belong "
            "together."
        )
