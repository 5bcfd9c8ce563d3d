"""S3D (Wald et al. 2025), SparK (Tian et al. 2023) in 3D: a masked autoencoder whose convolutions know the mask.

Hidden blocks stay 0 in every map of the encoder (`sparse`); before the decoder takes a map its hidden cells are filled
by a token. The loss is MAE's, of hidden voxels.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ukbob_jax.models import architecture
from ukbob_jax.models.blocks import Conv
from ukbob_jax.training.objectives import forward, sparse
from ukbob_jax.training.objectives.masked import MaskedOptions, Pass, block_mask, masked_mse, reconstruction
from ukbob_jax.training.state import TrainState
from ukbob_jax.training.step import Batch, ModelState, Objective, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class S3dOptions(MaskedOptions):
    """The fields of `config.pretrain` for "s3d".

    Attributes:
        block: side of the blocks that are hidden or shown as a whole, voxels; that of the benchmark (nnssl).
        ratio: of the blocks that are hidden, in every sample.
        form: "paper": hidden voxels of the input are 0. "nnssl": the network is fed the whole crop, and masked after its
            convolutions alone, so that those of the first layer see into hidden blocks.
    """


def identity_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Kernel `x y z i o`, odd, that leaves its input as it is; nothing is drawn."""
    del key
    middle = tuple(n // 2 for n in shape[:-2])
    return jnp.zeros(shape, dtype).at[middle].set(jnp.eye(*shape[-2:], dtype=dtype))


class Densify(nn.Module):
    """What fills the hidden cells of each map: a sparse norm, a learnt token, then a convolution that starts as identity.

    Attributes:
        dtype: of the convolutions.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: list[jax.Array], visible: list[jax.Array | None]) -> list[jax.Array]:
        """Fill `maps` `b x y z c` where `visible` `b x y z` is False; where it is None, they go on as they are."""
        filled = []
        for i, (level, seen) in enumerate(zip(maps, visible)):
            filled.append(level if seen is None else self._fill(i, level, seen))
        return filled

    def _fill(self, i: int, level: jax.Array, seen: jax.Array) -> jax.Array:
        channels = level.shape[-1:]
        scale = self.param(f"scale_{i}", nn.initializers.ones, channels, jnp.float32)
        bias = self.param(f"bias_{i}", nn.initializers.zeros, channels, jnp.float32)
        token = self.param(f"token_{i}", nn.initializers.normal(0.02), channels, jnp.float32)
        y = sparse.sparse_norm(level, seen, scale, bias)
        y = jnp.where(seen[..., None], y, token.astype(y.dtype))
        conv = Conv(*channels, bias=True, dtype=self.dtype, draw=identity_init, name=f"conv_{i}")
        return conv(y).astype(level.dtype)


def levels(model: nn.Module, in_channels: int, crop: Sequence[int], block: int) -> list[int]:
    """Return the channels of each map of the encoder, finest first; 0 where no cell is hidden. Nothing is computed.

    Raises:
        ConfigError: the network is none whose encoder can be kept from seeing hidden cells.
    """
    found: list[int] = []

    def note(maps: list[jax.Array], visible: list[jax.Array | None]) -> list[jax.Array]:
        found[:] = [0 if seen is None else level.shape[-1] for level, seen in zip(maps, visible)]
        return maps

    def through(variables: Any, image: jax.Array) -> None:
        for method in (
            forward.features_of(model),
            None,
        ):  # the encoder alone first: it tells what does not fit
            with sparse.encoder(model, jnp.ones(image.shape[:-1], bool), block, note):
                model.apply(variables, image, method=method)

    smallest = jax.ShapeDtypeStruct(architecture.of(model).input_shape(model), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), smallest)
    jax.eval_shape(through, variables, jax.ShapeDtypeStruct((1, *crop, in_channels), jnp.float32))
    return found


def one_cell(channels: Sequence[int]) -> tuple[list[jax.Array], list[jax.Array | None]]:
    """Maps of one cell with so many channels, and which cells are visible: what initialises `Densify`."""
    one = (1, 1, 1, 1)
    return [jnp.zeros((*one, n)) for n in channels], [jnp.ones(one, bool) if n else None for n in channels]


def s3d(model: nn.Module, parts: Densify, options: S3dOptions) -> Objective:
    """S3D: batches have "image" `b x y z c` and may have "anonymised" `b x y z`, whose voxels are in no loss.

    Args:
        model: convolutional, with as many output as input channels; see `sparse.encoder`.
        parts: what fills hidden cells.
        options: of the masks.
    """
    return reconstruction(s3d_pass(model, parts, options), masked_mse)


def s3d_pass(model: nn.Module, parts: Densify, options: S3dOptions) -> Pass:
    """What `s3d` computes before its loss."""

    def rebuild(
        params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[forward.Rebuilt, jax.Array, ModelState]:
        mask_key, dropout_key = jax.random.split(key)
        image = batch["image"]
        hidden = block_mask(mask_key, image.shape[:4], options.block, options.ratio)
        masked = jnp.where(hidden[..., None], jnp.zeros((), image.dtype), image)
        fed = image if options.form == "nnssl" else masked

        def fill(maps: list[jax.Array], visible: list[jax.Array | None]) -> list[jax.Array]:
            return forward.own(parts, params, maps, visible)

        with sparse.encoder(model, ~hidden, options.block, fill):
            prediction, model_state = forward.dense(model, params, state, fed, dropout_key)
        return forward.Rebuilt(masked, prediction, image), hidden, model_state

    return rebuild
