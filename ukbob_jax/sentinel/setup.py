"""A grader's training as its recipe says it: data, organs, embeddings and network, checked before the first step."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import ml_collections
import numpy as np

from ukbob_jax import anatomy, files, networks
from ukbob_jax.data.options import Config
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.errors import ConfigError, MismatchError
from ukbob_jax.quality import cohort, verdicts
from ukbob_jax.quality.measures import stack
from ukbob_jax.sentinel import embeddings as tables
from ukbob_jax.sentinel.embeddings import Embeddings
from ukbob_jax.sentinel.options import DRAWN, SentinelOptions
from ukbob_jax.sentinel.predictions import Predictions
from ukbob_jax.sentinel.sight import SIZES, Sight, kind_of
from ukbob_jax.sentinel.stream import Batches, Pairs
from ukbob_jax.store.reader import Store

LEARNED = "learned"
WIDTH = 32  # numbers of an embedding that the network learns
MEASURED = 64  # training subjects whose organs are measured


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """What a training, its evaluation and its description share.

    Attributes:
        options: the section `sentinel`.
        data: subjects and labels.
        contrast: that is looked at.
        table: embeddings by class; None: learned.
        model: the network.
        sight: how it looks at a scan.
        num_classes: k.
        unseen: classes that are held out.
        classes: that are trained on, and those held out.
    """

    options: SentinelOptions
    data: TrainingData
    contrast: str
    table: Embeddings | None
    model: nn.Module
    sight: Sight
    num_classes: int
    unseen: tuple[int, ...]
    classes: frozenset[int]

    @functools.cached_property
    def vectors(self) -> np.ndarray:
        """What the network is called with, by class: vectors k e, or class numbers k where it learns them."""
        if self.table is None:
            return np.arange(self.num_classes, dtype=np.int32)
        return np.nan_to_num(self.table.vectors).astype(np.float32)

    @property
    def noise(self) -> np.ndarray | None:
        """Deviation of the noise on embeddings, e, see `SentinelOptions.embedding_noise`; None: no noise."""
        if self.table is None or not self.options.embedding_noise:
            return None
        return self.options.embedding_noise * np.nanstd(self.table.vectors, axis=0)

    def pairs(
        self, purpose: str, seed: int, predictions: Predictions | None = None, unseen: bool = False
    ) -> Pairs:
        """Pairs of the organs that are trained on, or of those held out; each purpose draws differently."""
        classes = set(self.unseen) if unseen else self.classes - set(self.unseen)
        return Pairs(
            store=self.data.store,
            label=self.data.label,
            contrast=self.contrast,
            sight=self.sight,
            classes=frozenset(classes),
            flagged=self.data.flagged,
            kinds=self.options.kinds or DRAWN,
            lost=self.options.lost,
            seed=f"{seed}/{purpose}",
            predictions=predictions,
            predicted=self.options.predicted if predictions else 0.0,
        )

    def held_out(self, purpose: str, seed: int) -> list[tuple[Pairs, int]]:
        """What an evaluation grades: `val_pairs` masks, and half as many of organs held out."""
        count = self.options.val_pairs
        parts = [(self.pairs(purpose, seed), count)]
        return parts + ([(self.pairs(purpose, seed, unseen=True), -(-count // 2))] if self.unseen else [])

    def batches(self, config: Config, pairs: Pairs) -> Batches:
        """The stream of training, this process's share."""
        return Batches(
            pairs=pairs,
            subjects=self.data.subjects,
            batch_size=config.data.batch_size,
            per_scan=self.options.per_scan,
            seed=config.seed,
            vectors=self._similar() if self.options.pairing == "host" and self.options.ranking else None,
            outlines=bool(getattr(self.model, "outline", 0)),
            process=jax.process_index(),
            processes=jax.process_count(),
        )

    def _similar(self) -> np.ndarray:
        """Vectors that say which organs are alike: of learned ones only that one is itself."""
        return np.eye(self.num_classes, dtype=np.float32) if self.table is None else self.vectors


def check(config: Config) -> None:
    """Refuse what a grader's training would pass over.

    Raises:
        ConfigError: naming the field.
    """
    if not config.label:
        raise ConfigError(
            "config.label: empty, but a grader learns from labels; name a label set of the store."
        )
    if config.augment:
        raise ConfigError(
            f"config.augment: {config.augment[0]!r}, but a grader looks at masks on unchanged scans; leave it empty."
        )
    if config.regions:
        raise ConfigError(
            f"config.regions: {config.regions!r}, but a grader looks at classes; leave it empty."
        )
    if config.mesh.space != 1:
        raise ConfigError(
            f"config.mesh.space: {config.mesh.space}, but a grader's crops are not cut; set it to 1."
        )
    if config.data.val_label not in ("", config.label):
        raise ConfigError(
            f"config.data.val_label: {config.data.val_label!r}, but held-out pairs are of config.label; leave it empty."
        )
    section = config.sentinel
    if section.pairing == "host" and section.ranking and config.train.accumulate > 1:
        raise ConfigError(
            f"config.train.accumulate: {config.train.accumulate}, but partners found on the host are rows of the whole "
            "batch; set config.sentinel.pairing=neighbours."
        )
    if LEARNED in section.embeddings and section.embedding_noise:
        raise ConfigError(
            f"config.sentinel.embedding_noise: {section.embedding_noise}, but embeddings are learned; set it to 0."
        )
    if LEARNED in section.embeddings and section.held_out_organs:
        raise ConfigError(
            "config.sentinel.held_out_organs: learned embeddings know no organ that was not trained on; choose others with "
            "config.sentinel.embeddings, such as taxonomy."
        )


def open_setup(config: Config, workdir: str) -> Setup:
    """Open the store and build the network.

    Raises:
        ConfigError: a field cannot be used.
        FileError: no store, no verdicts, or no embeddings there.
        MismatchError: a class has no embedding, or the scans are of another modality.
    """
    options = SentinelOptions(**config.sentinel)
    data = open_data(config, workdir)
    contrast = one_contrast(data)
    check_modality(data.store, (*data.subjects, *data.held_out), options.modality)
    num_classes = max(anatomy.NUM_CLASSES, max(data.names) + 1)
    ids = {name: i for i, name in data.names.items() if i}
    if unknown := [name for name in options.held_out_organs if name not in ids]:
        raise ConfigError(
            f"config.sentinel.held_out_organs: {unknown[0]!r} is not in {config.label!r}; it has {', '.join(ids)}."
        )
    table = None if options.embeddings == LEARNED else embeddings_of(options.embeddings, data, num_classes)
    if table is not None:
        table.of(
            sorted({c for s in (*data.subjects, *data.held_out) for c in data.store.present(s, config.label)})
        )
    fields = dict(config.model.to_dict())
    fields["learned_classes"] = num_classes if table is None else 0
    fields["num_classes_embedding"] = WIDTH if table is None else table.vectors.shape[1]
    model = networks.from_section(fields)
    kind = kind_of(model)
    sight = Sight(kind, options.size or SIZES[kind], options.margin, options.modality, options.rule)
    unseen = tuple(ids[name] for name in options.held_out_organs)
    classes = chosen(config, ids) | set(unseen)
    return Setup(options, data, contrast, table, model, sight, num_classes, unseen, classes)


def open_data(config: Config, workdir: str) -> TrainingData:
    """The subjects; those held out are graded against `config.label` too.

    Raises:
        ConfigError: as `TrainingData.open`, or nobody is held out.
    """
    config = ml_collections.ConfigDict(config.to_dict())
    config.model = ml_collections.ConfigDict({"out_channels": 0})
    config.data.val_label = config.label
    config.data.organs = ()  # ids stay those of the labels; see `chosen`
    data = TrainingData.open(config, workdir)
    if not data.held_out:
        raise ConfigError(
            "config.data.val_split: nobody is held out, but a grader's interval is that of held-out subjects; name a split, "
            "or set config.folds."
        )
    return data


def chosen(config: Config, ids: Mapping[str, int]) -> frozenset[int]:
    """The classes of `config.data.organs`, by default all.

    Raises:
        ConfigError: an unknown name.
    """
    if unknown := [name for name in config.data.organs if name not in ids]:
        raise ConfigError(
            f"config.data.organs: {unknown[0]!r} is not in {config.label!r}; it has {', '.join(ids)}."
        )
    return frozenset(ids[name] for name in config.data.organs or ids)


def one_contrast(data: TrainingData) -> str:
    """The contrast that is looked at.

    Raises:
        ConfigError: there are several.
    """
    if len(data.contrasts) != 1:
        raise ConfigError(
            f"config.data.contrasts: a grader looks at one contrast; choose from {', '.join(data.contrasts)}."
        )
    return data.contrasts[0]


def check_modality(store: Store, subjects: Any, modality: str) -> None:
    """Refuse scans that are known to be of another modality.

    Raises:
        MismatchError: naming the first.
    """
    for subject in subjects:
        row = store.rows[subject]
        known = row.modality or ("CT" if row.units == "HU" else "")
        if known and known != modality:
            raise MismatchError(
                f"config.sentinel.modality: {modality}, but {subject} is {known}; set it to that of the scans."
            )


def embeddings_of(said: str, data: TrainingData, num_classes: int) -> Embeddings:
    """The embeddings that a recipe names, of "taxonomy", "one_hot", "measured" and files, joined by "+".

    Raises:
        ConfigError: the taxonomy for labels that are not ours.
        FileError: no such file.
    """
    return tables.join(*(_one(part.strip(), data, num_classes) for part in said.split("+")))


def _one(said: str, data: TrainingData, num_classes: int) -> Embeddings:
    if said == "one_hot":
        return tables.one_hot(num_classes)
    if said == "measured":
        return _measured(data, num_classes)
    if said != "taxonomy":
        return tables.load(said, num_classes)
    foreign = [(i, name) for i, name in data.names.items() if i and anatomy.NAMES.get(i) != name]
    if foreign:
        raise ConfigError(
            f"config.sentinel.embeddings: the taxonomy is of our label set, where id {foreign[0][0]} is "
            f"{anatomy.NAMES.get(foreign[0][0], 'none')!r}, not {foreign[0][1]!r}; take measured or one_hot."
        )
    ours = tables.taxonomy()
    more = np.full((num_classes - len(ours.vectors), ours.vectors.shape[1]), np.nan, np.float32)
    return ours._replace(vectors=np.concatenate([ours.vectors, more]))


def _measured(data: TrainingData, num_classes: int) -> Embeddings:
    """Of some training subjects, evenly spread over the list; measures are kept beside SOLF's."""
    places = np.linspace(0, len(data.subjects) - 1, min(MEASURED, len(data.subjects)))
    chosen = [data.subjects[i] for i in np.unique(places.round().astype(int))]
    folder = verdicts.folder(data.store.path, data.label)
    part = f".sentinel-{jax.process_index()}"
    found, errors = cohort.measured(data.store, chosen, data.label, folder, name=part)
    if errors:
        raise next(iter(errors.values()))
    table = tables.measured(stack([found[subject] for subject in chosen]), lowest=min(3, len(chosen)))
    more = np.full((max(num_classes - len(table.vectors), 0), table.vectors.shape[1]), np.nan, np.float32)
    return table._replace(vectors=np.concatenate([table.vectors, more]))


def fingerprint(setup: Setup, predictions: Predictions | None) -> str:
    """Of what is learnt from: labels, embeddings and predictions."""
    table = None if setup.table is None else setup.table.vectors.tobytes().hex()
    names = [] if predictions is None else list(predictions.names)
    return files.fingerprint([setup.data.fingerprint(), table, names], 12)


def facts(setup: Setup, config: Config) -> dict[str, Any]:
    """What `sentinel.json` says of a grader before it is evaluated."""
    return {
        "grader": setup.sight.kind,
        "embeddings": setup.options.embeddings,
        **{name: value for name, value in setup.sight._asdict().items() if name != "kind"},
        "num_classes": setup.num_classes,
        "contrast": setup.contrast,
        "threshold": setup.options.threshold,
        "held_out_organs": list(setup.options.held_out_organs),
        "store": pathlib.Path(setup.data.store.path).name,
        "label": config.label,
    }


def finite(value: Any) -> Any:
    """JSON values without NaN, which becomes null."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
