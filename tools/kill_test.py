"""Kill a training again and again, and show that it ends with the same numbers as one left alone.

    python -m tools.kill_test --kills 20                       a toy, about five minutes
    python -m tools.kill_test --kills 20 --pretrain voco       a small pre-training, by its recipe on phantoms
    python -m tools.kill_test --kills 20 -- COMMAND {workdir}  any training, --take-over in it; {workdir}: its folder

Each start is killed with signal 9 at a random moment of its training. Compared are the digest of every array of the
last checkpoint, bit for bit, and `metrics.jsonl`, byte for byte. Run it from the root of a checkout.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

from tests import tiny_pretraining

TOY = [sys.executable, "-m", "tests.training.toy_run", "{workdir}"]
STEPS_PER_KILL = 50


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="longest time a start may train before it is killed"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pretrain", choices=tiny_pretraining.CASES, help="a method of pre-training")
    parser.add_argument("command", nargs="*", help="after --; default: a toy model")
    options = parser.parse_args(argv)
    if options.pretrain and options.command:
        parser.error("--pretrain has a command of its own; give one of the two.")
    steps = STEPS_PER_KILL * options.kills
    command = options.command or [*TOY, str(steps)]
    with tempfile.TemporaryDirectory() as folder:
        if options.pretrain:
            command = pretraining(pathlib.Path(folder) / "store", options.pretrain, steps)
        calm, killed = pathlib.Path(folder) / "calm", pathlib.Path(folder) / "killed"
        start(command, calm).wait()
        count = kill_often(command, killed, options.kills, options.seconds, random.Random(options.seed))
        code = start(command, killed).wait()
        different = compare(calm, killed)
    print(
        f"{count} kills, last start ended with {code}; "
        + (f"DIFFERENT: {different}" if different else "identical")
    )
    return int(bool(different) or count < options.kills or code != 0)


def pretraining(store: pathlib.Path, case: str, steps: int) -> list[str]:
    """Write phantoms into `store`; the command that learns from them, with `{workdir}` in it."""
    tiny_pretraining.write_store(store)
    return [*tiny_pretraining.command(store, "{workdir}", case, **{"train.steps": steps}), "--take-over"]


def start(command: list[str], workdir: pathlib.Path) -> subprocess.Popen:
    return subprocess.Popen(
        [word.replace("{workdir}", str(workdir)) for word in command], stderr=subprocess.DEVNULL
    )


def kill_often(
    command: list[str], workdir: pathlib.Path, kills: int, seconds: float, rng: random.Random
) -> int:
    """Start and kill; how often it was killed before it ended by itself."""
    for count in range(kills):
        process = start(command, workdir)
        for file in (
            "starts.jsonl",
            "timing.jsonl",
        ):  # it has read its checkpoint; it has compiled, and trains
            wait_for_line(process, workdir / file)
        time.sleep(rng.uniform(0, seconds))
        if process.poll() is not None:
            return count
        process.kill()
        process.wait()
        print(f"kill {count + 1}: newest checkpoint {newest(workdir)}", flush=True)
    return kills


def wait_for_line(process: subprocess.Popen, path: pathlib.Path) -> None:
    """Until the file grows by a line, or the process has ended."""
    before = lines(path)
    while process.poll() is None and lines(path) <= before:
        time.sleep(0.01)


def lines(path: pathlib.Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def newest(workdir: pathlib.Path) -> str:
    """Name of the newest complete checkpoint."""
    names = [path.name for path in (workdir / "checkpoints").glob("step_*") if not path.name.endswith("-tmp")]
    return max(names, default="none")


def compare(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """What differs between two finished runs."""
    different = []
    if newest(one) != newest(other):
        return [f"last checkpoint: {newest(one)}, {newest(other)}"]
    arrays = [
        json.loads((folder / "checkpoints" / newest(folder) / "meta" / "metadata").read_text())["arrays"]
        for folder in (one, other)
    ]
    different += [name for name in arrays[0] if arrays[0][name] != arrays[1].get(name)]
    if (one / "metrics.jsonl").read_bytes() != (other / "metrics.jsonl").read_bytes():
        different.append("metrics.jsonl")
    return different


if __name__ == "__main__":
    sys.exit(main())
