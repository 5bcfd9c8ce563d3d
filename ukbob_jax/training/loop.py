"""The one training loop: steps, evaluation, checkpoints, logs. It knows no dataset, model or metric by name."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ukbob_jax.data.device import to_device
from ukbob_jax.errors import Preempted
from ukbob_jax.training import provenance, sharding
from ukbob_jax.training.checkpoints import Checkpoints
from ukbob_jax.training.metrics_buffer import Window
from ukbob_jax.training.metrics_log import MetricsLog
from ukbob_jax.training.preemption import Preemption
from ukbob_jax.training.progress_bar import Bar
from ukbob_jax.training.state import TrainState
from ukbob_jax.training.timer import Clock

Batches = Callable[[int], Iterator[dict[str, np.ndarray]]]
Step = Callable[[TrainState, dict[str, jax.Array], jax.Array], tuple[TrainState, dict[str, jax.Array]]]
Evaluation = tuple[dict[str, float], dict[str, np.ndarray]]  # numbers by name; pictures by name, h w 3 uint8

IN_FLIGHT = 2  # steps handed to the device and not yet done; more would pile up their batches in its memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to train and how often to do what; the configuration's section `train`.

    Attributes:
        steps: in all.
        log_every: steps between lines of `metrics.jsonl`.
        eval_every: steps between evaluations, besides the one at the end; 0: none but that.
        checkpoint_every: steps between checkpoints, besides those at each evaluation and at the end.
        stop_after_nonfinite: steps in a row with a loss or gradient that is not finite, at which to give up.
        keep: latest checkpoints that stay, beside the best.
        best: number of the evaluation that ranks checkpoints, larger is better.
    """

    steps: int
    log_every: int = 10
    eval_every: int = 0
    checkpoint_every: int = 1000
    stop_after_nonfinite: int = 20
    keep: int = 2
    best: str = "val/dice"

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due after `step`."""
        return step == self.steps or (self.eval_every > 0 and step % self.eval_every == 0)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due after `step`."""
        return step % self.checkpoint_every == 0 or self.evaluates(step)


def fit(
    *,
    init: Callable[[jax.Array], TrainState],
    step: Step,
    batches: Batches,
    evaluate: Callable[[TrainState], Evaluation] | None,
    workdir: str | os.PathLike,
    mesh: Mesh,
    plan: Plan,
    seed: int,
    batch_size: int,
    meta: Mapping[str, Any],
    recipe: Mapping[str, Any],
    subjects: Sequence[str] = (),
    replace: Callable[[TrainState], TrainState] | None = None,
    accepted: Callable[[], None] | None = None,
) -> TrainState:
    """Train to the end of the plan, from the newest checkpoint in `workdir` where there is one.

    The same call continues a run that was stopped, and ends with the same numbers as if it had not been.

    Args:
        init: key -> state before the first step; pure.
        step: (state, batch, key) -> (state, metrics); pure, as `step.train_step`.
        batches: first step -> endless stream of batches, a function of the step alone; closed at the end.
        evaluate: state -> numbers and pictures; None: no evaluation.
        workdir: receives checkpoints, metrics and TensorBoard events.
        mesh: of `sharding.make_mesh`.
        plan: how long, and how often to do what.
        seed: of parameters, augmentation and dropout.
        batch_size: cases per step, for the throughput shown.
        meta: stored with every checkpoint for its readers.
        recipe: what a resume must repeat (`provenance.recipe`).
        subjects: names that a batch's "subject" numbers stand for, for messages.
        replace: changes a fresh state, such as to put loaded weights in; not called on resume.
        accepted: called by process 0 before the first step, once it is sure that this recipe may continue `workdir`.
    Returns:
        The final state.
    Raises:
        Preempted: asked to stop; the state is saved and the same call resumes.
        ConfigError: `workdir` was made with another recipe.
        NonFinite: too many steps in a row had no finite loss.
        FileError: checkpoints cannot be written or read; a damaged subject.
    """
    workdir = pathlib.Path(workdir)
    key = jax.random.key(seed)
    place = sharding.place(jax.eval_shape(init, key), mesh)
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(
            contextlib.closing(Checkpoints(workdir / "checkpoints", keep=plan.keep))
        )
        state, saved = _restore(checkpoints, init, key, place, recipe)
        if accepted is not None and jax.process_index() == 0:
            accepted()
        if state is None:
            state = jax.jit(init, out_shardings=place)(key)
            state = state if replace is None else jax.device_put(replace(state), place)
        run = _Run(
            plan=plan, key=key, workdir=workdir, subjects=subjects, evaluate=evaluate, checkpoints=checkpoints,
            meta={**meta, "recipe": dict(recipe)}, batch_size=batch_size, saved=saved,
        )  # fmt: skip
        stack.callback(run.close)
        preemption = stack.enter_context(Preemption())
        train = sharding.compile_step(step, place, mesh)
        return run.to_the_end(state, train, batches, functools.partial(sharding.batch, mesh), preemption)


def _restore(
    checkpoints: Checkpoints, init: Callable, key: jax.Array, place: Any, recipe: Mapping[str, Any]
) -> tuple[TrainState | None, dict]:
    """The newest state and its meta, or (None, {}) at the first start."""
    with_place = lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)  # noqa: E731
    shapes = jax.tree.map(with_place, jax.eval_shape(init, key), place)
    check = lambda meta: provenance.check_resume(meta["recipe"], recipe, checkpoints.folder)  # noqa: E731
    return checkpoints.restore(shapes, check) or (None, {})


class _Run:
    """One start of a training: what the loop holds besides the state."""

    def __init__(
        self, *, plan: Plan, key: jax.Array, workdir: pathlib.Path, subjects: Sequence[str], batch_size: int,
        evaluate: Callable[[TrainState], Evaluation] | None, checkpoints: Checkpoints, meta: dict, saved: dict,
    ) -> None:  # fmt: skip
        self.plan, self.key, self.evaluate = plan, key, evaluate
        self.checkpoints, self.meta = checkpoints, meta
        self.done = saved.get("step", 0)  # the state's step, known without asking the device
        self.owed = saved.get("owes_evaluation", False)
        self.clock = Clock()
        mine = workdir if jax.process_index() == 0 else workdir / f"process_{jax.process_index()}"
        mine.mkdir(parents=True, exist_ok=True)
        self.log = MetricsLog(mine, step=self.done)
        self.window = Window(mine, saved.get("window", []), subjects, plan.stop_after_nonfinite)
        self.bar = Bar(done=self.done, steps=plan.steps, batch_size=batch_size)
        _note_start(mine, self.done)
        if self.done:
            print(f"train: resumed at step {self.done} of {plan.steps}", file=sys.stderr)

    def to_the_end(
        self, state: TrainState, train: Step, batches: Batches, place: Callable, preemption: Preemption
    ) -> TrainState:
        """The loop itself."""
        if self.owed and self.evaluate is not None:
            self.save(state, score=self.scores(state), again=True)
        if self.done >= self.plan.steps:
            return state
        with contextlib.closing(to_device(batches(self.done), place)) as stream:
            while self.done < self.plan.steps:
                with self.clock.part("input", beside=("step", self.window.busy)):
                    batch = next(stream)
                with self.clock.part("step" if "step" in self.clock.seconds else "compile"):
                    state, metrics = train(state, batch, self.key)
                with self.clock.part("step"):
                    self.window.add(metrics, batch.get("subject"))
                    self.window.wait_for_all_but(IN_FLIGHT)
                self.done += 1
                stop = preemption.requested(self.done)
                self.after_step(state, stop)
                if stop:
                    self.checkpoints.finish()
                    raise Preempted(
                        f"stopped at step {self.done}, which is saved; run the same command to go on."
                    )
        with self.clock.part("checkpoint"):
            self.checkpoints.finish()
        print(self.summary(), file=sys.stderr)
        return state

    def after_step(self, state: TrainState, stop: bool) -> None:
        """Whatever is due after the step just handed to the device."""
        plan, done = self.plan, self.done
        if done % plan.log_every == 0 or done == plan.steps:
            with self.clock.part("step"):  # reading the numbers waits for the device
                numbers = self.window.summary(done)
            self.log.numbers(done, {f"train/{name}": value for name, value in numbers.items()})
            self.log.timing(done, self.timing())
            self.bar.update(
                done, f"loss {numbers['loss']:.4g}" if numbers["loss"] is not None else "loss not finite"
            )
        due = self.evaluate is not None and plan.evaluates(done)
        if due and not stop:
            self.save(state, score=self.scores(state))
        elif stop or plan.saves(done):
            self.save(state, owes_evaluation=due)

    def scores(self, state: TrainState) -> float | None:
        """Evaluate, log, and return the number that ranks checkpoints."""
        with self.clock.part("evaluation"):
            numbers, pictures = self.evaluate(state)
        self.log.numbers(self.done, numbers)
        self.log.pictures(self.done, pictures)
        score = numbers.get(self.plan.best)
        return score if score is not None and np.isfinite(score) else None

    def save(
        self,
        state: TrainState,
        *,
        score: float | None = None,
        owes_evaluation: bool = False,
        again: bool = False,
    ) -> None:
        """Start saving a checkpoint of `state`; `again` replaces the one of this step."""
        with self.clock.part("step"):
            jax.block_until_ready(state)
        with self.clock.part("checkpoint"):
            self.log.flush()
            window = self.window.rows(self.done)
            meta = {**self.meta, "window": window, "owes_evaluation": owes_evaluation}
            self.checkpoints.save(state, meta, score, again=again)

    def timing(self) -> dict[str, float]:
        """Seconds so far and where they went; "input" is what the device waited for."""
        shares = {f"time/{name}": share for name, share in self.clock.shares().items()}
        return {"time/seconds": self.clock.total, **shares}

    def summary(self) -> str:
        """One line on where the time went."""
        parts = ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.clock.shares().items())
        return f"train: {self.done} steps done; {self.clock.total:.1f} s of this start: {parts}"

    def close(self) -> None:
        """Leave files and terminal in order."""
        self.log.close()
        self.bar.close()


def _note_start(workdir: pathlib.Path, step: int) -> None:
    """Add a line to `starts.jsonl`: from which step, on what."""
    with open(workdir / "starts.jsonl", "a") as file:
        file.write(json.dumps({"step": step, **provenance.describe_start()}) + "\n")
