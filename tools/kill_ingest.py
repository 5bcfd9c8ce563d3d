"""Kill an ingestion again and again, its workers and itself, and show that the store is that of one left alone.

    python -m tools.kill_ingest --kills 20                                        phantoms, about three minutes
    python -m tools.kill_ingest --kills 20 -- COMMAND --config.store={store} ...  any with --take-over; {workdir}: its folder

Each start is left to finish a subject; then signal 9 hits the main process or one of its workers at a random moment,
until it hits the main process. Compared is every file of the two stores, bit for bit. Linux; run it from the root of a
checkout.
"""

import argparse
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from os import kill

PHANTOMS = [
    *(sys.executable, "-m", "ukbob_jax.main", "--config=configs/swin_bob.py:demo", "--workdir={workdir}"),
    *("--config.job=ingest", "--config.store={store}", "--config.workers=2", "--take-over"),
]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="longest time from one kill to the next")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("command", nargs="*", help="after --; default: 20 phantoms per kill")
    options = parser.parse_args(argv)
    command = options.command or [*PHANTOMS, f"--config.source.count={20 * options.kills}"]
    with tempfile.TemporaryDirectory() as folder:
        calm, killed = pathlib.Path(folder) / "calm", pathlib.Path(folder) / "killed"
        start(command, calm).wait()
        hits = kill_often(command, killed, options.kills, options.seconds, random.Random(options.seed))
        code = start(command, killed).wait()
        different = compare(calm / "store", killed / "store")
        subjects = finished(killed)
    print(
        f"{hits['main']} kills of the main process and {hits['worker']} of workers, {subjects} subjects, last start "
        f"ended with {code}; " + (f"DIFFERENT: {different[:10]}" if different else "identical")
    )
    return int(bool(different) or sum(hits.values()) < options.kills or code != 0 or not subjects)


def start(command: list[str], folder: pathlib.Path) -> subprocess.Popen:
    places = {"{workdir}": str(folder / "workdir"), "{store}": str(folder / "store")}
    for name, path in places.items():
        command = [word.replace(name, path) for word in command]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def kill_often(
    command: list[str], folder: pathlib.Path, kills: int, seconds: float, rng: random.Random
) -> dict[str, int]:
    """Start and kill; how often whom, which is less than asked if it ended by itself."""
    hits = {"main": 0, "worker": 0}
    while sum(hits.values()) < kills:
        before = finished(folder)
        process = start(command, folder)
        while process.poll() is None and finished(folder) <= before:
            time.sleep(0.01)
        while process.poll() is None and sum(hits.values()) < kills:
            time.sleep(rng.uniform(0, seconds))
            victim = rng.choice(["main", "worker"])
            pids = workers(process.pid) if victim == "worker" else [process.pid]
            if process.poll() is None and pids:
                kill(rng.choice(pids), signal.SIGKILL)
                hits[victim] += 1
                print(f"kill {sum(hits.values())}: {victim}, {finished(folder)} subjects done", flush=True)
            if victim == "main":
                break
        if process.poll() is None:  # the last kill was of a worker: an end of its own
            process.kill()
        if process.wait() not in (-signal.SIGKILL, 4):  # 4: a subject's worker was hit twice
            break
        time.sleep(0.2)  # its workers see that it is gone
    return hits


def workers(pid: int) -> list[int]:
    """The processes that work for `pid`: children that multiprocessing has spawned, without its bookkeeper."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(child) for child in children.read_text().split()] if children.exists() else []
    return [child for child in found if b"spawn_main" in read(pathlib.Path(f"/proc/{child}/cmdline"))]


def read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


def finished(folder: pathlib.Path) -> int:
    """Subjects that the store has."""
    return sum(1 for _ in folder.glob("store/subjects/*/done.json"))


def compare(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """Files that only one of two folders has, or that differ."""
    files = [
        {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
        for root in (one, other)
    ]
    return sorted(
        name
        for name in files[0].keys() | files[1].keys()
        if not (name in files[0] and name in files[1] and read(files[0][name]) == read(files[1][name]))
    )


if __name__ == "__main__":
    sys.exit(main())
