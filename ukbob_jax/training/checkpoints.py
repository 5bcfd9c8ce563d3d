"""Checkpoints: saved while training goes on, verified when read, never trusted blindly.

Each holds three items: `model` (parameters and other collections), `training` (the rest of the state) and `meta`
(JSON: what a reader must know, and the shape and digest of every array). The score of an evaluation is written into the
step's folder once the step is complete, where Orbax keeps its metrics. Kept are the latest ones and the best.
"""

import functools
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import checkpoint_managers as policies

from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.training.digests import digests
from ukbob_jax.training.optimizer import path_name
from ukbob_jax.training.state import TrainState

FAILED_SAVES = 2  # in a row; then training stops rather than go on unprotected
REMEDY = "Free space, then run the same command to resume."
SCORE = "metrics"  # folder in a step, and file in that: where Orbax looks for what ranks it


class Damaged(Exception):
    """A checkpoint that is there but does not hold what was saved."""


class Checkpoints:
    """The checkpoints of one training run, for the run itself; readers use `restore_params`."""

    def __init__(self, folder: str | os.PathLike, *, keep: int = 2, mode: str = "max") -> None:
        """Open or create `folder`.

        Args:
            folder: of the checkpoints.
            keep: how many of the latest stay, beside the best one.
            mode: "max" or "min": whether the largest or the smallest score is the best.
        """
        self.folder = epath.Path(folder)
        self._keep, self._mode = keep, mode
        self._manager = _open(folder, keep, mode)
        self._failed = 0
        self._problem = ""  # of the latest save that failed
        self._saving: int | None = None

    def save(self, state: TrainState, meta: dict[str, Any], score: float | None = None) -> None:
        """Start saving; training may go on. A step that is saved already is passed over.

        `score` ranks it for "best"; None: unranked, until `add_score`.

        Raises:
            FileError: this and the save before it failed; what was saved earlier still loads.
        """
        self.wait()
        step, items = int(state.step), _items(state)
        if step in self._manager.all_steps():
            return
        arrays = {
            name: [*_form(leaf), digest] for (name, leaf), digest in zip(_named(items), _digests(items))
        }
        saved = ocp.args.Composite(
            **{name: ocp.args.StandardSave(item) for name, item in items.items()},
            meta=ocp.args.JsonSave({**meta, "step": step, "arrays": arrays}),
        )
        self._saving = step
        try:
            ranked = None if score is None else {"score": score, "mode": self._mode}
            self._manager.save(step, args=saved, metrics=ranked, force=True)
        except Exception as error:  # Orbax raises bare ValueError and Exception, whatever went wrong
            self._report(error)

    def add_score(self, step: int, score: float | None) -> None:
        """Write the score of a step beside its arrays, and delete what was kept only as the best before.

        The file appears whole or not at all. A step whose save failed has none. None: evaluated, and never the best.

        Raises:
            FileError: the score cannot be written, or this and the save before it failed.
        """
        self.wait()
        if step not in self._manager.all_steps():
            return
        if jax.process_index() == 0:
            _write_score(self.folder / _step_name(step), {"score": score, "mode": self._mode})
        if jax.process_count() > 1:  # all must see it before they choose what to keep
            multihost_utils.sync_global_devices(f"score of {step}")
        self._manager.reload()
        steps = sorted(self._manager.all_steps())
        kept = {*steps[-self._keep :], _best_step(self._manager)}
        for old in steps:
            if old not in kept:
                self._manager.delete(old)

    def is_scored(self, step: int) -> bool:
        """Return whether a step was evaluated, be its score a number or none."""
        return (self.folder / _step_name(step) / SCORE / SCORE).exists()

    def wait(self) -> None:
        """Wait until the save under way is complete.

        Raises:
            FileError: it is the second in a row that failed.
        """
        if self._saving is None:
            return
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self._report(error)
        else:
            self._failed, self._saving = 0, None

    def finish(self) -> None:
        """Wait until the save under way, the last one, is complete.

        Raises:
            FileError: it failed.
        """
        self.wait()
        if self._failed:
            raise FileError(f"{self._problem} {REMEDY}")

    def close(self) -> None:
        """Wait for the save under way and let go of the folder.

        Raises:
            FileError: the last save failed.
        """
        self._failed += FAILED_SAVES - 1 if self._saving is not None else 0  # nothing comes after it
        try:
            self.wait()
        finally:
            self._manager.close()

    def restore(self, shapes: TrainState, check: Callable[[dict], None]) -> tuple[TrainState, dict] | None:
        """The newest sound state and its meta, or None where nothing has been saved.

        A damaged checkpoint is reported, renamed to `damaged_...`, and the one before it taken.

        Args:
            shapes: of the state, with shardings, as from `jax.eval_shape`.
            check: given the meta, raises if the checkpoint must not be resumed.
        Raises:
            ConfigError: the folder has content, but no step in it can be found.
            FileError: every step is damaged.
            MismatchError: the state is of another model or optimizer.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            _refuse_foreign_content(self.folder)
        for step in steps:
            try:
                meta = _read_meta(self._manager, step)
                check(meta)
                items = _read(self._manager, step, meta, _items(shapes))
            except Damaged as problem:
                self._set_aside(step, problem)
                continue
            return _state(items), meta
        if steps:
            raise FileError(
                f"{self.folder}: all {len(steps)} checkpoints are damaged; start in a new workdir."
            )
        return None

    def _report(self, error: Exception) -> None:
        """Say what failed, tidy up, and give up at the second time in a row."""
        self._failed += 1
        step, self._saving = self._saving, None
        if jax.process_index() == 0:
            _remove_unfinished(self.folder)
        self._manager.reload()
        latest = self._manager.latest_step()
        kept = f"step {latest} still loads" if latest is not None else "none was saved before"
        self._problem = f"{self.folder}: saving step {step} failed: {_reason(error)}; {kept}."
        if self._failed >= FAILED_SAVES:
            raise FileError(f"{self._problem} {REMEDY}") from error
        print(
            f"warning: {self._problem} Training goes on; it stops if the next save fails too.",
            file=sys.stderr,
        )

    def _set_aside(self, step: int, problem: Damaged) -> None:
        print(
            f"warning: {self.folder}: step {step} is damaged ({problem}); trying the one before.",
            file=sys.stderr,
        )
        if jax.process_index() == 0:
            target = self.folder / f"damaged_{_step_name(step)}"
            while target.exists():
                target = target.with_name(target.name + "_")
            (self.folder / _step_name(step)).rename(target)
        if jax.process_count() > 1:  # nobody may take it for a step that is saved already
            multihost_utils.sync_global_devices(f"set aside {step}")
        self._manager.reload()


class _Manager(ocp.CheckpointManager):
    """Orbax's, for which a score that cannot be read is none: it would open no folder that has one.

    A score that is None, of an evaluation that gave no number, is none too.
    """

    def metrics(self, step: int) -> Any:
        try:
            found = super().metrics(step)
            return found if found and found.get("score") is not None else None
        except ValueError as error:
            _warn_once(f"{self.directory}: the score of step {step} cannot be read ({_reason(error)}).")
            return None


@functools.cache
def _warn_once(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def restore_params(folder: str | os.PathLike, which: str = "best") -> tuple[Any, Any, dict]:
    """Parameters, other model collections and meta of a checkpoint, for inference on one device.

    Args:
        folder: the `checkpoints` folder of a workdir.
        which: "best", by validation score (the latest where none was scored), or "latest".
    Raises:
        FileError: there is no checkpoint, or it is damaged.
    """
    if which not in ("best", "latest"):
        raise ConfigError(f"checkpoint: {which!r} is unknown; choose best or latest.")
    if not epath.Path(folder).is_dir():
        raise FileError(f"{folder}: no such folder of checkpoints. Train first, or correct the path.")
    with _open(folder, keep=None) as manager:
        step = _best_step(manager) if which == "best" else manager.latest_step()
        if step is None:
            raise FileError(f"{folder}: no complete checkpoint in this folder.")
        try:
            meta = _read_meta(manager, step)
            model = _read(manager, step, meta, {"model": _model_shapes(meta)})["model"]
        except Damaged as problem:
            raise FileError(
                f"{folder}: step {step} is damaged ({problem}). Restore it from a copy, or choose another step."
            ) from problem
    return model["params"], model["model_state"], meta


def _best_step(manager: ocp.CheckpointManager) -> int | None:
    """Return the step with the best score, of equal ones the last; the latest step where none was scored.

    Each score says whether large or small ones are better; those of earlier versions do not, and large ones were.
    """
    scored = {step: metrics for step in manager.all_steps() if (metrics := manager.metrics(step))}
    if not scored:
        return manager.latest_step()
    sign = -1 if scored[max(scored)].get("mode", "max") == "min" else 1
    return max(scored, key=lambda step: (sign * scored[step]["score"], step))


def _write_score(folder: epath.Path, metrics: dict[str, Any]) -> None:
    """Write the score of a step; a new file is renamed into place.

    Raises:
        FileError: it cannot be written.
    """
    path = folder / SCORE / SCORE
    part = path.with_name(f".{SCORE}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(metrics))
        part.replace(path)
    except OSError as error:
        raise FileError(f"{path}: cannot write the score: {_reason(error)}. {REMEDY}") from error


def _score(metrics: dict[str, Any]) -> float:
    return metrics["score"]


def _open(folder: str | os.PathLike, keep: int | None, mode: str = "max") -> ocp.CheckpointManager:
    """Open `folder`; the only place that configures Orbax, whose managers see nothing under another prefix.

    keep None opens for reading alone, and leaves the unfinished save of a running training in peace.
    """
    _silence_orbax()
    folder = str(folder)
    return _Manager(
        folder if "://" in folder else os.path.abspath(folder),
        options=ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(keep),
                    policies.BestN(
                        get_metric_fn=_score,
                        reverse=mode == "min",
                        n=1,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
            best_fn=_score,
            best_mode=mode,
            step_prefix="step",
            step_format_fixed_length=8,
            create=keep is not None,
            cleanup_tmp_directories=keep is not None,
            read_only=keep is None,
        ),
    )


def _silence_orbax() -> None:
    """Keep Orbax's pages of traceback off the terminal; its errors reach us as exceptions, one line each.

    After a failed save or read, its remaining tasks also complain that nobody waits for them any more.
    """
    logger = absl_logging.get_absl_logger()
    if _not_from_orbax not in logger.filters:
        logger.addFilter(_not_from_orbax)
        logging.getLogger("asyncio").addFilter(_not_from_orbax)
        others = sys.unraisablehook
        sys.unraisablehook = lambda late: (
            None if str(late.exc_value) == "Event loop is closed" else others(late)
        )


def _not_from_orbax(record: logging.LogRecord) -> bool:
    """Of asyncio's records, those that name a task of Orbax's are from Orbax."""
    return "orbax" not in (record.getMessage() if record.name == "asyncio" else record.pathname)


def _remove_unfinished(folder: epath.Path) -> None:
    """Free what a failed save has written; Orbax would leave it until the next start.

    Writers of the other arrays may still be adding files, and make the folder anew: it is gone when it stays away.
    """
    for part in folder.glob("*.orbax-checkpoint-tmp"):
        absent = 0
        for _ in range(100):  # ten seconds at most
            absent = 0 if part.exists() else absent + 1
            if absent == 3:
                break
            shutil.rmtree(part, ignore_errors=True)
            time.sleep(0.1)


def _items(state: TrainState) -> dict[str, dict]:
    """The state as the array items of a checkpoint, so that inference need not read the optimizer's moments.

    `model` holds the parameters that were validated. Where these are averages, `training` has the others as "trained".
    """
    fields = {name: getattr(state, name) for name in TrainState.__dataclass_fields__}
    params, ema = fields.pop("params"), fields.pop("ema")
    model = {"params": ema or params, "model_state": fields.pop("model_state")}
    return {"model": model, "training": {**fields, **({"trained": params} if ema else {})}}


def _state(items: dict[str, dict]) -> TrainState:
    """The inverse of `_items`."""
    model, fields = dict(items["model"]), dict(items["training"])
    if "trained" in fields:
        return TrainState(params=fields.pop("trained"), ema=model.pop("params"), **model, **fields)
    return TrainState(ema={}, **model, **fields)


def _named(tree: Any) -> list[tuple[str, Any]]:
    return [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _form(leaf: Any) -> list:
    """What of an array must agree besides its values: [type, shape]."""
    return [str(leaf.dtype), list(leaf.shape)]


def _digests(tree: Any) -> list[str]:
    return list(digests(tree).values())


def _read_meta(manager: ocp.CheckpointManager, step: int) -> dict:
    try:
        meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        meta["arrays"].items()
    except Exception as error:
        raise Damaged(f"meta: {_reason(error)}") from error
    return meta


def _read(manager: ocp.CheckpointManager, step: int, meta: dict, shapes: dict[str, Any]) -> dict[str, Any]:
    """Items of a checkpoint, each array compared with its digest."""
    wanted = dict(_named(shapes))
    stored = {name: row for name, row in meta["arrays"].items() if name.split("/")[0] in shapes}
    _compare_forms(step, wanted, stored)
    args = ocp.args.Composite(**{name: ocp.args.StandardRestore(item) for name, item in shapes.items()})
    try:
        found = dict(manager.restore(step, args=args).items())
    except Exception as error:
        raise Damaged(_reason(error)) from error
    wrong = [name for name, digest in digests(found).items() if digest != stored[name][2]]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise Damaged(f"{wrong[0]}{more} differ from their digests")
    return found


def _compare_forms(step: int, wanted: dict[str, Any], stored: dict[str, list]) -> None:
    missing, extra = sorted(wanted.keys() - stored.keys()), sorted(stored.keys() - wanted.keys())
    other = [
        name for name in sorted(wanted.keys() & stored.keys()) if stored[name][:2] != _form(wanted[name])
    ]
    if missing or extra or other:
        shapes = [f"{n} {stored[n][:2]} instead of {_form(wanted[n])}" for n in other]
        parts = [("missing", missing), ("extra", extra), ("other shape", shapes)]
        listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in parts if names)
        raise MismatchError(f"checkpoint step {step} is of another model or optimizer. {listed}.")


def _model_shapes(meta: dict) -> dict[str, Any]:
    """The tree of shapes of the item `model`, on this process's first device."""
    tree: dict[str, Any] = {"params": {}, "model_state": {}}
    here = SingleDeviceSharding(jax.local_devices()[0])
    for name, (dtype, shape, _) in meta["arrays"].items():
        item, *parents, last = name.split("/")
        if item != "model":
            continue
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=here)
    return tree


def _refuse_foreign_content(folder: epath.Path) -> None:
    content = sorted(
        path.name for path in folder.iterdir() if not path.name.endswith(".orbax-checkpoint-tmp")
    )
    if content:
        raise ConfigError(
            f"{folder}: not empty ({content[0]}), but no checkpoint in it can be used; choose a new workdir."
        )


def _step_name(step: int) -> str:
    return f"step_{step:08d}"


def _reason(error: Exception) -> str:
    """The gist of an error of Orbax or TensorStore, whose texts run over pages."""
    text = " ".join(str(error).split())
    for known in ("No space left on device", "File too large", "Permission denied", "Read-only file system"):
        if known in text:
            return known
    return text[:160] or type(error).__name__
