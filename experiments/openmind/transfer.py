"""What pre-training buys on real scans: the hippocampus of the Decathlon, few labels, equal steps of fine-tuning.

    python -m experiments.openmind.transfer --data FOLDER --workdir runs/openmind

FOLDER is that of `experiments.real.hippocampus`. Every method pre-trains one small Swin-UNETR on the images of the training
scans, by `configs/pretrain.py`, with probes on the way. Then that network, and a fresh one, learn from 6, 12, 24 and all
labelled training scans, with three seeds, which choose the scans, their order, and where new layers start. The learning
rate of every arm is chosen on the validation scans at 24 labels; nothing else is chosen. The test scans are scored once,
by the last running average of the parameters. Finished parts are kept in the workdir, so the same command goes on. Writes
transfer.json, transfer.png and probes.png. `--report` makes them of the parts that are there.
"""

import argparse
import functools
import itertools
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import hippocampus
from ukbob_jax import devices, files, networks, weights
from ukbob_jax.data.on_device import on_device
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.data.whole import read_image
from ukbob_jax.evaluation import metrics, statistics
from ukbob_jax.jobs.train.loss import label_loss
from ukbob_jax.jobs.train.validation import predictor
from ukbob_jax.main import main as ukbob
from ukbob_jax.models import architecture
from ukbob_jax.training import optimizer
from ukbob_jax.training import state as states
from ukbob_jax.training.objectives.supervised import supervised
from ukbob_jax.training.step import train_step

HERE = pathlib.Path(__file__).parent
SCRATCH = "scratch"
CROPS = {  # method -> crop, batch size and fields of its own, for scans of at most 43 x 59 x 47 voxels
    "mae": ((32, 64, 32), 2, ("pretrain.block=8",)),
    "simmim": ((32, 64, 32), 2, ("pretrain.block=8",)),
    "fusion": ((32, 64, 32), 2, ("pretrain.smallest=4", "pretrain.largest=16")),
    "voco": ((64, 64, 32), 2, ("pretrain.grid=(2,2,1)", "pretrain.targets=2")),
    "swinunetr": ((32, 32, 32), 2, ()),
}
LABELLED = (6, 12, 24, 120)
SEEDS = (0, 1, 2)
RATES = (1e-3, 4e-3)
CHOSEN_AT = 24  # labelled scans


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, default=HERE)
    parser.add_argument("--methods", nargs="*", default=list(CROPS), choices=list(CROPS))
    parser.add_argument("--labelled", nargs="*", type=int, default=list(LABELLED))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--pretrain-steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=100, help="of fine-tuning")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args(argv)
    split = files.read_json(args.data / "split.json")
    if not args.report:
        ingest(args.data, args.workdir)
        for method in args.methods:
            pretrain(method, args)
        devices.use_compile_cache()
        run = Runs(args, split)
        for arm in (SCRATCH, *args.methods):
            run.choose(arm)
        for seed, count, arm in itertools.product(args.seeds, args.labelled, (SCRATCH, *args.methods)):
            run.test(arm, count, seed)
    result = summary(args)
    files.write_json(args.output / "transfer.json", result)
    figures(result, args.output)
    print(table(result))


def ingest(data: pathlib.Path, workdir: pathlib.Path) -> None:
    """The scans as a store."""
    call(
        "configs/hippocampus.py", workdir / "ingest", f"store={workdir / 'store'}", f"splits={data / 'split.json'}",
        "job=ingest", *(f"source.paths.{kind}={data / kind}" for kind in ("images", "labels")),
    )  # fmt: skip


def pretrain(method: str, args: argparse.Namespace) -> None:
    """One pre-training, or the rest of it, on the images of the training scans; its CPU seconds are kept beside it."""
    crop, batch, own = CROPS[method]
    folder, spent = args.workdir / method, args.workdir / f"{method}.json"
    if spent.exists():
        return
    started = time.process_time()
    call(
        f"configs/pretrain.py:{method}", folder, f"store={args.workdir / 'store'}",
        f"splits={args.data / 'split.json'}", f"data.crop={crop}", f"data.batch_size={batch}",
        "model.feature_size=12", "model.window_size=(4,4,4)", f"train.steps={args.pretrain_steps}",
        f"optimizer.warmup_steps={args.pretrain_steps // 10}", "optimizer.learning_rate=1e-3",
        "train.log_every=25", f"train.checkpoint_every={args.pretrain_steps}",
        f"probe.every={max(1, args.pretrain_steps // 6)}", "probe.label=manual", "probe.test_split=val", *own,
    )  # fmt: skip
    files.write_json(spent, {"cpu_seconds": time.process_time() - started, "steps": args.pretrain_steps})


def call(recipe: str, workdir: pathlib.Path, *settings: str) -> None:
    """Run the job of a recipe; exits with its code if it fails."""
    words = [f"--config={recipe}", f"--workdir={workdir}", *(f"--config.{setting}" for setting in settings)]
    if code := ukbob(words):
        sys.exit(code)


class Runs:
    """Fine-tunings that share their compiled programs, and what they reached."""

    def __init__(self, args: argparse.Namespace, split: Mapping[str, Sequence[str]]) -> None:
        self.args, self.split = args, split
        config = self.config(split["train"], "all")
        data = TrainingData.open(config, str(args.workdir))
        self.model = networks.from_section({**config.model.to_dict(), "out_channels": data.num_classes})
        kind = architecture.of(self.model)
        objective = supervised(self.model, label_loss(config, data, kind.strides(self.model)))
        augment = on_device(config.augment, data.names, data.median_spacing())
        variables = states.variables_of(self.model, kind.input_shape(self.model))
        self.init, self.step = {}, {}
        for rate in RATES:
            tx = optimizer.build(
                **{**config.optimizer, "learning_rate": rate, "warmup_steps": args.steps // 10},
                steps=args.steps,
            )
            start = functools.partial(states.init, variables=variables, optimizer=tx, ema=True)
            step = functools.partial(
                train_step, objective=objective, optimizer=tx, augment=augment, ema=config.train.ema
            )
            self.init[rate], self.step[rate] = jax.jit(start), jax.jit(step, donate_argnums=0)
        self.predict = predictor(config, data, self.model)
        self.data = data

    def config(self, subjects: Sequence[str], name: str) -> ml_collections.ConfigDict:
        """The hippocampus recipe on some of the training scans."""
        path = self.args.workdir / f"split_{name}.json"
        files.write_json(path, {"train": list(subjects), "val": list(self.split["val"])})
        config = hippocampus.get_config()
        config.store, config.splits = str(self.args.workdir / "store"), str(path)
        return config

    def choose(self, arm: str) -> float:
        """The learning rate of an arm, by the Dice on the validation scans."""
        path = self.args.workdir / f"rate_{arm}.json"
        if not path.exists():
            found = {
                rate: float(self.dice(self.train(arm, CHOSEN_AT, 0, rate), self.split["val"]).mean())
                for rate in RATES
            }
            files.write_json(path, {"rate": max(found, key=lambda rate: found[rate]), "val": found})
        return files.read_json(path)["rate"]

    def test(self, arm: str, count: int, seed: int) -> None:
        """Train and score once, unless that was done."""
        path = self.args.workdir / f"test_{arm}_{count}_{seed}.json"
        if path.exists():
            return
        started = time.process_time()
        params = self.train(arm, count, seed, self.choose(arm))
        spent = time.process_time() - started
        dice = self.dice(params, self.split["test"])
        found = {"dice": dice.mean(axis=1).tolist(), "labels": dice.mean(axis=0).tolist()}
        files.write_json(path, {**found, "cpu_seconds": spent})
        print(f"{arm}, {count} labelled, seed {seed}: Dice {dice.mean():.4f}", file=sys.stderr)

    def train(self, arm: str, count: int, seed: int, rate: float) -> Any:
        """The running average of the parameters after the last step."""
        order = np.random.default_rng(seed).permutation(self.split["train"])
        config = self.config([str(name) for name in order[:count]], f"{count}_{seed}")
        config.seed = seed
        key = jax.random.key(seed)
        state = self.init[rate](key)
        if arm != SCRATCH:
            loaded = weights.read(self.args.workdir / arm, self.model, init=jax.device_get(state.params))
            params = {**state.params, **loaded.params}
            state = state.replace(
                params=jax.tree.map(jnp.asarray, params), ema=jax.tree.map(jnp.array, params)
            )
        batches = TrainingData.open(config, str(self.args.workdir)).batches(config, 0)
        for _, batch in zip(range(self.args.steps), batches):
            state, _ = self.step[rate](state, batch, key)
        batches.close()
        return state.ema

    def dice(self, params: Any, subjects: Sequence[str]) -> np.ndarray:
        """Dice of the two labels on whole scans, `n 2`; a label that is not found counts 0."""
        return np.nan_to_num(np.stack([self.dice_of(params, subject) for subject in subjects]))

    def dice_of(self, params: Any, subject: str) -> np.ndarray:
        image = read_image(self.data.store, subject, self.data.contrasts, "zscore")
        found = self.predict({"params": params}, image).astype(np.uint8)
        return metrics.dice(found, self.data.store.read(subject, "label/manual"), 3)[1:]


def summary(args: argparse.Namespace) -> dict[str, Any]:
    """What was reached: arm -> labelled scans -> Dice, and the difference to scratch, paired by scan and seed."""
    arms: dict[str, Any] = {}
    for arm in (SCRATCH, *args.methods):
        arms[arm] = {"rate": files.read_json(args.workdir / f"rate_{arm}.json"), "labelled": {}}
        if arm != SCRATCH:
            rows = files.read_jsonl(args.workdir / arm / "metrics.jsonl")
            kinds = ("probe/knn", "probe/linear", "probe/chance")
            arms[arm]["probes"] = {
                kind: {row["step"]: row[kind] for row in rows if kind in row} for kind in kinds
            }
            arms[arm]["pretraining"] = files.read_json(args.workdir / f"{arm}.json")
        for count in args.labelled:
            arms[arm]["labelled"][count] = scores(args, arm, count)
    first = next(iter(files.read_jsonl(args.workdir / args.methods[0] / "starts.jsonl")))
    spent = [of["cpu_seconds"] for arm in arms.values() for of in arm["labelled"].values()]
    pretraining = [arm["pretraining"]["cpu_seconds"] for arm in arms.values() if "pretraining" in arm]
    return {
        "arms": arms,
        "steps": args.steps,
        "seeds": args.seeds,
        "cpu_minutes": {"pretraining": sum(pretraining) / 60, "fine-tuning": sum(spent) / 60},
        "run": {name: first[name] for name in ("ukbob_jax", "python", "machine", "devices")},
    }


def scores(args: argparse.Namespace, arm: str, count: int) -> dict[str, Any]:
    """Means over scans and seeds; intervals are bootstrapped over scans, of each scan's mean over seeds."""
    found = [files.read_json(args.workdir / f"test_{arm}_{count}_{seed}.json") for seed in args.seeds]
    base = [files.read_json(args.workdir / f"test_{SCRATCH}_{count}_{seed}.json") for seed in args.seeds]
    dice, scratch = (np.array([of["dice"] for of in runs]) for runs in (found, base))  # seeds, scans
    gain = dice - scratch
    return {
        "dice": float(dice.mean()),
        "interval": statistics.bootstrap_interval(dice.mean(axis=0)),
        "of_seed": dice.mean(axis=1).tolist(),
        "gain": float(gain.mean()),
        "gain_interval": statistics.bootstrap_interval(gain.mean(axis=0)),
        "gain_of_seed": gain.mean(axis=1).tolist(),
        "cpu_seconds": sum(of["cpu_seconds"] for of in found),
    }


def table(result: Mapping[str, Any]) -> str:
    """Dice of every arm, and in parentheses what it is above scratch and on how many seeds."""
    arms = result["arms"]
    counts = list(arms[SCRATCH]["labelled"])
    lines = [
        "| | " + " | ".join(f"{count} labelled" for count in counts) + " |",
        "|---" * (1 + len(counts)) + "|",
    ]
    for name, arm in arms.items():
        cells = []
        for of in arm["labelled"].values():
            low, high = of["gain_interval"]
            more = sum(gain > 0 for gain in of["gain_of_seed"])
            seeds = f"{more} of {len(of['of_seed'])}"
            above = f" ({of['gain']:+.3f}, {low:+.3f} to {high:+.3f}; {seeds})"
            cells.append(f"{of['dice']:.3f}{'' if name == SCRATCH else above}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figures(result: Mapping[str, Any], output: pathlib.Path) -> None:
    """transfer.png: Dice over labelled scans, an axis per method beside scratch. probes.png: probes over steps."""
    from matplotlib.figure import Figure

    arms = result["arms"]
    methods = [name for name in arms if name != SCRATCH]
    figure = Figure(figsize=(2.4 * len(methods), 2.8), layout="constrained")
    for axis, name in zip(np.atleast_1d(figure.subplots(1, len(methods), sharey=True)), methods):
        for arm, color in ((SCRATCH, "0.5"), (name, "tab:blue")):
            of = arms[arm]["labelled"]
            counts, means = [int(count) for count in of], [row["dice"] for row in of.values()]
            low, high = zip(*(row["interval"] for row in of.values()))
            axis.plot(counts, means, color=color, label=arm, marker="o", markersize=3)
            axis.fill_between(counts, low, high, color=color, alpha=0.2, linewidth=0)
            axis.plot(counts, [row["of_seed"] for row in of.values()], ".", color=color, markersize=2)
        axis.set_xscale("log")
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.set_title(name)
        axis.set_xlabel("labelled scans")
        axis.legend(loc="lower right", fontsize=7)
    figure.axes[0].set_ylabel("Dice, test scans")
    figure.savefig(output / "transfer.png", dpi=130)

    figure = Figure(figsize=(8, 3), layout="constrained")
    for axis, kind in zip(figure.subplots(1, 2, sharey=True), ("probe/knn", "probe/linear")):
        for name in methods:
            curve = arms[name]["probes"][kind]
            axis.plot(
                [int(step) for step in curve], list(curve.values()), marker="o", markersize=3, label=name
            )
        axis.set_title(kind)
        axis.set_xlabel("steps of pre-training")
    figure.axes[0].set_ylabel("voxels found, mean share")
    figure.axes[0].legend(fontsize=7)
    figure.savefig(output / "probes.png", dpi=130)


if __name__ == "__main__":
    main(sys.argv[1:])
