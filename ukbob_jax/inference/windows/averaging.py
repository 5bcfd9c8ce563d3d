"""The mean probability of several networks and of mirrored or rescaled views of a window, in place of one network's.

Its logits are the logarithm of the mean probability (the arithmetic mean of an ensemble, as nnU-Net averages folds and
mirrored views), so that what follows (blending, argmax, entropy) is the same as for one network.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ukbob_jax import mirroring
from ukbob_jax.inference.windows.entropy import mask_classes
from ukbob_jax.inference.windows.sliding import Apply

SMALLEST = 1e-37  # a probability whose logarithm is finite in float32


class View(NamedTuple):
    """How a window is shown to the network."""

    mirrored: bool = False  # left and right exchanged
    scale: float = 1.0  # of the normalised intensities


PLAIN = (View(),)
MIRRORED = (View(), View(mirrored=True))
AUGMENTED = (*MIRRORED, View(scale=0.9), View(scale=1.1))  # what test-time augmentation averages


@dataclasses.dataclass(frozen=True)
class Average:
    """A network's mean over members and views: `(members, b x y z c)` -> logits `b x y z k`.

    A mirrored view sees the left kidney as the right one, so its probabilities are exchanged back. Lobes of a lung
    are not exchanged one by one, since the left lung has no middle lobe: the mirrored view decides how much is lung
    of this side, the other views which lobe.

    Attributes:
        apply: one network, `(variables, b x y z c)` -> logits `b x y z k`.
        views: averaged; at least one is not mirrored where there are lobes.
        exclude: classes that get no probability.
        mirror: per class its group and the group's mirror image, as `mirroring.groups`; empty where no class
            has a side.
        activation: "softmax", or "sigmoid" for regions that overlap.
    """

    apply: Apply
    views: tuple[View, ...] = PLAIN
    exclude: tuple[int, ...] = ()
    mirror: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    activation: str = "softmax"

    def __call__(self, members: Any, x: jax.Array) -> jax.Array:
        """Average over networks and views.

        Args:
            members: the variables of all networks, each leaf with a leading axis of the same length.
            x: windows, `b x y z c`.
        """
        count = jax.tree.leaves(members)[0].shape[0]
        pairs = np.stack(np.meshgrid(np.arange(count), np.arange(len(self.views)), indexing="ij"), -1)
        flags = jnp.asarray([view.mirrored for view in self.views])
        scales = jnp.asarray([view.scale for view in self.views], x.dtype)

        def add_view(sums: tuple, index: jax.Array) -> tuple[tuple, None]:
            variables = jax.tree.map(lambda leaf: leaf[index[0]], members)
            mirrored = flags[index[1]]
            shown = jnp.where(mirrored, jnp.flip(x, 1), x) * scales[index[1]]
            logits = mask_classes(self.apply(variables, shown).astype(jnp.float32), self.exclude)
            p = jax.nn.softmax(logits) if self.activation == "softmax" else jax.nn.sigmoid(logits)
            p = jnp.where(mirrored, jnp.flip(p, 1), p)
            return (sums[0] + jnp.where(mirrored, 0.0, p), sums[1] + jnp.where(mirrored, p, 0.0)), None

        variables = jax.tree.map(lambda leaf: leaf[0], members)
        zeros = jnp.zeros(jax.eval_shape(self.apply, variables, x).shape, jnp.float32)
        plain, turned = lax.scan(add_view, (zeros, zeros), jnp.asarray(pairs.reshape(-1, 2)))[0]
        if any(view.mirrored for view in self.views):
            plain = plain + (self._exchanged(turned, plain) if self.mirror else turned)
        mean = plain / pairs[..., 0].size
        rest = jnp.log(jnp.maximum(1 - mean, SMALLEST)) if self.activation == "sigmoid" else 0.0
        return jnp.log(jnp.maximum(mean, SMALLEST)) - rest

    def _exchanged(self, turned: jax.Array, plain: jax.Array) -> jax.Array:
        """Rename the probabilities of mirrored views to the sides of the scan; lobes of a lung are split as in `plain`."""
        k = turned.shape[-1]
        own, other = np.zeros((2, k, k), np.float32)  # from, to
        for c, (group, image) in enumerate(self.mirror):
            own[list(group), c] = 1
            other[list(image), c] = 1
        whole = plain @ own
        size = jnp.broadcast_to(own.sum(0), plain.shape)
        return (turned @ other) * jnp.where(whole > SMALLEST, plain / jnp.maximum(whole, SMALLEST), 1 / size)


def stack(members: Sequence[Any]) -> Any:
    """The variables of several networks as one tree with a leading axis.

    Put together on the host: on the device every shape of a parameter would be a program to compile.
    """
    return jax.tree.map(lambda *leaves: jax.device_put(np.stack(jax.device_get(leaves))), *members)


def mirror_table(names: Mapping[int, str], count: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """`mirroring.groups` of classes 0 to `count` - 1, hashable; a class without a name is its own image.

    Raises:
        ConfigError: a structure of one side without that of the other.
    """
    groups = mirroring.groups(dict(names))
    return tuple(groups.get(c, ((c,), (c,))) for c in range(count))


def averaged(
    apply: Apply,
    members: Sequence[Any],
    views: Sequence[View],
    names: Mapping[int, str],
    *,
    exclude: tuple[int, ...] = (),
    regions: bool = False,
) -> tuple[Apply, Any]:
    """One prediction from several networks and views; a single network seen plainly is left as it is.

    Args:
        apply: `(variables, b x y z c)` -> logits `b x y z k`.
        members: the variables of each network.
        views: averaged.
        names: class -> name, of all classes.
        exclude: classes that get no probability.
        regions: whether channels are regions that overlap (sigmoid); they have no sides.

    Returns:
        What to call in place of `apply`, and with which variables.

    Raises:
        ConfigError: a mirrored view, and a structure of one side without that of the other.
    """
    if len(members) == 1 and tuple(views) == PLAIN:
        return apply, members[0]
    mirror = ()
    if any(view.mirrored for view in views) and not regions:
        used = {c: name for c, name in names.items() if c not in exclude}
        mirror = mirror_table(used, max(names) + 1)
    activation = "sigmoid" if regions else "softmax"
    return Average(apply, tuple(views), exclude, mirror, activation), stack(members)
