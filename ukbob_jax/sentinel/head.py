"""What both graders end with: gates of the features by the embedding of the organ, and the grade."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ukbob_jax.errors import MismatchError
from ukbob_jax.models.blocks import kernel_init


class GatedHead(nn.Module):
    """out = fc2(g2 * fc1(g1 * x)) with g1 = attention1([x; e]), g2 = attention2([x; e]) (Quality Sentinel, model).

    As published all four are plain affine maps, and no output is squashed. The product of two gates that nothing bounds
    grows with the fourth power of the features, and a sigmoid behind it saturates in the first steps of a training. So
    `bounded` normalises x (LayerNorm), puts a sigmoid on both gates and a GELU before fc2.

    Args:
        hidden: width between fc1 and fc2.
        squash: a sigmoid on the grade, which keeps it in (0, 1).
        bounded: see above.
        detection: a second output beside the grade: a score, higher where the label needs repair (`losses.auc_margin`).
        dtype: of the arithmetic.
    """

    hidden: int = 50
    squash: bool = False
    bounded: bool = False
    detection: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Features `x` (b c) and `embedding` (b e) to grades (b,), with `detection` (grades, scores)."""

        def affine(y: jax.Array, width: int, name: str) -> jax.Array:
            return nn.Dense(width, dtype=self.dtype, kernel_init=kernel_init, name=name)(y)

        if self.bounded:
            x = nn.LayerNorm(dtype=self.dtype, name="norm")(x)
        gate = jax.nn.sigmoid if self.bounded else lambda y: y
        both = jnp.concatenate([x, embedding.astype(x.dtype)], -1)
        gate1 = gate(affine(both, x.shape[-1], "attention1"))
        gate2 = gate(affine(both, self.hidden, "attention2"))
        mixed = gate2 * affine(gate1 * x, self.hidden, "fc1")
        mixed = jax.nn.gelu(mixed) if self.bounded else mixed
        grade = affine(mixed, 1, "fc2")[:, 0].astype(jnp.float32)
        grade = jax.nn.sigmoid(grade) if self.squash else grade
        if not self.detection:
            return grade
        return grade, affine(mixed, 1, "detector")[:, 0].astype(jnp.float32)


def table(model: Any) -> nn.Embed | None:
    """The embeddings that a model learns, or None."""
    if not model.learned_classes:
        return None
    start = nn.initializers.normal(1.0)
    return nn.Embed(model.learned_classes, model.num_classes_embedding, embedding_init=start, name="classes")


def embedded(model: Any, learned: nn.Embed | None, embedding: jax.Array | None, batch: int) -> jax.Array:
    """The embedding of each sample, b e; zeros where a model is initialised without one.

    Args:
        model: with a field `num_classes_embedding`, e.
        learned: see `table`.
        embedding: b e, or the class of each sample (b, integers) where the model learns the embeddings.
        batch: b.
    Raises:
        MismatchError: there is none, or of another shape.
    """
    kind, width = type(model).__name__, model.num_classes_embedding
    if embedding is None and model.is_initializing():
        embedding = jnp.zeros((batch,), jnp.int32) if learned else jnp.zeros((batch, width))
    got = "none" if embedding is None else f"{embedding.dtype} of shape {embedding.shape}"
    if learned:
        if (
            embedding is None
            or not jnp.issubdtype(embedding.dtype, jnp.integer)
            or embedding.shape != (batch,)
        ):
            raise MismatchError(
                f"{kind}: it learns its embeddings and needs class numbers of shape ({batch},), got {got}."
            )
        return learned(embedding)
    if embedding is None or embedding.shape != (batch, width):
        raise MismatchError(
            f"{kind}: needs embeddings of shape ({batch}, {width}), one per sample, got {got}."
        )
    return embedding
