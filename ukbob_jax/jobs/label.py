"""Automatic labels into a store: from any program that labels a NIfTI, or from a trained network as teacher.

Every subject gets label set `config.labeller.name`, with what made it in its row. `failures.jsonl` in the workdir lists
subjects that could not be labelled. Recipes for public labellers: docs/labels.md.
"""

import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

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
from ukbob_jax.progress import track
from ukbob_jax.store.reader import Store
from ukbob_jax.store.row import Subject
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.volume import Volume

MERGES = ("vote", "first", "rules")
Labeller = Callable[[Volume, Subject], np.ndarray]  # image x y z c, whose -> our ids, x y z


def run(config: Config, workdir: str) -> None:
    """Label every subject that has no labels by this labeller, version and settings yet.

    Raises:
        ConfigError: a setting cannot be used, or the label set exists and no labeller made it.
        FileError: the store or the teacher is missing.
        InputError: every subject failed.
        SomeFailed: some did.
        Preempted: asked to stop; the same command goes on.
    """
    settings, store = config.labeller, Store.open(config.store)
    subjects = processes.shard(store.subjects, settings.process, settings.processes)
    labeller, facts, contrasts = make(config)
    contrasts = chosen_contrasts(contrasts, store, subjects)
    facts |= {"contrasts": list(contrasts), "version": settings.version, "ukbob_jax": ukbob_jax.__version__}
    keys = {subject: fingerprint(facts, store.rows[subject]) for subject in subjects}
    todo = [subject for subject in subjects if wanted(store.rows[subject], settings.name, keys[subject])]
    failures = Failures(pathlib.Path(workdir) / FILE, kind=InputError)

    def one(subject: str) -> UkbobError | None:
        row = store.rows[subject]
        try:
            channels = row.channel_indices(contrasts)
            image = Volume(store.read(subject, "image")[..., channels], np.asarray(row.affine))
            writer.write_label(subject, settings.name, labeller(image, row), facts | {"key": keys[subject]})
        except ConfigError:
            raise
        except UkbobError as error:
            return error
        return None

    pool = concurrent.futures.ThreadPoolExecutor(settings.workers)
    with StoreWriter(config.store) as writer, pool, terminate_on_exit(pool):
        for subject, error in zip(todo, track(pool.map(one, todo), "label", len(todo))):
            if error is not None:
                failures.add(subject, "", stage(error), error)
    failures.conclude(len(todo))


def make(config: Config) -> tuple[Labeller, dict[str, Any], tuple[str, ...]]:
    """The recipe's labeller, the provenance of its labels, and the contrasts it labels."""
    settings = config.labeller
    if settings.kind == "teacher":
        return by_teacher(config)
    if settings.kind == "command":
        return by_program(settings)
    raise ConfigError(f"labeller.kind={settings.kind!r}: choose command or teacher.")


def by_program(settings: Config) -> tuple[Labeller, dict[str, Any], tuple[str, ...]]:
    """An external command, called once per contrast; ids outside its label set are an error."""
    program = Program.parse(settings.command, settings.timeout_s)
    if settings.merge not in MERGES:
        raise ConfigError(f"labeller.merge={settings.merge!r}: choose one of {', '.join(MERGES)}.")
    if settings.merge == "rules" and len(settings.contrasts) > 1:
        merge.check_contrasts(settings.contrasts)
    unknown = [name for name in settings.water_only if name not in anatomy.IDS]
    if unknown:
        raise ConfigError(f"labeller.water_only: {unknown[0]!r} is not a structure.")
    names = anatomy.DATASETS.get(settings.labels, anatomy.NAMES)
    lookup = np.arange(256, dtype=np.uint8)
    if settings.labels:
        lookup = anatomy.from_dataset(settings.labels).lut
    water_only = [anatomy.IDS[name] for name in settings.water_only]

    def label(image: Volume, row: Subject) -> np.ndarray:
        maps = []
        for c in range(image.array.shape[-1]):
            labels = program.label(Volume(image.array[..., c], image.affine))
            wrong = np.setdiff1d(np.unique(labels), [*names, anatomy.IGNORE])
            if wrong.size:
                raise ProgramError(
                    f"label {wrong[0]} is not in {settings.labels or 'our label set'}. Set labeller.labels."
                )
            maps.append(lookup[labels])
        if len(maps) == 1:
            return maps[0]
        if settings.merge == "rules":
            return merge.rules(maps, settings.contrasts, water_only, row.attributes.get("sex"))
        return merge.vote(maps) if settings.merge == "vote" else merge.first(maps)

    kept = ("command", "labels", "merge") + (("water_only",) if settings.merge == "rules" else ())
    facts = {"labeller": "command"} | {name: settings.to_dict()[name] for name in kept}
    return label, facts, tuple(settings.contrasts)


def by_teacher(config: Config) -> tuple[Labeller, dict[str, Any], tuple[str, ...]]:
    """The network of a training run."""
    settings = config.labeller
    options = from_config(config, settings.method, "labeller.method")
    if is_nnunet(settings.workdir):
        raise ConfigError(
            f"labeller.workdir: {settings.workdir} is a model folder of nnU-Net, which this job does not take yet. "
            "Give the workdir of a training run, or label the files with the command ukbob segment."
        )
    segmenter = Segmenter.load(settings.workdir, dtype=config.inference.dtype)
    teacher.to_taxonomy_ids(segmenter.card.labels)
    trained_on, chosen = tuple(segmenter.card.contrasts), tuple(settings.contrasts)
    if len(trained_on) > 1 and chosen not in ((), trained_on):
        raise ConfigError(
            f"labeller.contrasts: the teacher takes {', '.join(trained_on)} together; leave it empty."
        )

    def label(image: Volume, row: Subject) -> np.ndarray:
        return teacher.label(segmenter, image, dataclasses.replace(options, attributes=row.attributes))

    facts = {"labeller": "teacher", "network": segmenter.card.provenance, "digest": segmenter.digest}
    facts |= {"dtype": config.inference.dtype, **options.to_json()}
    return label, facts, chosen or trained_on


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
