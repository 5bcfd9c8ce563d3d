"""nnU-Net's networks and commands here beside nnU-Net's own on PyTorch: same machine, same run, taking turns.

    python -m tools.bench_nnunet networks                        96 cubed: PlainConvUNet and ResEnc M, 5 and 71 classes
    python -m tools.bench_nnunet networks --only plain --size 64 64 64
    python -m tools.bench_nnunet commands MODEL_FOLDER INPUTS    whole commands on one folder of scans
    python -m tools.bench_nnunet commands --full --only plain    a network of real size with weights by formula, one scan
                                                                 and one patch of 128 cubed; --no-mirror

nnunetv2 2.8 must be installed (pip install nnunetv2). PyTorch runs with oneDNN. A train step is Dice and cross entropy
at every resolution of deep supervision, gradients, and SGD with Nesterov's momentum. Ratios are the peer's figure over
ours: above 1 is faster, or smaller, than nnU-Net. CPU seconds are given too, since they depend less on what else the
machine does. Memory of commands is that of the process and its children together, looked up four times a second.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tools.bench_model import KINDS, Program, compiled, machine, take_turns
from ukbob_jax import devices, networks
from ukbob_jax.training import losses

FEATURES = (32, 64, 128, 256, 320, 320)
PLANNED = {
    "n_stages": 6,
    "features_per_stage": FEATURES,
    "kernel_sizes": ((3, 3, 3),) * 6,
    "strides": ((1, 1, 1), *((2, 2, 2),) * 5),
}
NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {  # ours, PyTorch's, fields
    "plain": (
        "plain_unet",
        "PlainConvUNet",
        {**PLANNED, "n_conv_per_stage": (2,) * 6, "n_conv_per_stage_decoder": (2,) * 5},
    ),
    "resenc": (
        "resenc_unet",
        "ResidualEncoderUNet",
        {**PLANNED, "n_blocks_per_stage": (1, 3, 4, 6, 6, 6), "n_conv_per_stage_decoder": (1,) * 5},
    ),
}
LEARNING_RATE, MOMENTUM, DECAY = 1e-2, 0.99, 3e-5  # nnUNetTrainer's
SCAN = (128, 128, 128)  # voxels
INTENSITIES = {
    "max": 640,
    "mean": 300,
    "median": 300,
    "min": 0,
    "percentile_00_5": 8,
    "percentile_99_5": 600,
    "std": 160,
}
POLL_S = 0.25


class Case(NamedTuple):
    """One network and batch."""

    network: str  # of `NETWORKS`
    size: tuple[int, int, int]  # voxels
    classes: int
    batch: int


def main() -> None:
    devices.tune_cpu()
    options = arguments()
    if options.part == "networks":
        rows = bench_networks(options)
    elif options.full:
        with tempfile.TemporaryDirectory() as folder:
            rows = bench_commands(
                *real_size(Path(folder), options.only[0], options.classes[0]), options.repeats, options.mirror
            )
    else:
        rows = bench_commands(options.model, options.inputs, options.repeats, options.mirror)
    if options.out:
        options.out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("networks", "commands"))
    parser.add_argument("model", type=Path, nargs="?", help="nnU-Net's model folder")
    parser.add_argument("inputs", type=Path, nargs="?", help="folder of scans, CASE_0000.nii.gz")
    parser.add_argument("--full", action="store_true", help="a network of real size, formula weights")
    parser.add_argument(
        "--mirror", action=argparse.BooleanOptionalAction, default=True, help="commands: as by default"
    )
    parser.add_argument("--only", nargs="+", choices=tuple(NETWORKS), default=tuple(NETWORKS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--size", type=int, nargs=3, default=(96, 96, 96), help="voxels of the patch")
    parser.add_argument("--classes", type=int, nargs="+", default=(5, 71))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file for the rows as JSON")
    options = parser.parse_args()
    if options.part == "commands" and not options.full and not (options.model and options.inputs):
        parser.error("commands: MODEL_FOLDER and INPUTS, or --full")
    return options


def bench_networks(options: argparse.Namespace) -> list[dict]:
    print(f"{machine()}; seconds are minima over {options.repeats} rounds")
    print(
        f"{'network':<8}{'classes':>8} {'':10}{'ours':>8}{'torch':>8}{'ratio':>7}{'CPU ours':>10}{'torch':>8}"
        f"{'ratio':>7}{'GFLOP/s':>9}{'compile s':>11}{'peak MB':>9}"
    )
    rows = []
    for name in options.only:
        for classes in options.classes:
            case = Case(name, tuple(options.size), classes, options.batch)
            for row in measure(case, options.kinds, options.repeats):
                rows.append(row)
                print(
                    f"{name:<8}{classes:>8} {row['kind']:<10}{row['ours_s']:8.2f}{row['torch_s']:8.2f}"
                    f"{row['ratio']:7.2f}{row['ours_cpu_s']:10.2f}{row['torch_cpu_s']:8.2f}{row['cpu_ratio']:7.2f}"
                    f"{row['gflop'] / row['ours_s']:9.1f}{row['compile_s']:11.1f}{row['peak_mb']:9.0f}",
                    flush=True,
                )
    return rows


def measure(case: Case, kinds: Sequence[str], repeats: int) -> list[dict]:
    """One row for each kind."""
    ours, theirs = our_programs(case, kinds), torch_programs(case, kinds)
    runs = {f"ours {k}": v.run for k, v in ours.items()} | {f"torch {k}": run for k, run in theirs.items()}
    wall, cpu = take_turns(runs, repeats)
    rows = []
    for kind, program in ours.items():
        seconds = {
            f"{who}{unit}": min(table[f"{who} {kind}"])
            for who in ("ours", "torch")
            for unit, table in (("_s", wall), ("_cpu_s", cpu))
        }
        rows.append(
            case._asdict()
            | {"kind": kind, **seconds}
            | {"ratio": seconds["torch_s"] / seconds["ours_s"]}
            | {"cpu_ratio": seconds["torch_cpu_s"] / seconds["ours_cpu_s"]}
            | {"median_ratio": _median(wall, "torch", kind) / _median(wall, "ours", kind)}
            | {"gflop": program.flops / 1e9, "compile_s": program.compile_s}
            | {"peak_mb": program.device_bytes / 1e6}
        )
    return rows


def _median(seconds: Mapping[str, list[float]], who: str, kind: str) -> float:
    return statistics.median(seconds[f"{who} {kind}"])


def our_programs(case: Case, kinds: Sequence[str]) -> dict[str, Program]:
    """Our forward pass and train step, compiled ahead of time."""
    name, _, fields = NETWORKS[case.network]
    model: Any = networks.build(name, 1, case.classes, **fields, deep_supervision=True)
    strides = [tuple(2**level for _ in range(3)) for level in range(len(FEATURES) - 1)]
    loss_of = losses.deep(losses.dice_ce, strides)
    optimizer = optax.chain(
        optax.add_decayed_weights(DECAY), optax.sgd(LEARNING_RATE, MOMENTUM, nesterov=True)
    )
    image, label = batch(case)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape) * 0.02, a.dtype), shapes)

    def forward(params: Any, image: jax.Array) -> jax.Array:
        return model.apply({"params": params}, image)

    def step(params: Any, state: Any, image: jax.Array, label: jax.Array) -> tuple:
        def loss(params: Any) -> jax.Array:
            logits = model.apply({"params": params}, image, train=True)
            return loss_of(logits, label, include_background=False)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    programs: dict[str, Callable[[], Program]] = {
        KINDS[0]: lambda: compiled(forward, (params, image)),
        KINDS[1]: lambda: compiled(step, (params, optimizer.init(params), image, label), donated=2),
    }
    return {kind: programs[kind]() for kind in kinds}


def torch_programs(case: Case, kinds: Sequence[str]) -> dict[str, Callable[[], None]]:
    """The same of dynamic-network-architectures' class, with nnU-Net's loss."""
    import torch
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    model = torch_network(case)
    image, label = (torch.from_numpy(np.array(a)) for a in batch(case))
    image, label = image.movedim(-1, 1).contiguous(), label[:, None].long()
    targets = [label[(..., *(slice(2**n // 2, None, 2**n),) * 3)] for n in range(len(FEATURES) - 1)]
    weights = [2.0**-n for n in range(len(targets))]
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss)
    loss_of = DeepSupervisionWrapper(loss, [w / sum(weights) for w in weights])
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True
    )

    def forward() -> None:
        model.eval()
        model.decoder.deep_supervision = False
        with torch.inference_mode():
            model(image)

    def step() -> None:
        model.train()
        model.decoder.deep_supervision = True
        optimizer.zero_grad(set_to_none=True)
        loss_of(model(image), targets).backward()
        optimizer.step()

    runs = dict(zip(KINDS, (forward, step)))
    return {kind: runs[kind] for kind in kinds}


def torch_network(case: Case) -> Any:
    """The class that nnU-Net trains, as its plans build it."""
    import torch
    from dynamic_network_architectures.architectures import unet

    _, name, fields = NETWORKS[case.network]
    return getattr(unet, name)(
        input_channels=1,
        num_classes=case.classes,
        conv_op=torch.nn.Conv3d,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
        **fields,
    )


def batch(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """A random image `b x y z 1` and label `b x y z`."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((case.batch, *case.size, 1)).astype(np.float32)
    return image, rng.integers(0, case.classes, (case.batch, *case.size)).astype(np.uint8)


def bench_commands(model: Path, inputs: Path, repeats: int, mirror: bool) -> list[dict]:
    """`ukbob segment` with no program kept and with programs kept, and nnU-Net's command, on one scan and on two.

    Args:
        model: TRAINER__PLANS__CONFIGURATION.
        inputs: folder of scans; the first of them is taken, twice for two.
        repeats: runs of each, which take turns; the least seconds count.
        mirror: average over mirror images, as both do by themselves.
    """
    print(f"{machine()}; {model.name}, {_first_case(inputs)}, least of {repeats}")
    print(f"{'':<26}{'wall s':>9}{'CPU s':>9}{'peak MB':>9}")
    rows: dict[tuple[str, int], dict] = {}
    with tempfile.TemporaryDirectory() as work:
        for count in (1, 2):
            _copy_scans(inputs, Path(work) / f"in{count}", count)
        for _ in range(repeats):
            kept = Path(tempfile.mkdtemp(dir=work))
            for who in ("ours cold", "ours warm", "nnU-Net"):
                for count in (1, 2) if who != "ours cold" else (1,):
                    out = Path(tempfile.mkdtemp(dir=work))
                    command = _command(who, Path(work) / f"in{count}", out, model, mirror)
                    row = run(command, {"UKBOB_CACHE": str(kept)})
                    old = rows.setdefault((who, count), row)
                    rows[who, count] = {name: min(old[name], row[name]) for name in row}
                    _check_written(out, count)
    for (who, count), row in rows.items():
        print(f"{who + ', ' + str(count):<26}{row['wall_s']:9.1f}{row['cpu_s']:9.1f}{row['peak_mb']:9.0f}")
    for name, value in ratios(rows).items():
        print(f"{name:<26}{value:9.2f}")
    return [{"who": who, "scans": n, **row} for (who, n), row in rows.items()] + [ratios(rows)]


def ratios(rows: Mapping[tuple[str, int], Mapping[str, float]]) -> dict[str, float]:
    """nnU-Net's figure over ours."""
    ours, theirs, cold = (rows[who, 1] for who in ("ours warm", "nnU-Net", "ours cold"))
    second = [rows[who, 2]["wall_s"] - rows[who, 1]["wall_s"] for who in ("ours warm", "nnU-Net")]
    return {
        "wall": theirs["wall_s"] / ours["wall_s"],
        "wall, nothing compiled": theirs["wall_s"] / cold["wall_s"],
        "CPU": theirs["cpu_s"] / ours["cpu_s"],
        "peak memory": theirs["peak_mb"] / max(ours["peak_mb"], cold["peak_mb"]),
        "one more scan, wall": second[1] / second[0],
    }


def _command(who: str, inputs: Path, out: Path, model: Path, mirror: bool) -> list[str]:
    if who != "nnU-Net":
        options = [] if mirror else ["--no-mirror"]
        ours = [sys.executable, "-m", "ukbob_jax.cli", "segment", str(inputs), str(out / "labels")]
        return [*ours, "--model", str(model), "--folds", "0", *options]
    options = [] if mirror else ["--disable_tta"]
    theirs = [str(Path(sys.executable).parent / "nnUNetv2_predict_from_modelfolder"), "-i", str(inputs)]
    return [*theirs, "-o", str(out / "labels"), "-m", str(model), "-f", "0", "-device", "cpu", *options]


def _first_case(inputs: Path) -> str:
    return min(inputs.glob("*_0000.nii.gz")).name.removesuffix("_0000.nii.gz")


def _copy_scans(inputs: Path, folder: Path, count: int) -> None:
    folder.mkdir()
    case = _first_case(inputs)
    for channel in inputs.glob(f"{case}_????.nii.gz"):
        for n in range(count):
            shutil.copy(channel, folder / channel.name.replace(case, f"{case}{n}", 1))


def _check_written(out: Path, count: int) -> None:
    if (found := len(list(out.rglob("*.nii.gz")))) != count:
        raise RuntimeError(f"{found} label maps were written, {count} expected")


def run(command: list[str], environment: Mapping[str, str]) -> dict[str, float]:
    """Wall and CPU seconds of a command with its children, and the most memory that they held at once.

    Memory is the proportional set size: pages that several processes share count once (Linux).

    Raises:
        RuntimeError: the command failed.
    """
    start, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment)
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, sum(map(_bytes_of, _tree(process.pid))))
            time.sleep(POLL_S)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {log.read().decode(errors='replace')[-2000:]}")
    return {"wall_s": wall, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": peak / 1e6}


def _tree(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task").glob("*/children")
        below = [int(child) for file in children for child in file.read_text().split()]
    except OSError:  # it has just ended
        return []
    return [pid, *(p for child in below for p in _tree(child))]


def _bytes_of(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def real_size(folder: Path, network: str, classes: int) -> tuple[Path, Path]:
    """A model folder with a network of `NETWORKS` and a scan as large as its patch, both by formula.

    Returns:
        model folder, folder with the scan.
    """
    import nibabel
    import torch

    model, inputs = folder / "nnUNetTrainer__nnUNetPlans__3d_fullres", folder / "scans"
    (model / "fold_0").mkdir(parents=True)
    inputs.mkdir()
    (model / "plans.json").write_text(json.dumps(_plans(network)))
    labels = {"background": 0} | {f"structure_{k}": k for k in range(1, classes)}
    dataset = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (model / "dataset.json").write_text(json.dumps(dataset))
    net = torch_network(Case(network, SCAN, classes, 1))
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            tensor.copy_(torch.from_numpy(_formula(name, tuple(tensor.shape))))
    checkpoint = {
        "network_weights": net.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres", "fold": 0},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    torch.save(checkpoint, model / "fold_0" / "checkpoint_final.pth")
    wave = np.abs((np.indices(SCAN) * np.array([5, 3, 7])[:, None, None, None]).sum(0) % 128 - 64)
    noise = np.random.default_rng(0).integers(0, 64, SCAN)
    image = nibabel.Nifti1Image((8 * wave + noise).astype(np.int16), np.eye(4))
    nibabel.save(image, inputs / "scan_0000.nii.gz")
    return model, inputs


def _formula(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights that keep the size of what goes through, different for every name; norms and biases near 1 and 0."""
    values = np.random.default_rng(zlib.crc32(name.encode())).uniform(-1, 1, shape).astype(np.float32)
    if len(shape) > 1:
        return values * np.float32(np.sqrt(3 / np.prod(shape[1:])))
    return np.float32(1) + values / 4 if name.endswith("weight") else values / 8


def _plans(network: str) -> dict:
    """As nnU-Net's planner writes them, for scans of `SCAN` voxels of 1 mm."""
    _, name, fields = NETWORKS[network]
    arguments = {
        **fields,
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    resampling: dict[str, Any] = {}
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        resampling[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        options = {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}
        resampling[f"resampling_fn_{what}_kwargs"] = options
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": SCAN,
        "median_image_size_in_voxels": SCAN,
        "spacing": (1.0, 1.0, 1.0),
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        **resampling,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    return {
        "dataset_name": "Dataset001_Formula",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": (1.0, 1.0, 1.0),
        "original_median_shape_after_transp": SCAN,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": (0, 1, 2),
        "transpose_backward": (0, 1, 2),
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": INTENSITIES},
    }


if __name__ == "__main__":
    main()
