"""Train a network, or its encoder, on the images of a store alone; a fine-tuning starts from it with `config.init`.

The same command resumes: an interrupted training goes on from its last checkpoint, a finished one is passed over.
"""

import dataclasses
import functools
import pathlib
import sys
from typing import Any

import jax

from ukbob_jax import files, networks
from ukbob_jax.data import augment
from ukbob_jax.data.made_data import MadeData
from ukbob_jax.data.on_device import on_device
from ukbob_jax.data.options import Config
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.errors import ConfigError
from ukbob_jax.jobs.pretrain.watch import watcher
from ukbob_jax.models import architecture
from ukbob_jax.models.card import ModelCard
from ukbob_jax.training import loop, optimizer, provenance, recipes, sharding
from ukbob_jax.training import state as states
from ukbob_jax.training.objectives import tasks
from ukbob_jax.training.objectives.tasks import Task
from ukbob_jax.training.step import train_step


def run(config: Config, workdir: str) -> None:
    """Pre-train to `config.train.steps`; everything is written into `workdir`.

    Raises:
        ConfigError: a field cannot be used, or `workdir` was made with others.
        FileError: no store, damaged data, or a disk that is full.
        Preempted: asked to stop; the same command goes on.
    """
    recipes.numbers(config)
    check(config)
    made = tasks.makes(config.pretrain.method)
    data = MadeData.open(config, workdir) if made else TrainingData.open(config, workdir)
    config = resolve(config, data)
    recipes.channels(config, data)
    task = task_of(config)
    kind = architecture.of(task.model)
    tx = optimizer.build(**config.optimizer, steps=config.train.steps, stages=kind.stages_of(task.model))
    groups = config.data.batch_size * task.views // task.rows  # of rows that stay on one device
    mesh = sharding.make_mesh(**config.mesh, batch_size=groups // config.train.accumulate)
    recipes.devices(config, mesh)
    evaluate = watcher(config, data, task, mesh, workdir)
    schedule = recipes.schedule(config)
    if evaluate is not None:
        schedule = dataclasses.replace(schedule, eval_every=config.probe.every)
    print(
        f"pretrain: {config.pretrain.method} on {'made volumes' if made else f'{len(data.subjects)} subjects'}, {mesh.size} "
        f"of {len(jax.devices())} devices",
        file=sys.stderr,
    )
    loop.fit(
        loop.Run(
            workdir=workdir,
            mesh=mesh,
            schedule=schedule,
            seed=config.seed,
            batch_size=config.data.batch_size * task.views,
            meta=describe(task, config, data),
            recipe=provenance.recipe(config.to_dict(), data.fingerprint()),
            subjects=data.subjects,
            name="pretrain",
            ranks=False,
            baseline=True,
        ),
        init=functools.partial(states.init, variables=task.variables, optimizer=tx, ema=config.train.ema > 0),
        step=functools.partial(
            train_step,
            objective=task.objective,
            optimizer=tx,
            augment=on_device(config.augment, {}, data.median_spacing(), task.cut),
            accumulate=config.train.accumulate,
            views=task.rows,
            ema=config.train.ema,
        ),
        batches=functools.partial(data.batches, config, views=task.views, max_shift=shift(config, task)),
        evaluate=evaluate,
        on_start=functools.partial(files.write_json, pathlib.Path(workdir) / "config.json", config.to_dict()),
    )


def check(config: Config) -> None:
    """Refuse what a pre-training would pass over.

    Raises:
        ConfigError: naming the field.
    """
    if config.label:
        raise ConfigError(
            f"config.label: {config.label!r}, but pre-training looks at images alone; leave it empty."
        )
    if config.init:
        raise ConfigError(f"config.init: {config.init!r}, but pre-training starts afresh; leave it empty.")
    if config.data.val_split:
        raise ConfigError(
            f"config.data.val_split: {config.data.val_split!r}, but pre-training validates on no labels; leave it empty. "
            "config.probe looks at the network on the way."
        )
    moving = [step for step in config.augment if step not in augment.INTENSITY]
    if tasks.makes(config.pretrain.method) and moving:
        raise ConfigError(
            f"config.augment: {moving[0]!r} is not one of {', '.join(augment.INTENSITY)}, which leave voxels in their "
            f"place; {config.pretrain.method!r} compares them in two appearances."
        )


def resolve(config: Config, data: TrainingData | MadeData) -> Config:
    """Return the recipe with what it leaves to the data filled in: channels (0), steps and warm-up in epochs."""
    config = recipes.with_length(config, data)
    config.model.in_channels = config.model.in_channels or len(data.contrasts)
    return config


def task_of(config: Config) -> Task:
    """Return the task that `config.pretrain` names, around the network that `config.model` names.

    Raises:
        ConfigError: a field cannot be used, or the batch cannot be cut as the task wants it.
    """
    fields = dict(config.pretrain.to_dict())
    method = fields.pop("method")
    section = config.model.to_dict()

    def network(out_channels: int) -> Any:
        # a loss at every step of the decoder is for labels
        shallow = (
            {"deep_supervision": type(section["deep_supervision"])(0)}
            if "deep_supervision" in section
            else {}
        )
        return networks.from_section({**section, **shallow, "out_channels": out_channels})

    task = tasks.build(method, fields, network, config.model.in_channels, tuple(config.data.crop))
    accumulate = config.train.accumulate
    if task.compares and accumulate > 1:
        raise ConfigError(
            f"config.train.accumulate: {accumulate}, but {method!r} compares all samples of a batch; set it to 1 and take "
            "more devices."
        )
    if task.teacher and not config.train.ema:
        raise ConfigError(
            f"config.train.ema: 0, but form {fields['form']!r} has a teacher, the running average; 0.9 is the authors'."
        )
    if config.data.batch_size < task.samples:
        raise ConfigError(
            f"config.data.batch_size: {config.data.batch_size}, but {method!r} compares samples of a batch with each other; "
            f"take {task.samples} or more."
        )
    groups, over = divmod(config.data.batch_size * task.views, task.rows)
    if over or groups % accumulate:
        raise ConfigError(
            f"config.data.batch_size: {config.data.batch_size} samples do not make whole pairs in each of {accumulate} "
            "passes (config.train.accumulate)."
        )
    return task


def shift(config: Config, task: Task) -> int | None:
    """Return by how many voxels the crops of one sample may lie apart; None: anywhere in the scan.

    What compares two crops wants them to share half of each side.
    """
    return min(config.data.crop) // 2 if task.compares else None


def describe(task: Task, config: Config, data: TrainingData | MadeData) -> dict[str, Any]:
    """Return what a reader of the checkpoints must know: the network, and what it has seen."""
    card = ModelCard.of(
        task.model,
        task="pretraining",
        spacing_mm=data.common_spacing(),
        normalize=config.data.normalize,
        contrasts=data.contrasts,
        window=tuple(config.data.crop),
        training=data.extremes() | data.appearance(),
        provenance={
            "store": data.store.path if data.store else "",
            "pretrain": config.pretrain.to_dict(),
            "data": data.fingerprint(),
        },
    )
    return {"card": card.to_json()}
