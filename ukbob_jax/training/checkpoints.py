"""Checkpoints: saved while training goes on, verified when read, never trusted blindly.

Each holds three items: `model` (parameters and other collections), `training` (the rest of the state) and `meta`
(JSON: what a reader must know, and the shape and digest of every array). Kept are the latest ones and the best.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding

from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.training.checkpoint_folder import open_manager, reason, remove_unfinished, step_name
from ukbob_jax.training.digests import digests
from ukbob_jax.training.optimizer import path_name
from ukbob_jax.training.state import TrainState

FAILED_SAVES = 2  # in a row; then training stops rather than go on unprotected
REMEDY = "Free space, then run the same command to resume."


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
        self._mode = mode
        self._manager = open_manager(folder, keep, mode)
        self._failed = 0
        self._problem = ""  # of the latest save that failed
        self._saving: int | None = None

    def save(self, state: TrainState, meta: dict[str, Any], *, ranked: bool = False) -> None:
        """Start saving; training may go on. A step that is saved already is passed over.

        `ranked`: a score follows, see `rank`; until then `restore` says that its evaluation is pending.

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
            score = {"score": None, "mode": self._mode, "pending": True} if ranked else None
            self._manager.save(step, args=saved, metrics=score, force=True)
        except Exception as error:  # Orbax raises bare ValueError and Exception, whatever went wrong
            self._report(error)

    def rank(self, step: int, score: float | None) -> None:
        """Give the checkpoint of `step`, saved as `ranked`, its score; None: there is none, and it is never the best.

        Waits for its save, and leaves all else of it as it is. Where that save failed, nothing is done.

        Raises:
            FileError: the score cannot be written; the checkpoint is complete, and its evaluation pending.
        """
        self.wait()
        if step not in self._manager.all_steps():
            return
        path = self.folder / step_name(step) / "metrics" / "metrics"
        if jax.process_index() == 0:
            try:
                path.parent.mkdir(
                    exist_ok=True
                )  # checkpoints of earlier versions lack it until they are scored
                unfinished = path.with_name("metrics.tmp")
                unfinished.write_text(json.dumps({"score": score, "mode": self._mode}))
                unfinished.replace(path)
            except OSError as error:
                raise FileError(f"{path}: cannot be written: {reason(error)}. {REMEDY}") from error
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"rank {step}")
        self._manager.reload()

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
        """The newest sound state and its meta, with `evaluation_pending`, or None where nothing has been saved.

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
                meta["evaluation_pending"] = _is_pending(meta, self._manager.metrics(step))
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
            remove_unfinished(self.folder)
        self._manager.reload()
        latest = self._manager.latest_step()
        kept = f"step {latest} still loads" if latest is not None else "none was saved before"
        self._problem = f"{self.folder}: saving step {step} failed: {reason(error)}; {kept}."
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
            target = self.folder / f"damaged_{step_name(step)}"
            while target.exists():
                target = target.with_name(target.name + "_")
            (self.folder / step_name(step)).rename(target)
        if jax.process_count() > 1:  # nobody may take it for a step that is saved already
            multihost_utils.sync_global_devices(f"set aside {step}")
        self._manager.reload()


def steps_of(folder: str | os.PathLike) -> list[int]:
    """The steps of which a folder holds complete checkpoints, ascending.

    Raises:
        FileError: there is no such folder.
    """
    if not epath.Path(folder).is_dir():
        raise FileError(f"{folder}: no such folder of checkpoints. Train first, or correct the path.")
    with open_manager(folder, keep=None) as manager:
        return sorted(manager.all_steps())


def restore_params(folder: str | os.PathLike, which: str | int = "best") -> tuple[Any, Any, dict]:
    """Parameters, other model collections and meta of a checkpoint, for inference on one device.

    Args:
        folder: the `checkpoints` folder of a workdir.
        which: "best", by validation score (the latest where none was scored), "latest", or a step, see `steps_of`.
    Raises:
        FileError: there is no checkpoint, or it is damaged.
    """
    if isinstance(which, str) and which not in ("best", "latest"):
        raise ConfigError(f"checkpoint: {which!r} is unknown; choose best or latest.")
    if not epath.Path(folder).is_dir():
        raise FileError(f"{folder}: no such folder of checkpoints. Train first, or correct the path.")
    with open_manager(folder, keep=None) as manager:
        step = which if isinstance(which, int) else manager.latest_step()
        step = _best_step(manager) if which == "best" else step
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
    found = {step: manager.metrics(step) for step in manager.all_steps()}
    scored = {step: metrics for step, metrics in found.items() if metrics and metrics["score"] is not None}
    if not scored:
        return manager.latest_step()
    sign = -1 if scored[max(scored)].get("mode", "max") == "min" else 1
    return max(scored, key=lambda step: (sign * scored[step]["score"], step))


def _is_pending(meta: dict[str, Any], metrics: dict[str, Any] | None) -> bool:
    """Whether the evaluation of a checkpoint has still to be done; earlier versions say so in their meta."""
    if metrics:
        return metrics.get("pending", False)
    return meta.get("evaluation_pending", meta.get("owes_evaluation", False))


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
        raise Damaged(f"meta: {reason(error)}") from error
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
        raise Damaged(reason(error)) from error
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
