"""What jobs of active learning read in their configuration."""

from collections.abc import Mapping, Sequence
from typing import Any

from ukbob_jax import anatomy
from ukbob_jax.active.committee import Committee, Scorer
from ukbob_jax.active.patches import Size, Unit
from ukbob_jax.active.strategies import Pool
from ukbob_jax.data.options import Config
from ukbob_jax.store.reader import Store


def pool_of(config: Config, shapes: Mapping[str, Size], labelled: Sequence[Unit], **labels: Any) -> Pool:
    """The pool that `config.active` describes.

    Args:
        config: the recipe.
        shapes: of the scans to choose from.
        labelled: units that are labelled already.
        **labels: what foreground-aware random looks at, see `Pool`.
    Raises:
        ConfigError: naming the field.
    """
    settings = config.active
    return Pool(
        shapes=shapes,
        unit=settings.unit,
        patch=tuple(settings.patch),
        labelled=tuple(labelled),
        odds=settings.odds,
        overlap=settings.overlap,
        **labels,
    )


def scorer_of(config: Config, store: Store, workdirs: Sequence[str]) -> Scorer:
    """What scores scans: the networks of these workdirs, and the grader if one is named.

    Raises:
        ConfigError, FileError, MismatchError: as `Committee.load`.
    """
    settings, inference = config.active, config.inference
    committee = Committee.load(workdirs, settings.ensemble, settings.members, inference.dtype, config.seed)
    grader = None
    if settings.grader:
        from ukbob_jax.sentinel import trained

        grader = trained.load(settings.grader)
    ids = {}
    if config.data.organs:
        names = committee.segmenter.card.labels
        ids = {i: anatomy.IDS[name] for i, name in names.items() if name in anatomy.IDS}
    window = committee.window(inference.overlap, inference.blend, inference.batch)
    return Scorer(store, committee, window, ids, grader, settings.unit == "scan")
