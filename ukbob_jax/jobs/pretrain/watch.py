"""What a pre-training looks at now and then: probes of its encoder, and a picture of what it rebuilds."""

import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ukbob_jax import files, splits
from ukbob_jax.data.made_data import MadeData
from ukbob_jax.data.on_device import on_device
from ukbob_jax.data.options import Config
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.errors import ConfigError
from ukbob_jax.evaluation import rebuilt
from ukbob_jax.evaluation.pages.pretraining import PICTURE
from ukbob_jax.training import loop, sharding
from ukbob_jax.training.objectives.tasks import Task
from ukbob_jax.training.probes import probe
from ukbob_jax.training.probes.voxels import ProbeOptions
from ukbob_jax.training.state import TrainState

TITLE = "look/seen_rebuilt_truth"


def watcher(
    config: Config, data: TrainingData | MadeData, task: Task, mesh: Mesh, workdir: str
) -> loop.Evaluate | None:
    """Return state -> numbers of `config.probe`, and a picture, which also lies in the workdir's `report`; None: never.

    They see the parameters that a fine-tuning would take, and change nothing. Every process works them out by itself.

    Raises:
        ConfigError: a field cannot be used, or there is nothing to look at.
    """
    options = ProbeOptions(**config.probe)
    if not options.every:
        return None
    if not options.label and task.show is None:
        raise ConfigError(
            f"config.probe.every: {options.every}, but {config.pretrain.method!r} rebuilds nothing to show, and no label "
            "set to probe with is named (config.probe.label); set it to 0."
        )
    ask = None
    if options.label:
        ask = probe.build(
            options,
            task.model,
            store=data.store,
            split=lambda name: splits.named(config, data.store, name) if data.store else (),
            contrasts=data.contrasts,
            normalize=config.data.normalize,
            crop=config.data.crop,
        )
    draw = None if task.show is None else _painter(config, data, task, task.show)

    def evaluate(state: TrainState) -> loop.Evaluation:
        step = int(state.step)
        variables = sharding.local_copy({"params": state.inference_params, **state.model_state}, mesh)
        numbers = ask(variables) if ask else {}
        pictures = {TITLE: draw(variables)} if draw else {}
        if jax.process_index() == 0:
            for picture in pictures.values():
                file = PICTURE.format(step=step) + ".png"
                files.write_bytes(pathlib.Path(workdir) / "report" / file, rebuilt.png(picture))
            if numbers:
                told = ", ".join(f"{name.split('/')[1]} {value:.3f}" for name, value in numbers.items())
                print(f"pretrain: step {step}: probes: {told}", file=sys.stderr)
        return numbers, pictures

    return evaluate


def _painter(
    config: Config, data: TrainingData | MadeData, task: Task, show: Any
) -> Callable[[Any], np.ndarray]:
    """Return variables, on one device -> the picture of the first sample of the first batch, not augmented."""
    unpack = on_device((), {}, data.median_spacing(), task.cut)
    key = jax.random.key(0)
    kept: dict[str, Any] = {}

    @jax.jit
    def shown(variables: Any, packed: Any) -> Any:
        zero = jax.numpy.zeros((), jax.numpy.int32)
        params = variables["params"]
        rest = {name: tree for name, tree in variables.items() if name != "params"}
        state = TrainState(zero, params, rest, {}, {}, zero, zero)
        return jax.tree.map(lambda array: array[0, ..., 0], show(params, state, unpack(key, packed), key))

    def draw(variables: Any) -> np.ndarray:
        if not kept:
            stream = data.batches(config, 0, views=task.views)
            kept.update({name: rows[: task.rows] for name, rows in next(stream).items()})
            stream.close()
        return rebuilt.picture(*map(np.asarray, shown(variables, kept)), data.median_spacing())

    return draw
