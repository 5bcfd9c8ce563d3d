"""What trained networks say of a whole scan: the maps that units of annotation are scored by.

Probabilities of all classes of a scan are held two to three times on the device while several networks are averaged, 8 to 12
bytes for a voxel and class; one network's entropy alone needs none of that, see `inference.windows.slabs`.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.active.patches import Size, Unit
from ukbob_jax.active.uncertainty import entropy
from ukbob_jax.data import whole
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.inference.windows import slabs, sliding
from ukbob_jax.inference.windows.entropy import mask_classes
from ukbob_jax.inference.windows.window import Window
from ukbob_jax.store.reader import Store
from ukbob_jax.training.objectives import forward

ENSEMBLES = ("seeds", "checkpoints", "dropout")
MAPS = ("predictive_entropy", "expected_entropy", "mutual_information", "class_entropy", "sentinel")
AGREEMENT = 1e-5  # nats of disagreement that rounding alone makes


@dataclasses.dataclass(frozen=True)
class DropoutApply:
    """A network with one draw of its dropout (Gal and Ghahramani 2016); equal for equal networks."""

    module: nn.Module

    def __call__(self, variables: Mapping[str, Any], x: jax.Array) -> jax.Array:
        """Logits `b x y z k` of windows `b x y z c`; variables: the network's, and the key of the draw."""
        found: Any = self.module.apply(
            variables["network"], x, train=True, rngs={"dropout": variables["key"]}
        )
        return cast(jax.Array, found[0] if isinstance(found, list | tuple) else found)


@dataclasses.dataclass(frozen=True, eq=False)
class Committee:
    """Networks that look at the same scans.

    Attributes:
        segmenter: the first of them.
        apply: `(variables, b x y z c)` -> logits `b x y z k`.
        members: the variables of each.
    """

    segmenter: Segmenter
    apply: sliding.Apply
    members: tuple[Any, ...]

    @classmethod
    def load(
        cls, workdirs: Sequence[str], ensemble: str, members: int, dtype: str = "", seed: int = 0
    ) -> "Committee":
        """Networks of trainings.

        Args:
            workdirs: of the trainings; one for "checkpoints" and "dropout".
            ensemble: "seeds": a network per training; "checkpoints": the best and the latest of one; "dropout": draws
                of one.
            members: draws of dropout.
            dtype: of the networks' arithmetic; empty: as in training.
            seed: of the draws.
        Raises:
            ConfigError: no such ensemble, a network of regions, or one without dropout.
            FileError, MismatchError: as `Segmenter.load`.
        """
        if ensemble not in ENSEMBLES:
            raise ConfigError(
                f"config.active.ensemble: {ensemble!r} is unknown; choose one of {', '.join(ENSEMBLES)}."
            )
        if ensemble != "seeds" and len(workdirs) != 1:
            raise ConfigError(
                f"config.active.ensemble: {ensemble!r} is of one training, not of {len(workdirs)}."
            )
        segmenter = Segmenter.load(list(workdirs), dtype=dtype)
        if not isinstance(segmenter, Segmenter):
            raise ConfigError(f"{workdirs[0]}: a model folder of nnU-Net; give workdirs of trainings.")
        if segmenter.card.regions:
            raise ConfigError(
                f"{workdirs[0]}: a network of overlapping regions; scores are of classes that exclude each other."
            )
        found = list(segmenter.members)
        if ensemble == "checkpoints":
            latest = cast(Segmenter, Segmenter.load(workdirs[0], "latest", dtype=dtype))
            found += latest.members
        networks = [{"params": params, **state} for params, state in found]
        if ensemble == "dropout":
            return _with_dropout(segmenter, networks[0], members, seed, workdirs[0])
        return cls(segmenter, sliding.ModuleApply(segmenter.model), tuple(networks))

    def window(self, overlap: float, blend: str, batch: int) -> Window:
        """How windows of the size of training's crops slide."""
        return Window(self.segmenter.card.window, overlap, blend, batch)


def _with_dropout(
    segmenter: Segmenter, network: dict[str, Any], members: int, seed: int, where: str
) -> Committee:
    """Draws of one network's dropout.

    Raises:
        ConfigError: fewer than two draws, no dropout, or batch norm, whose training form is another network.
    """
    if members < 2:
        raise ConfigError(
            f"config.active.members: {members} draws of dropout cannot disagree; take 2 or more."
        )
    if "batch_stats" in network:
        raise ConfigError(f"{where}: a network with batch norm, which draws of dropout would change too.")
    keys = jax.random.split(jax.random.key(seed), members)
    drawn = tuple({"network": network, "key": key} for key in keys)
    apply = DropoutApply(segmenter.model)
    card = segmenter.card
    x = jax.random.normal(jax.random.key(seed), (1, *card.window, len(card.contrasts)))
    first, second = (apply(variables, x) for variables in drawn[:2])
    if jnp.array_equal(first, second):
        raise ConfigError(
            f"{where}: a network without dropout, whose draws all agree; take another ensemble."
        )
    return Committee(segmenter, apply, drawn)


@dataclasses.dataclass(frozen=True, eq=False)
class Scorer:
    """Maps and features of the scans of a store, on the store's own voxels.

    Attributes:
        store: where the scans are.
        committee: the networks.
        window: how they slide.
        stored_ids: class of the network -> id in label sets of the store; empty: the same.
        grader: what predicts the Dice of labels; None: no scores by grades.
        whole_scans: units are scans: a scan's grade is the mean over its organs, whatever their size.
    """

    store: Store
    committee: Committee
    window: Window
    stored_ids: Mapping[int, int] = dataclasses.field(default_factory=dict)
    grader: Any = None
    whole_scans: bool = False

    def image(self, subject: str) -> np.ndarray:
        """A scan as the networks take it, `x y z c` float32."""
        card = self.committee.segmenter.card
        return whole.read_image(self.store, subject, tuple(card.contrasts), card.normalize)

    def maps(self, subject: str, kind: str) -> Iterator[tuple[int, jax.Array | np.ndarray]]:
        """Yield (class, map `x y z`), the higher, the more there is to learn: class 0 for a map of all classes.

        Raises:
            ConfigError: no such map, or one that needs more networks or a grader.
        """
        if kind not in MAPS:
            raise ConfigError(f"map {kind!r} is unknown; there are {', '.join(MAPS)}.")
        several = len(self.committee.members) > 1
        if kind == "mutual_information" and not several:
            raise ConfigError(
                "config.active.members: one network cannot disagree with itself; mutual information takes 2 or more."
            )
        if kind == "sentinel":
            yield 0, self.grade_map(subject)
        elif kind != "class_entropy" and not several:
            yield 0, self.segment(subject).entropy
        else:
            mean, expected = self.probabilities(subject)
            whole_entropy = entropy(mean, -1)
            if kind == "expected_entropy":
                yield 0, expected
            elif kind == "mutual_information":
                between = jnp.maximum(whole_entropy - expected, 0)
                if not between.max() > AGREEMENT:  # as where the best checkpoint is the latest
                    raise ConfigError(
                        f"config.active.ensemble: all networks say the same of {subject}, which tells nothing of where to "
                        "look. Take 'seeds' or 'dropout'."
                    )
                yield 0, between
            else:
                yield 0, whole_entropy
            if kind == "class_entropy":
                for organ in self.committee.segmenter.card.used:
                    if organ:
                        yield organ, whole_entropy * mean[..., organ]

    def segment(self, subject: str) -> slabs.Segmentation:
        """Labels and entropy by the first network."""
        return slabs.segment(
            self.committee.apply,
            self.committee.members[0],
            self.image(subject),
            self.window,
            exclude=self.committee.segmenter.card.excluded,
        )

    def probabilities(self, subject: str) -> tuple[jax.Array, jax.Array]:
        """Mean over the networks of the probabilities, `x y z k`, and of their entropies, `x y z`."""
        image, members = self.image(subject), self.committee.members
        exclude = self.committee.segmenter.card.excluded
        sums = None
        for variables in members:
            logits = sliding.sliding_window_params(self.committee.apply, variables, image, self.window)
            sums = _add(sums, logits, exclude)
        assert sums is not None
        return sums[0] / len(members), sums[1] / len(members)

    def grade_map(self, subject: str) -> np.ndarray:
        """1 less the grade of the predicted organ of each voxel, `x y z`; 0 in the background.

        A scan in which nothing is found is 1 throughout. Of whole scans, 1 less the mean grade of the organs that are found.
        """
        found, row = np.asarray(self.segment(subject).labels), self.store.rows[subject]
        if self.grader is None:
            raise ConfigError("config.active.grader: empty; give the workdir of a trained Sentinel.")
        lookup = np.arange(256, dtype=np.uint8)
        lookup[list(self.stored_ids)] = list(self.stored_ids.values())
        labels = lookup[found]
        contrast = getattr(self.grader, "contrast", "") or self.committee.segmenter.card.contrasts[0]
        channel = row.channel_indices((contrast,), "the grader")
        image = self.store.read(subject, "image")[..., channel]
        dice = np.asarray(self.grader.grade(image, labels, row.spacing_mm).dice, np.float64)
        need = 1 - np.nan_to_num(dice, nan=0.0)  # what could not be graded needs a look
        organs = [i for i in np.unique(labels).tolist() if i not in (0, anatomy.IGNORE)]
        if not organs:
            return np.ones(labels.shape, np.float32)
        if self.whole_scans:
            return np.full(labels.shape, need[organs].mean(), np.float32)
        of_id = np.zeros(256, np.float32)
        of_id[organs] = need[organs]
        return of_id[labels]

    def features(self, units: Sequence[Unit]) -> np.ndarray:
        """Means of the encoder's maps around each unit, `n d`, each number with mean 0 and deviation 1 over the units.

        A window as large as training's crops lies around the middle of a patch; a whole scan is covered by several.
        """
        card = self.committee.segmenter.card
        rows = []
        for unit in units:
            shape, size = self.store.rows[unit.subject].shape, cast(Size, tuple(card.window))
            starts = whole.tiles(shape, size)
            if unit.size != tuple(shape):
                starts = [
                    np.array([low + side // 2 - length // 2])
                    for low, side, length in zip(unit.start, unit.size, size)
                ]
            places = np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 3).tolist()
            rows.append(np.mean([self._pooled(unit.subject, place, size) for place in places], 0))
        found = np.stack(rows)
        return (found - found.mean(0)) / np.maximum(found.std(0), 1e-6)

    def _pooled(self, subject: str, start: Sequence[int], size: Size) -> np.ndarray:
        segmenter = self.committee.segmenter
        x, y, z = start
        card = segmenter.card
        image = whole.read_window(self.store, subject, tuple(card.contrasts), card.normalize, (x, y, z), size)
        variables = {"params": segmenter.params, **segmenter.model_state}
        return np.asarray(_encoded(segmenter.model, variables, jnp.asarray(image[None])))


@functools.partial(jax.jit, static_argnums=(0,))
def _encoded(model: nn.Module, variables: Any, x: jax.Array) -> jax.Array:
    """Means over voxels of the encoder's maps of one window, `1 x y z c` -> `d`."""
    maps: Any = model.apply(variables, x, method=forward.features_of(model), train=False)
    return forward.pooled([level.astype(jnp.float32) for level in maps])[0]


@functools.partial(jax.jit, static_argnames="exclude", donate_argnums=0)
def _add(
    sums: tuple[jax.Array, jax.Array] | None, logits: jax.Array, exclude: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """Add one network's probabilities and entropy to the sums; None: there are none yet."""
    p = jax.nn.softmax(mask_classes(logits.astype(jnp.float32), exclude))
    found = p, entropy(p, -1)
    return found if sums is None else (sums[0] + found[0], sums[1] + found[1])
