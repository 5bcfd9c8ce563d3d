"""Labels from a trained network, the teacher, for another to learn from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.options import PredictOptions
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.inference.windows.entropy import LOWEST, mask_classes
from ukbob_jax.inference.windows.sliding import Apply, ModuleApply
from ukbob_jax.volumes.resample import NEAREST
from ukbob_jax.volumes.volume import Volume


@dataclasses.dataclass(frozen=True)
class MeanOverContrasts:
    """The logarithm of the mean over contrasts of a network's probabilities, as logits.

    Attributes:
        apply: a network of one contrast, `(variables, b x y z 1)` -> logits `b x y z k`.
        exclude: classes that get no probability.
    """

    apply: Apply
    exclude: tuple[int, ...]

    def __call__(self, variables: tuple[Any, ...], x: jax.Array) -> jax.Array:
        """Apply the network: `variables`, one per contrast, and windows `b x y z c` -> `b x y z k`."""
        logits = [self.apply(own, x[..., i : i + 1]) for i, own in enumerate(variables)]
        logs = [jax.nn.log_softmax(mask_classes(one.astype(jnp.float32), self.exclude)) for one in logits]
        mean = jax.nn.logsumexp(jnp.stack(logs), axis=0) - jnp.log(float(len(logs)))
        return jnp.maximum(mean, LOWEST)  # windows are blended by sums, which minus infinity would spoil


def label(segmenter: Segmenter, image: Volume, options: PredictOptions) -> np.ndarray:
    """Label map of a scan with ids as in `anatomy`, `x y z` uint8, on the grid of `image`.

    A network of several contrasts sees them together. One that was trained on a single contrast sees each of the
    image's in turn, adapted to each by itself, and the class with the highest mean probability is taken.

    Args:
        segmenter: the teacher.
        image: `x y z c`, contrasts in the network's order, or any for a network of one.
        options: of the prediction; its limits are not used.

    Raises:
        ConfigError: a class of the network has another name than those of `anatomy`.
    """
    lookup = to_taxonomy_ids(segmenter.card.labels)
    if len(segmenter.card.contrasts) > 1 or image.array.shape[-1] == 1:
        return lookup[segmenter.predict(image, options, limits=None).volume.array]
    prepared = [
        segmenter.prepare(Volume(image.array[..., c : c + 1], image.affine))
        for c in range(image.array.shape[-1])
    ]
    window = options.window(segmenter.card.window)
    segmentation = segmenter.segment(
        MeanOverContrasts(ModuleApply(segmenter.model), segmenter.card.excluded),
        np.concatenate([x for x, _ in prepared], axis=-1),
        [tuple(segmenter.adapted(x, options.adaptation, grid, window) for x, grid in prepared)],
        options.averaged_views,
        window,
    )
    labels = Volume(np.asarray(segmentation.labels), prepared[0][1].affine).resample_like(image, NEAREST)
    if options.gate:
        labels, _ = segmenter.remove_out_of_view(labels, options.attributes)
    return lookup[labels.array]


def to_taxonomy_ids(names: Mapping[int, str]) -> np.ndarray:
    """Lookup, uint8[256], from a network's classes to the ids of `anatomy` with the same names.

    Raises:
        ConfigError: a name is not in `anatomy`.
    """
    lookup = np.full(256, anatomy.IGNORE, np.uint8)
    for number, name in names.items():
        if name not in anatomy.IDS:
            raise ConfigError(
                f"the teacher's class {number}, {name!r}, is not a structure of `ukbob labels`; train it on those."
            )
        lookup[number] = anatomy.IDS[name]
    return lookup
