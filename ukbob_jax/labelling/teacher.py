"""Labels from a network of ours, for another to learn from; one contrast after the other where it was trained on one."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.inference.windows import slabs
from ukbob_jax.inference.windows.entropy import LOWEST, barred
from ukbob_jax.volumes.resample import NEAREST
from ukbob_jax.volumes.volume import Volume


@dataclasses.dataclass(frozen=True)
class MeanOverContrasts:
    """The logarithm of the mean over contrasts of a network's probabilities, as logits."""

    module: nn.Module
    exclude: tuple[int, ...]

    def __call__(self, variables: tuple[Any, ...], x: jax.Array) -> jax.Array:
        """`variables`, one per contrast, and windows `b x y z c` -> `b x y z k`."""
        logits = [self.module.apply(own, x[..., i : i + 1]) for i, own in enumerate(variables)]
        logs = [jax.nn.log_softmax(barred(one.astype(jnp.float32), self.exclude)) for one in logits]
        mean = jax.nn.logsumexp(jnp.stack(logs), axis=0) - jnp.log(float(len(logs)))
        return jnp.maximum(mean, LOWEST)  # windows are blended by sums, which minus infinity would spoil


def label(
    segmenter: Segmenter,
    image: Volume,
    adapt: bool | Mapping[str, Any],
    *,
    overlap: Any = 0.5,
    batch: int = 4,
) -> np.ndarray:
    """Label map of a scan with our ids, `x y z` uint8, on the grid of `image`.

    A network of several contrasts sees them together. One that was trained on a single contrast sees each of the
    image's in turn, adapted to each by itself, and the class with the highest mean probability is taken.

    Args:
        image: `x y z c`, contrasts in the network's order, or any for a network of one.
        adapt: as for `Segmenter.predict`.
    Raises:
        ConfigError: a class of the network is none of ours.
    """
    lookup = our_ids(segmenter.card.labels)
    if len(segmenter.card.contrasts) > 1 or image.array.shape[-1] == 1:
        return lookup[segmenter.predict(image, adapt, overlap=overlap, batch=batch).volume.array]
    prepared = [
        segmenter.prepare(Volume(image.array[..., c : c + 1], image.affine))
        for c in range(image.array.shape[-1])
    ]
    variables = tuple({"params": segmenter.adapt(x, adapt)[0], **segmenter.model_state} for x, _ in prepared)
    found = slabs.segment(
        MeanOverContrasts(segmenter.model, segmenter.card.excluded),
        variables,
        np.concatenate([x for x, _ in prepared], axis=-1),
        segmenter.card.window,
        exclude=segmenter.card.excluded,
        overlap=overlap,
        batch=batch,
    )
    volume = Volume(np.asarray(found.labels), prepared[0][1].affine)
    return lookup[volume.resample_like(image, NEAREST).array]


def our_ids(names: Mapping[int, str]) -> np.ndarray:
    """Lookup, uint8[256], from a network's classes to our ids of the same names.

    Raises:
        ConfigError: a name is none of ours.
    """
    lookup = np.full(256, anatomy.IGNORE, np.uint8)
    for number, name in names.items():
        if name not in anatomy.IDS:
            raise ConfigError(
                f"the teacher's class {number}, {name!r}, is none of our structures; train it on ours."
            )
        lookup[number] = anatomy.IDS[name]
    return lookup
