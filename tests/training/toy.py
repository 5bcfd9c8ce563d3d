"""A model, batches and a step small enough to train in milliseconds, shared by the tests of this room."""

import functools
import pathlib

import flax.linen as nn
import jax
import numpy as np

from ukbob_jax.training import loop, losses, optimizer, sharding
from ukbob_jax.training import state as states
from ukbob_jax.training.objectives.supervised import supervised
from ukbob_jax.training.step import train_step

CLASSES = 4
SHAPE = (6, 5, 4)  # x y z


class Net(nn.Module):
    """Two dense layers over the channels, with what real networks have: a norm, dropout, running statistics."""

    dropout: float = 0.0
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.Dense(8, name="inner")(x)
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=not train, name="batch_norm")(x)
        else:
            x = nn.LayerNorm(name="norm1")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.gelu(x))
        return nn.Dense(CLASSES, name="head")(x)


def batch(seed, size=8, shape=SHAPE):
    """Images in which the label can be seen, with some noise."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, (size, *shape))
    image = np.stack([label == 1, label >= 2], axis=-1) + rng.normal(0, 0.3, (size, *shape, 2))
    subject = rng.integers(0, 100, size)
    return {
        "image": image.astype(np.float32),
        "label": label.astype(np.uint8),
        "subject": subject.astype(np.int32),
    }


def batches(start_step, size=8):
    """An endless stream that is a function of the step alone."""
    step = start_step
    while True:
        yield batch(step, size)
        step += 1


def parts(model=None, steps=20, learning_rate=0.02, shape=SHAPE, loss_fn=None, **options):
    """`init(key) -> state` and `step(state, batch, key)`, not yet compiled."""
    model = Net() if model is None else model
    tx = optimizer.build(learning_rate=learning_rate, steps=steps, warmup_steps=2, clip_norm=1.0)
    variables = states.variables_of(model, (1, *shape, 2))
    init = functools.partial(states.init, variables=variables, optimizer=tx, ema=options.get("ema", 0) > 0)
    objective = supervised(model, losses.dice_ce if loss_fn is None else loss_fn)
    step = functools.partial(train_step, objective=objective, optimizer=tx, **options)
    return init, step


def run(mesh, steps=3, model=None, seed=0, batches=None, **options):
    """The state and the metrics of every step after training on a mesh."""
    batches = [batch(number) for number in range(steps)] if batches is None else batches
    init, step = parts(model, shape=batches[0]["label"].shape[1:], **options)
    shardings = sharding.state_sharding(jax.eval_shape(init, jax.random.key(seed)), mesh)
    state = jax.jit(init, out_shardings=shardings)(jax.random.key(seed))
    compiled = sharding.compile_step(step, shardings, mesh)
    metrics = []
    for one in batches:
        state, out = compiled(state, sharding.shard_batch(one, mesh), jax.random.key(seed))
        metrics.append(out)
    return state, jax.device_get(metrics)


def evaluation(state):
    """Accuracy on one fixed batch."""
    held_out = batch(10_000, 2)
    logits = Net().apply({"params": state.inference_params}, held_out["image"])
    accuracy = float((logits.argmax(axis=-1) == held_out["label"]).mean())
    return {"val/dice": accuracy}, {"look": np.zeros((4, 5, 3), np.uint8)}


def fit(
    workdir,
    steps=12,
    stream=batches,
    recipe=None,
    evaluate=evaluation,
    every=4,
    ema=0.0,
    mesh=None,
    **schedule,
):
    """A whole training of the toy, into `workdir`."""
    init, step = parts(Net(dropout=0.2), steps=40, ema=ema)
    run = loop.Run(
        workdir=workdir,
        mesh=sharding.make_mesh(data=1, batch_size=8) if mesh is None else mesh,
        schedule=loop.Schedule(
            steps=steps, **{"log_every": 5, "eval_every": every, "checkpoint_every": every, **schedule}
        ),
        seed=3,
        batch_size=8,
        meta={"architecture": 1},
        recipe={"seed": 3} if recipe is None else recipe,
        subjects=[f"s{n}" for n in range(100)],
    )
    return loop.fit(run, init=init, step=step, batches=stream, evaluate=evaluate)


def flip_a_bit(folder: pathlib.Path) -> None:
    """In every file of a checkpoint's arrays: which of them are read depends on how the writer's threads ran."""
    for path in folder.rglob("d/*"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 16
        path.write_bytes(data)
