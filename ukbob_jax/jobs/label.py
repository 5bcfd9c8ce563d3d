"""Automatic labels into a store: from any program that labels a NIfTI, a trained network as teacher, or a model folder.

Every subject gets label set `config.labeller.name`, with what made it in its row. `failures.jsonl` in the workdir lists
subjects that could not be labelled. Recipes for public labellers: docs/labels.md.
"""

import concurrent.futures
import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import ukbob_jax
from ukbob_jax import anatomy, files, processes
from ukbob_jax.data.options import Config
from ukbob_jax.errors import ConfigError, InputError, UkbobError
from ukbob_jax.failures import FILE, Failures
from ukbob_jax.inference.nnunet.folders import is_folder as is_nnunet
from ukbob_jax.inference.options import from_config
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.labelling import merge, teacher
from ukbob_jax.labelling.external import Program, ProgramError, terminate_on_exit
from ukbob_jax.labelling.labelled import Labelled
from ukbob_jax.progress import track
from ukbob_jax.store.reader import Store
from ukbob_jax.store.row import Subject
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.volume import Volume

KINDS = ("command", "teacher", "nnunet")


class Labeller(NamedTuple):
    """What labels a subject.

    Attributes:
        label: image x y z c, whose -> its labels, our ids, x y z.
        facts: the provenance of its labels; a label set that has others is labelled anew.
        contrasts: of an image, in their order; empty: the only one of the store.
        workers: subjects at a time.
        held: what it holds while it works; None: nothing.
    """

    label: Callable[[Volume, Subject], Labelled]
    facts: dict[str, Any]
    contrasts: tuple[str, ...]
    workers: int
    held: contextlib.AbstractContextManager | None = None


def run(config: Config, workdir: str) -> None:
    """Label every subject that has no labels by this labeller, version and settings yet.

    Raises:
        ConfigError: a setting cannot be used, or the label set exists and no labeller made it.
        FileError: the store, the teacher or the model folder is missing.
        InputError: every subject failed.
        SomeFailed: some did.
        Preempted: asked to stop; the same command goes on.
    """
    settings, store = config.labeller, Store.open(config.store)
    subjects = processes.shard(store.subjects, settings.process, settings.processes)
    labeller = make(config, store.rows[store.subjects[0]].contrasts)
    contrasts = chosen_contrasts(labeller.contrasts, store, subjects)
    facts = labeller.facts | {"contrasts": list(contrasts), "version": settings.version}
    facts |= {"ukbob_jax": ukbob_jax.__version__}
    keys = {subject: fingerprint(facts, store.rows[subject]) for subject in subjects}
    todo = [subject for subject in subjects if wanted(store.rows[subject], settings.name, keys[subject])]
    failures = Failures(pathlib.Path(workdir) / FILE, kind=InputError)

    def one(subject: str) -> UkbobError | None:
        row = store.rows[subject]
        try:
            channels = row.channel_indices(contrasts)
            image = Volume(store.read(subject, "image")[..., channels], np.asarray(row.affine))
            found = labeller.label(image, row)
            made_by = facts | found.facts | {"key": keys[subject]}
            writer.write_label(subject, settings.name, found.array, made_by)
        except ConfigError:
            raise
        except UkbobError as error:
            return error
        return None

    pool = concurrent.futures.ThreadPoolExecutor(labeller.workers)
    held = labeller.held or contextlib.nullcontext()
    with StoreWriter(config.store) as writer, pool, terminate_on_exit(pool), held:
        for error, subject in zip(track(pool.map(one, todo), "label", len(todo)), todo):
            if error is not None:
                failures.add(subject, "", stage(error), error)
    failures.conclude(len(todo))


def make(config: Config, stored: Sequence[str]) -> Labeller:
    """The recipe's labeller; `stored` are the contrasts of the store."""
    settings = config.labeller
    if settings.kind not in KINDS:
        raise ConfigError(f"labeller.kind={settings.kind!r}: choose one of {', '.join(KINDS)}.")
    if settings.kind == "nnunet":
        return by_nnunet(config, stored)
    if settings.workers < 1:
        raise ConfigError(f"labeller.workers={settings.workers}: must be at least 1.")
    return by_teacher(config) if settings.kind == "teacher" else by_program(settings)


def by_program(settings: Config) -> Labeller:
    """An external command, called once per contrast; ids outside its label set are an error."""
    program = Program.parse(settings.command, settings.timeout_s)
    merged = merge.Merge.parse(settings.merge, settings.water_only, settings.contrasts)
    names = anatomy.DATASETS.get(settings.labels, anatomy.NAMES)
    lookup = np.arange(256, dtype=np.uint8)
    if settings.labels:
        lookup = anatomy.from_dataset(settings.labels).lut

    def label(image: Volume, row: Subject) -> Labelled:
        maps = []
        for c in range(image.array.shape[-1]):
            labels = program.label(Volume(image.array[..., c], image.affine))
            wrong = np.setdiff1d(np.unique(labels), [*names, anatomy.IGNORE])
            if wrong.size:
                raise ProgramError(
                    f"label {wrong[0]} is not in {settings.labels or 'our label set'}. Set labeller.labels."
                )
            maps.append(lookup[labels])
        return Labelled(merged(maps, settings.contrasts, row.attributes.get("sex")))

    kept = ("command", "labels", "merge") + (("water_only",) if settings.merge == "rules" else ())
    facts = {"labeller": "command"} | {name: settings.to_dict()[name] for name in kept}
    return Labeller(label, facts, tuple(settings.contrasts), settings.workers)


def by_teacher(config: Config) -> Labeller:
    """The network of a training run."""
    settings = config.labeller
    options = from_config(config, settings.method, "labeller.method")
    if is_nnunet(settings.workdir):
        raise ConfigError(
            f"labeller.workdir: {settings.workdir} is a model folder of nnU-Net, no training run. Label by it with "
            "--config=configs/label.py:nnunet --config.labeller.model=FOLDER."
        )
    segmenter = Segmenter.load(settings.workdir, dtype=config.inference.dtype)
    teacher.to_taxonomy_ids(segmenter.card.labels)
    trained_on, chosen = tuple(segmenter.card.contrasts), tuple(settings.contrasts)
    if len(trained_on) > 1 and chosen not in ((), trained_on):
        raise ConfigError(
            f"labeller.contrasts: the teacher takes {', '.join(trained_on)} together; leave it empty."
        )

    def label(image: Volume, row: Subject) -> Labelled:
        return Labelled(
            teacher.label(segmenter, image, dataclasses.replace(options, attributes=row.attributes))
        )

    facts = {"labeller": "teacher", "network": segmenter.card.provenance, "digest": segmenter.digest}
    facts |= {"dtype": config.inference.dtype, **options.to_json()}
    return Labeller(label, facts, chosen or trained_on, settings.workers)


def by_nnunet(config: Config, stored: Sequence[str]) -> Labeller:
    """A model folder of nnU-Net; its tiles run together on all devices of this process."""
    from ukbob_jax.labelling import nnunet

    method = from_config(config, config.labeller.method, "labeller.method").adaptation
    made = nnunet.make(config.labeller, stored, method, config.inference.dtype, config.mesh.to_dict())

    def label(image: Volume, row: Subject) -> Labelled:
        return made(image, row.attributes)

    return Labeller(label, made.facts, made.contrasts, made.batcher.workers, nnunet.working(made))


def chosen_contrasts(contrasts: tuple[str, ...], store: Store, subjects: list[str]) -> tuple[str, ...]:
    """The contrasts that the labeller sees; the only one of the store where `contrasts` is empty.

    Raises:
        ConfigError: a subject lacks one, or the store has several and none is chosen.
    """
    stored = tuple(store.rows[subjects[0]].contrasts) if subjects else ()
    if not contrasts and len(stored) > 1:
        raise ConfigError(
            f"labeller.contrasts is empty: choose from {', '.join(stored)}; each is labelled by itself."
        )
    chosen = contrasts or stored
    for subject in subjects:
        store.rows[subject].channel_indices(chosen, "labeller.contrasts")
    return chosen


def fingerprint(facts: dict[str, Any], row: Subject) -> str:
    """Changes when the labeller, its settings or the subject's image do."""
    return files.fingerprint([facts, row.source, row.folders["image"]])


def wanted(row: Subject, name: str, key: str) -> bool:
    """Whether a subject is to be labelled.

    Raises:
        ConfigError: the label set is there and no labeller made it: a person's work is never written over.
    """
    if name not in row.labels:
        return True
    made_by = row.provenance.get(name, {})
    if "key" not in made_by:
        raise ConfigError(
            f"{row.id}: label set {name!r} was not made by a labeller. Choose another --config.labeller.name."
        )
    return made_by["key"] != key


def stage(error: UkbobError) -> str:
    """Where a subject failed, for `failures.jsonl`."""
    return "label" if isinstance(error, ProgramError) else "store"
