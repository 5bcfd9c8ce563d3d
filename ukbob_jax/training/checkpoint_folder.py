"""The folder of a run's checkpoints as Orbax keeps it: names, retention, what it prints, and the gist of its errors."""

import functools
import logging
import math
import os
import shutil
import sys
import time
from typing import Any

import orbax.checkpoint as ocp
from absl import logging as absl_logging
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies


class Manager(ocp.CheckpointManager):
    """Orbax's, for which a score that cannot be read is none: it would open no folder that has one."""

    def metrics(self, step: int) -> Any:
        """Return what is stored as the score of a step; None: nothing, or nothing that can be read."""
        try:
            return super().metrics(step)
        except ValueError as error:
            _warn_once(f"{self.directory}: the score of step {step} cannot be read ({reason(error)}).")
            return None


@functools.cache
def _warn_once(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def open_manager(folder: str | os.PathLike, keep: int | None, mode: str = "max") -> ocp.CheckpointManager:
    """Open `folder`; the only place that configures Orbax, whose managers see nothing under another prefix.

    keep None opens for reading alone, and leaves the unfinished save of a running training in peace.
    """
    _silence_orbax()
    folder = str(folder)
    return Manager(
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


def _score(metrics: dict[str, Any]) -> float:
    """Return what ranks a checkpoint; one without a score, or not evaluated yet, comes last."""
    if metrics["score"] is None:
        return math.inf if metrics["mode"] == "min" else -math.inf
    return metrics["score"]


def remove_unfinished(folder: epath.Path) -> None:
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


def step_name(step: int) -> str:
    """Return the folder's name of a step."""
    return f"step_{step:08d}"


def reason(error: Exception) -> str:
    """The gist of an error of Orbax or TensorStore, whose texts run over pages."""
    text = " ".join(str(error).split())
    for known in ("No space left on device", "File too large", "Permission denied", "Read-only file system"):
        if known in text:
            return known
    return text[:160] or type(error).__name__
