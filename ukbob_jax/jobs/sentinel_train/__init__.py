"""Train a grader of labels (Quality Sentinel) on a store: masks with errors made on the fly, or predicted by a network.

The same command resumes: an interrupted training goes on from its last checkpoint. At its end the best checkpoint is
evaluated on held-out subjects; `sentinel.json` says what it is and how wide its interval must be, `report/index.html` how
well it grades.
"""

import functools
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax import files, weights
from ukbob_jax.data.options import Config
from ukbob_jax.errors import ConfigError
from ukbob_jax.jobs.sentinel_train import predicting
from ukbob_jax.models import architecture
from ukbob_jax.models.card import ModelCard
from ukbob_jax.sentinel import assess, objective, setup, stream, trained
from ukbob_jax.sentinel.intervals import calibration
from ukbob_jax.sentinel.predictions import Predictions
from ukbob_jax.sentinel.setup import Setup
from ukbob_jax.training import loop, optimizer, provenance, recipes, sharding
from ukbob_jax.training import state as states
from ukbob_jax.training.checkpoints import restore_params
from ukbob_jax.training.state import TrainState
from ukbob_jax.training.step import train_step

# Names in `config.init_new` -> options of `weights.read`.
NEW_PARTS: dict[str, dict[str, Any]] = {
    "head": {"new": ("head",)},
    "torchvision": {
        "stem": "average",
        "new": r"^(conv1\.bias|attention\d|fc\d)\b",
    },  # a resnet50.pth of images
}


def run(config: Config, workdir: str) -> None:
    """Train to `config.train.steps` and evaluate; everything is written into `workdir`.

    Raises:
        ConfigError: a field cannot be used, or `workdir` was made with others.
        FileError: no store, damaged data or weights, or a disk that is full.
        MismatchError: a class has no embedding, or the scans are of another modality.
        Preempted: asked to stop; the same command goes on.
    """
    recipes.numbers(config)
    setup.check(config)
    made = setup.open_setup(config, workdir)
    config = recipes.with_length(config, made.data)
    options, kind, folder = made.options, architecture.of(made.model), pathlib.Path(workdir)
    assess.check_ranking(config.train.best[0], made.unseen)
    mesh = sharding.make_mesh(**config.mesh, batch_size=config.data.batch_size // config.train.accumulate)
    predictions = _predictions(made, folder)
    source = made.batches(config, made.pairs("train", config.seed, predictions))
    tx = optimizer.build(**config.optimizer, steps=config.train.steps, stages=kind.stages_of(made.model))
    variables = states.variables_of(made.model, kind.input_shape(made.model))
    detects = bool(getattr(made.model, "detection", False))
    predict = assess.predictor(made.model, made.vectors, made.sight.kind)
    print(
        f"sentinel_train: {made.sight.kind} of {len(source.subjects)} subjects, {mesh.size} of {len(jax.devices())} devices",
        file=sys.stderr,
    )
    loop.fit(
        loop.Run(
            workdir=workdir,
            mesh=mesh,
            schedule=recipes.schedule(config),
            seed=config.seed,
            batch_size=config.data.batch_size,
            meta=describe(made, config),
            recipe=provenance.recipe(config.to_dict(), setup.fingerprint(made, predictions)),
            subjects=source.subjects,
            name="sentinel_train",
        ),
        init=functools.partial(
            states.init,
            variables=(lambda key: objective.with_margin(variables(key))) if detects else variables,
            optimizer=objective.saddle(tx) if detects else tx,
            ema=config.train.ema > 0,
        ),
        step=functools.partial(
            train_step,
            objective=objective.grading(
                made.model,
                made.vectors,
                places=made.sight.kind == "cubes",
                ranking=options.ranking,
                detector=options.detector,
                threshold=options.threshold,
                noise=made.noise,
            ),
            optimizer=objective.saddle(tx) if detects else tx,
            accumulate=config.train.accumulate,
            ema=config.train.ema,
        ),
        batches=lambda step: stream.batches(source, step, config.data.threads, config.data.workers),
        evaluate=assess.evaluator(
            predict,
            lambda: stream.held_out(made.held_out("val", config.seed), made.data.held_out, assess.PER_SCAN),
            options,
            made.unseen,
            mesh,
        ),
        replace=functools.partial(load, config, made, workdir) if config.init else None,
        on_start=functools.partial(start, made, config, folder),
    )
    conclude(made, config, predict, folder)


def _predictions(made: Setup, folder: pathlib.Path) -> Predictions | None:
    if not made.options.checkpoints:
        return None
    if jax.process_count() > 1:
        raise ConfigError(
            "config.sentinel.checkpoints: several processes cannot predict into one workdir; start with one process and "
            "config.train.steps=1 first."
        )
    return predicting.make(made.options.checkpoints, made.data, made.data.subjects, folder)


def start(made: Setup, config: Config, folder: pathlib.Path) -> None:
    """What lies beside the checkpoints from the first step on."""
    files.write_json(folder / "config.json", config.to_dict())
    if made.table is not None:
        trained.save_table(folder, made.table)


def describe(made: Setup, config: Config) -> dict[str, Any]:
    """Return what a reader of the checkpoints must know: the network, and what it has seen."""
    card = ModelCard.of(
        made.model,
        task=trained.TASK,
        labels=dict(made.data.names),
        spacing_mm=made.data.common_spacing(),
        contrasts=(made.contrast,),
        training=made.data.extremes() | made.data.appearance(),
        provenance={"sentinel": setup.facts(made, config), "data": made.data.fingerprint()},
    )
    return {"card": card.to_json()}


def load(config: Config, made: Setup, workdir: str, state: TrainState) -> TrainState:
    """Return `state` with the weights in `config.init`; which of them were taken is printed and kept in `init.txt`.

    Raises:
        ConfigError: an unknown part in `config.init_new`, or more than one.
        MismatchError: naming every tensor that does not fit and may not start afresh.
    """
    parts = tuple(config.init_new)
    if len(parts) > 1 or set(parts) - NEW_PARTS.keys():
        raise ConfigError(f"config.init_new: {parts!r}; choose one of {', '.join(NEW_PARTS)}, or none.")
    params, own = states.split_pretext(state.params)
    fresh = jax.device_get(params) if jax.process_count() == 1 else None
    options = NEW_PARTS[parts[0]] if parts else {}
    loaded = weights.read(config.init, made.model, init=fresh, seed=config.seed, **options)
    found = loaded.report
    print(
        f"sentinel_train: {config.init}: {len(found.matched)} tensors taken, {len(found.new)} start afresh, "
        "listed in init.txt",
        file=sys.stderr,
    )
    if jax.process_index() == 0:
        files.write_bytes(pathlib.Path(workdir) / "init.txt", f"{config.init}\n{found}\n".encode())
    # The detector and norms of the head have no place in PyTorch's layout: another training of ours still has them.
    source = pathlib.Path(config.init)
    folder = source / "checkpoints" if (source / "checkpoints").is_dir() else source
    beside = states.split_pretext(restore_params(folder)[0])[0] if source.is_dir() else {}
    taken = merged(merged(params, beside), loaded.params)
    both = {**taken, **({states.PRETEXT: own} if own else {})}
    return state.replace(
        params=both,
        model_state=loaded.model_state or state.model_state,
        ema=jax.tree.map(jnp.copy, both) if state.ema else {},
    )


def merged(params: Any, other: Any) -> Any:
    """`params` with the arrays of `other` that lie at the same path and have the same shape."""
    if isinstance(params, Mapping):
        there = other if isinstance(other, Mapping) else {}
        return {name: merged(part, there[name]) if name in there else part for name, part in params.items()}
    return other if jnp.shape(other) == jnp.shape(params) else params


def fit_curve(
    made: Setup, config: Config, predict: assess.Predict, variables: Any
) -> tuple[list[float], list[float]]:
    """From what the network says to Dice, on the masks of validation, of organs that were trained on."""
    masks = stream.held_out(
        [(made.pairs("val", config.seed), made.options.val_pairs)], made.data.held_out, assess.PER_SCAN
    )
    return calibration(predict(variables, masks)[0], masks.dice)


def conclude(made: Setup, config: Config, predict: assess.Predict, folder: pathlib.Path) -> None:
    """Evaluate the best checkpoint on pairs that did not choose it; write `sentinel.json` and the page.

    Every process works it out, since all meet where a checkpoint is opened and none may wait for long; the first writes.
    """
    params, model_state, meta = restore_params(folder / "checkpoints", "best")
    variables = {"params": states.split_pretext(params)[0], **model_state}
    curve = fit_curve(made, config, predict, variables)
    parts = made.held_out("test", config.seed)
    found = assess.assess(
        predict,
        variables,
        parts,
        made.data.held_out,
        made.options,
        made.unseen,
        lambda s: np.interp(s, *curve),
    )
    if jax.process_index() != 0:
        return
    said = {
        "version": trained.VERSION,
        **setup.facts(made, config),
        "step": int(meta["step"]),
        "curve": curve,
        "interval": found.interval,
        "coverage": made.options.coverage,
        "covered": found.covered,
        "masks": len(found.masks.dice),
        "scores": found.numbers,
    }
    files.write_json(folder / trained.FILE, setup.finite(said))
    title = (
        f"A grader of {made.sight.kind}, step {int(meta['step'])}. Everything below was computed by this run."
    )
    page = assess.write(folder / "report", found, made.options, title)
    print(
        f"sentinel_train: r {found.numbers['r']:.3f}, interval +- {found.interval:.3f}; {page}",
        file=sys.stderr,
    )
