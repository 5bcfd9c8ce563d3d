"""Train a network on a store's labels, without those that SOLF rejects, and score it on held-out subjects.

The same command resumes: an interrupted training goes on from its last checkpoint, a finished one is passed over.
"""

import functools
import pathlib
import sys

import jax

from ukbob_jax import files, networks
from ukbob_jax.data.on_device import on_device
from ukbob_jax.data.options import Config
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.jobs.train import checks, network, recipe
from ukbob_jax.jobs.train.loss import label_loss
from ukbob_jax.jobs.train.validation import validator
from ukbob_jax.models import architecture
from ukbob_jax.training import loop, optimizer, recipes, sharding
from ukbob_jax.training import state as states
from ukbob_jax.training.objectives.supervised import supervised
from ukbob_jax.training.step import train_step


def run(config: Config, workdir: str) -> None:
    """Train to `config.train.steps`; everything is written into `workdir`.

    Raises:
        ConfigError: a field cannot be used, or `workdir` was made with others.
        FileError: no store, no SOLF verdicts, damaged data or weights, or a disk that is full.
        Preempted: asked to stop; the same command goes on.
    """
    config = recipe.planned(config, workdir)
    recipes.numbers(config)
    data = TrainingData.open(config, workdir)
    config = recipe.resolve(config, data)
    checks.network(config, data)
    checks.validation(config, data)
    model = networks.from_section(config.model.to_dict())
    kind = architecture.of(model)
    objective = supervised(model, label_loss(config, data, kind.strides(model)))
    tx = optimizer.build(
        **config.optimizer,
        steps=config.train.steps,
        stages=kind.stages_of(model),
        encoder=kind.parts.get("encoder", ""),
    )
    mesh = sharding.make_mesh(**config.mesh, batch_size=config.data.batch_size // config.train.accumulate)
    recipes.devices(config, mesh)
    print(
        f"train: {len(data.subjects)} subjects, {mesh.size} of {len(jax.devices())} devices", file=sys.stderr
    )
    loop.fit(
        loop.Run(
            workdir=workdir,
            mesh=mesh,
            schedule=recipes.schedule(config),
            seed=config.seed,
            batch_size=config.data.batch_size,
            meta=network.describe(model, config, data),
            recipe=recipe.binding(config, data),
            subjects=data.subjects,
            name="train",
        ),
        init=functools.partial(
            states.init,
            variables=states.variables_of(model, kind.input_shape(model)),
            optimizer=tx,
            ema=config.train.ema > 0,
        ),
        step=functools.partial(
            train_step,
            objective=objective,
            optimizer=tx,
            augment=on_device(config.augment, data.names, data.median_spacing()),
            accumulate=config.train.accumulate,
            ema=config.train.ema,
        ),
        batches=functools.partial(data.batches, config),
        evaluate=validator(config, data, model, mesh) if data.held_out else None,
        replace=functools.partial(network.load, config, data, model, workdir) if config.init else None,
        on_start=functools.partial(files.write_json, pathlib.Path(workdir) / "config.json", config.to_dict()),
    )
