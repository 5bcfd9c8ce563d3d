"""The one training loop: steps, evaluation, checkpoints, logs. It knows no dataset, model or metric by name."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ukbob_jax import stopping
from ukbob_jax.data.device import to_device
from ukbob_jax.errors import ConfigError, Preempted
from ukbob_jax.progress import Progress
from ukbob_jax.training import provenance, sharding
from ukbob_jax.training.checkpoints import Checkpoints
from ukbob_jax.training.metrics_buffer import MetricsBuffer
from ukbob_jax.training.metrics_log import MetricsLog
from ukbob_jax.training.preemption import Preemption
from ukbob_jax.training.state import TrainState
from ukbob_jax.training.timer import Timer

Batches = Callable[[int], Generator[dict[str, np.ndarray]]]
Step = Callable[[TrainState, dict[str, jax.Array], jax.Array], tuple[TrainState, dict[str, jax.Array]]]
Evaluation = tuple[dict[str, float], dict[str, np.ndarray]]  # numbers by name; pictures by name, h w 3 uint8
Evaluate = Callable[[TrainState], Evaluation]

IN_FLIGHT = 2  # steps handed to the device and not yet done; more would pile up their batches in its memory
MODES = ("max", "min")
BEST = ("val/dice", "max")  # what ranks checkpoints unless a schedule says otherwise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long to train and how often to do what; the configuration's section `train`.

    Attributes:
        steps: in all.
        log_every: steps between lines of `metrics.jsonl`.
        eval_every: steps between evaluations, besides the one at the end; 0: none but that.
        checkpoint_every: steps between checkpoints, besides those at each evaluation and at the end.
        stop_after_nonfinite: steps in a row with a loss or gradient that is not finite, at which to give up.
        keep: latest checkpoints that stay, beside the best.
        best: (name, "max" or "min"): the number of the evaluation that ranks checkpoints, and which end is best.
    """

    steps: int
    log_every: int = 10
    eval_every: int = 0
    checkpoint_every: int = 1000
    stop_after_nonfinite: int = 20
    keep: int = 2
    best: tuple[str, str] = BEST

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ConfigError(f"config.train.keep: {self.keep} is less than 1; keep the latest at least.")
        if len(self.best) != 2 or self.best[1] not in MODES:
            raise ConfigError(
                f"config.train.best: {self.best} is not (name of a number of the evaluation, max or min)."
            )

    def evaluates(self, step: int) -> bool:
        """Return whether an evaluation is due after `step`."""
        return step == self.steps or (self.eval_every > 0 and step % self.eval_every == 0)

    def saves(self, step: int) -> bool:
        """Return whether a checkpoint is due after `step`."""
        return step % self.checkpoint_every == 0 or self.evaluates(step)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One training: where it writes, how long it goes on, and what it says of itself.

    Attributes:
        workdir: receives checkpoints, metrics and TensorBoard events.
        mesh: of `sharding.make_mesh`.
        schedule: how long, and how often to do what.
        seed: of parameters, augmentation and dropout.
        batch_size: rows of a batch, for the throughput shown.
        meta: stored with every checkpoint for its readers.
        recipe: what a resume must repeat (`provenance.recipe`).
        subjects: names that a batch's "subject" numbers stand for, for messages.
        name: of the training in messages, such as "train" or "pretrain".
        ranks: whether the evaluation has the number that ranks checkpoints; False: the newest is the one to read.
        baseline: whether the state before the first step is evaluated too.
    """

    workdir: str | os.PathLike
    mesh: Mesh
    schedule: Schedule
    seed: int
    batch_size: int
    meta: Mapping[str, Any]
    recipe: Mapping[str, Any]
    subjects: Sequence[str] = ()
    name: str = "train"
    ranks: bool = True
    baseline: bool = False


def fit(
    run: Run,
    *,
    init: Callable[[jax.Array], TrainState],
    step: Step,
    batches: Batches,
    evaluate: Evaluate | None = None,
    replace: Callable[[TrainState], TrainState] | None = None,
    on_start: Callable[[], None] | None = None,
) -> TrainState:
    """Train to the end of the schedule, from the newest checkpoint in the workdir where there is one.

    The same call continues a run that was stopped, and ends with the same numbers as if it had not been.

    Args:
        run: where to write, how long, and what to store with the checkpoints.
        init: key -> state before the first step; pure.
        step: (state, batch, key) -> (state, metrics); pure, as `step.train_step`. Its metrics are logged as
            `train/NAME`, each averaged over the steps since the last line of the log.
        batches: first step -> endless stream of batches, a function of the step alone; closed at the end.
        evaluate: state -> numbers and pictures; None: no evaluation.
        replace: changes a fresh state, such as to put loaded weights in; not called on resume.
        on_start: called by process 0 before the first step, once it is sure that this run may continue its workdir.
    Returns:
        The final state.
    Raises:
        Preempted: asked to stop; the state is saved and the same call resumes.
        ConfigError: the workdir was made with another recipe, or ranked its checkpoints by something else.
        NonFinite: too many steps in a row had no finite loss.
        FileError: checkpoints cannot be written or read; a damaged subject.
    """
    key = jax.random.key(run.seed)
    shardings = sharding.state_sharding(jax.eval_shape(init, key), run.mesh)
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(run.workdir) / "checkpoints"
        keep, mode = run.schedule.keep, run.schedule.best[1]
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(folder, keep=keep, mode=mode)))
        state, saved = _restore(checkpoints, init, key, shardings, run)
        if on_start is not None and jax.process_index() == 0:
            on_start()
        if state is None:
            state = jax.jit(init, out_shardings=shardings)(key)
            state = state if replace is None else jax.device_put(replace(state), shardings)
        preemption = stack.enter_context(Preemption())
        trainer = _Trainer(run, evaluate, checkpoints, saved, preemption)
        stack.callback(trainer.close)
        return trainer.run(state, sharding.compile_step(step, shardings, run.mesh), batches)


def _restore(
    checkpoints: Checkpoints, init: Callable, key: jax.Array, shardings: Any, run: Run
) -> tuple[TrainState | None, dict[str, Any]]:
    """Return the newest state and its meta, or (None, {}) at the first start."""

    def shape(leaf: Any, where: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    def check(meta: dict[str, Any]) -> None:
        provenance.check_resume(meta["recipe"], run.recipe, checkpoints.folder)
        best = tuple(meta.get("best", BEST))
        if best != tuple(run.schedule.best):
            raise ConfigError(
                f"{checkpoints.folder}: checkpoints are ranked by {best}, not by config.train.best "
                f"{tuple(run.schedule.best)}. Restore it, or use a new workdir."
            )

    shapes = jax.tree.map(shape, jax.eval_shape(init, key), shardings)
    return checkpoints.restore(shapes, check) or (None, {})


class _Trainer:
    """One start of a training: what the loop holds besides the state."""

    def __init__(
        self,
        run: Run,
        evaluate: Evaluate | None,
        checkpoints: Checkpoints,
        saved: Mapping[str, Any],
        preemption: Preemption,
    ) -> None:
        self.name, self.schedule, self.mesh = run.name, run.schedule, run.mesh
        self.ranks, self.baseline = run.ranks, run.baseline
        self.preemption = preemption
        self.key, self.evaluate, self.checkpoints = jax.random.key(run.seed), evaluate, checkpoints
        self.meta = {**run.meta, "recipe": dict(run.recipe), "best": list(run.schedule.best)}
        self.done: int = saved.get("step", 0)  # the state's step, known without asking the device
        self.evaluation_pending: bool = saved.get("evaluation_pending", False)
        self.timer = Timer()
        workdir = pathlib.Path(run.workdir)
        mine = workdir if jax.process_index() == 0 else workdir / f"process_{jax.process_index()}"
        mine.mkdir(parents=True, exist_ok=True)
        self.log = MetricsLog(mine, step=self.done, evaluated=self.done > 0 and not self.evaluation_pending)
        self.buffer = MetricsBuffer(
            mine, saved.get("window", []), run.subjects, run.schedule.stop_after_nonfinite
        )
        self.progress = Progress(
            run.name, run.schedule.steps, unit="step", done=self.done, parts=(run.batch_size, "crop")
        )
        _note_start(mine, self.done)
        if self.done:
            print(f"{run.name}: resumed at step {self.done} of {run.schedule.steps}", file=sys.stderr)

    def run(self, state: TrainState, train: Step, batches: Batches) -> TrainState:
        """Train to the end of the schedule."""
        if self.evaluation_pending and self.evaluate is not None:
            self.score(self.evaluate, state)
        if self.baseline and self.done == 0 and self.evaluate is not None:
            self.look(self.evaluate, state)
        if self.done >= self.schedule.steps:
            return state
        place = functools.partial(sharding.batch_sharding, self.mesh)
        with contextlib.closing(to_device(batches(self.done), place)) as stream:
            while self.done < self.schedule.steps:
                with self.timer.section("input", unless=(self.buffer.busy, "step")):
                    batch = next(stream)
                with self.timer.section("step" if "step" in self.timer.seconds else "compile"):
                    state, metrics = train(state, batch, self.key)
                with self.timer.section("step"):
                    self.buffer.add(metrics, batch.get("subject"))
                    self.buffer.wait_for_all_but(IN_FLIGHT)
                self.done += 1
                stop = self.preemption.requested(self.done)
                self.after_step(state, stop)
                if stop:
                    self.checkpoints.finish()
                    raise Preempted(
                        f"stopped at step {self.done}, which is saved; run the same command to go on."
                    )
        with self.timer.section("checkpoint"):
            self.checkpoints.finish()
        print(self.summary(), file=sys.stderr)
        return state

    def after_step(self, state: TrainState, stop: bool) -> None:
        """Do what is due after the step just handed to the device."""
        schedule, done = self.schedule, self.done
        if done % schedule.log_every == 0 or done == schedule.steps:
            with self.timer.section("step"):  # reading the numbers waits for the device
                numbers = self.buffer.summary(done)
            self.log.numbers(done, {f"train/{name}": value for name, value in numbers.items()})
            self.log.timing(done, self.timing())
            loss = numbers["loss"]
            self.progress.update(done, "loss not finite" if loss is None else f"loss {loss:.4g}")
        evaluate = self.evaluate if schedule.evaluates(done) else None
        if stop or evaluate is not None or schedule.saves(done):
            self.save(state, ranked=evaluate is not None)
        if evaluate is not None and not stop:
            self.score(evaluate, state)

    def score(self, evaluate: Evaluate, state: TrainState) -> None:
        """Evaluate, log, and rank the checkpoint of this step, whose save may still be under way.

        Raises:
            ConfigError: the evaluation has no number of that name.
        """
        numbers = self.look(evaluate, state)
        name = self.schedule.best[0]
        if self.ranks and name not in numbers:
            raise ConfigError(f"config.train.best: no {name!r} among {', '.join(numbers)}.")
        score = numbers[name] if self.ranks and np.isfinite(numbers[name]) else None
        with self.timer.section("checkpoint"):
            self.log.flush()
            self.checkpoints.rank(self.done, score)

    def look(self, evaluate: Evaluate, state: TrainState) -> dict[str, float]:
        """Evaluate, log, and return the numbers.

        Raises:
            Preempted: asked to stop meanwhile; the evaluation is given up, and the next start begins with it.
        """
        try:
            with self.timer.section("evaluation"), self.preemption.interrupting(self.checkpoints.finish):
                numbers, pictures = evaluate(state)
        except stopping.Terminated as error:
            self.checkpoints.finish()
            raise Preempted(
                f"stopped in the evaluation after step {self.done}; run the same command to go on with it."
            ) from error
        if numbers:
            self.log.numbers(self.done, numbers)
        self.log.pictures(self.done, pictures)
        return numbers

    def save(self, state: TrainState, *, ranked: bool) -> None:
        """Start saving a checkpoint of `state`; `ranked`: its evaluation follows."""
        with self.timer.section("step"):
            jax.block_until_ready(state)
        with self.timer.section("checkpoint"):
            self.log.flush()
            meta = {
                **self.meta,
                "window": self.buffer.rows(self.done),  # metrics that no line of the log has yet
            }
            self.checkpoints.save(state, meta, ranked=ranked)

    def timing(self) -> dict[str, float]:
        """Return seconds so far and where they went; "input" is what the device waited for."""
        fractions = {f"time/{name}": fraction for name, fraction in self.timer.fractions().items()}
        return {"time/seconds": self.timer.total, **fractions}

    def summary(self) -> str:
        """Return one line on where the time went."""
        parts = ", ".join(f"{name} {100 * part:.1f} %" for name, part in self.timer.fractions().items())
        return f"{self.name}: {self.done} steps done; {self.timer.total:.1f} s of this start: {parts}"

    def close(self) -> None:
        """Leave files and terminal in order."""
        self.log.close()
        self.progress.close()


def _note_start(workdir: pathlib.Path, step: int) -> None:
    """Add a line to `starts.jsonl`: from which step, on what."""
    with open(workdir / "starts.jsonl", "a") as file:
        file.write(json.dumps({"step": step, **provenance.describe_start()}) + "\n")
