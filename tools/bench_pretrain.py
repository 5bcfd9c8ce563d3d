"""Training without labels: MAE and VoCo on Swin-UNETR beside MONAI's on PyTorch, and what masks and views cost.

    python -m tools.bench_pretrain steps                                   64 cubed and 4 x 4 x 1 crops of 32, width 12
    python -m tools.bench_pretrain steps --size 96 96 96 --widths 12 24 48 --only mae
    python -m tools.bench_pretrain shares                                  every method, nothing but our own

`steps` takes turns with PyTorch on the same machine in the same run: masks or crops, forward pass, loss, gradients,
clipping and AdamW, with the constants of configs/pretrain.py, float32, no augmentations on either side
(`tools/nnssl_style.py` is the other side; MONAI and torch are needed, pip install ukbob-jax[torch]). First both losses
are computed from the same weights, images and masks, and the run ends if they differ. A volume is an image: of VoCo one
that is cut into all its crops. Ratios are PyTorch's time over ours, medians over the rounds.

`shares` times what a method does to its images by itself, beside its whole step: its masks, boxes, turns, crops, and,
in columns of their own, the augmentations of the recipe.
"""

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs import pretrain
from tools.bench_model import Program, compiled, machine, take_turns
from ukbob_jax import devices
from ukbob_jax.data import augment
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.training import optimizer
from ukbob_jax.training import state as states
from ukbob_jax.training.objectives import contrast, forward, fusion, genesis, masked, swin, tasks, voco
from ukbob_jax.training.objectives.tasks import Task
from ukbob_jax.training.step import Batch, train_step

ON_SWIN = tuple(
    name for name in tasks.METHODS if name not in ("s3d", "rasd")
)  # "s3d" is for others, "rasd" makes all
PEERS = ("mae", "voco")  # methods that there is a step in PyTorch of
SAME = 1e-4  # relative difference of the losses: float32, sums in another order
VOCO_CROP = 32  # voxels, edge
CHECKED = (64, 64, 64)  # crop of the comparison of losses: the coarsest map has more than one voxel
GOAL = 0.05  # of a step for masks and views


class Case(NamedTuple):
    """One method, network and batch."""

    method: str
    size: tuple[int, int, int]  # voxels of an image
    width: int
    batch: int  # samples: images, or pairs of crops

    @property
    def config(self) -> Any:
        """The recipe."""
        return pretrain.get_config(self.method)

    @property
    def fields(self) -> dict[str, Any]:
        """Those of the method's options."""
        return {name: value for name, value in self.config.pretrain.to_dict().items() if name != "method"}

    @property
    def options(self) -> Any:
        """The method's options."""
        return tasks.METHODS[self.method].options(**self.fields)

    @property
    def task(self) -> Task:
        """What is learnt."""
        return tasks.build(self.method, self.fields, functools.partial(network, self.width), 1, self.size)

    @property
    def image(self) -> np.ndarray:
        """Random images `b x y z 1`, z-scored."""
        rows = self.batch * self.task.views
        return np.random.default_rng(0).standard_normal((rows, *self.size, 1)).astype(np.float32)


def main() -> None:
    devices.tune_cpu()
    options = arguments()
    print(
        f"{machine() if options.part == 'steps' else jax.devices()[0].device_kind}; medians of {options.rounds}"
    )
    rows = []
    for number, case in enumerate(cases(options)):
        if number == 0:
            print(HEADS[options.part])
        if options.part == "steps" and case.width == options.widths[0]:
            agreement(case.method, case.width)
        row = against(case, options.rounds) if options.part == "steps" else share(case, options.rounds)
        rows.append(row)
        print(LINES[options.part](row), flush=True)
    if options.out:
        options.out.write_text(
            json.dumps({"options": vars(options) | {"out": ""}, "rows": rows}, indent=1) + "\n"
        )


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("steps", "shares"))
    parser.add_argument(
        "--only", nargs="+", choices=tuple(tasks.METHODS), help="methods; default: all of the part"
    )
    parser.add_argument(
        "--size", type=int, nargs=3, default=(64, 64, 64), help="voxels x y z, of all but voco"
    )
    parser.add_argument("--voco-crop", type=int, default=VOCO_CROP, help="edge of voco's crops, voxels")
    parser.add_argument("--widths", type=int, nargs="+", default=(12,), help="feature sizes")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file for the rows as JSON")
    options = parser.parse_args(argv)
    options.only = options.only or (PEERS if options.part == "steps" else ON_SWIN)
    if options.part == "steps" and (alone := [name for name in options.only if name not in PEERS]):
        parser.error(f"--only: no step of {alone[0]} in PyTorch; there are {', '.join(PEERS)}.")
    return options


def cases(options: argparse.Namespace) -> list[Case]:
    """What is timed, in order."""
    grid = Case("voco", (0, 0, 0), 0, 0).options.grid
    voco_size = tuple(options.voco_crop * n for n in grid)
    return [
        Case(method, voco_size if method == "voco" else tuple(options.size), width, options.batch)
        for method in options.only
        for width in options.widths
    ]


def network(width: int, out_channels: int) -> SwinUNETR:
    """Swin-UNETR of one contrast."""
    return SwinUNETR(1, out_channels, feature_size=width)


def our_step(case: Case) -> Program:
    """The training step of the job `pretrain`, without augmentations, compiled."""
    task, config = case.task, case.config
    tx = optimizer.build(**config.optimizer, steps=config.train.steps)
    init = functools.partial(states.init, variables=task.variables, optimizer=tx)
    step = functools.partial(
        train_step, objective=task.objective, optimizer=tx, augment=task.cut, views=task.rows
    )
    key = jax.random.key(0)
    return compiled(step, (jax.jit(init)(key), {"image": jnp.asarray(case.image)}, key), donated=1)


def their_step(case: Case) -> Callable[[], None]:
    """The same in PyTorch."""
    import torch

    from tools import nnssl_style

    chosen, options = case.config.optimizer, case.options
    adamw = {name: chosen[name] for name in ("learning_rate", "weight_decay", "b2", "clip_norm")}
    image = torch.from_numpy(np.moveaxis(case.image, -1, 1).copy())
    if case.method == "mae":
        return nnssl_style.mae_step(image, case.width, options.block, options.ratio, **adamw)
    return nnssl_style.voco_step(image, case.width, options.width, options.grid, options.targets, **adamw)


def against(case: Case, rounds: int) -> dict[str, Any]:
    """Our step and PyTorch's, taking turns."""
    ours = our_step(case)
    wall, cpu = take_turns({"ours": ours.run, "theirs": their_step(case)}, rounds)
    return case._asdict() | compared(wall, cpu, case.batch) | {"compile_s": ours.compile_s}


def compared(wall: dict[str, list[float]], cpu: dict[str, list[float]], volumes: int) -> dict[str, float]:
    """Medians of the seconds of "ours" and "theirs", volumes per second, and ratios, above 1 in our favour."""
    seconds = {name: statistics.median(each) for name, each in wall.items()}
    busy = {name: statistics.median(each) for name, each in cpu.items()}
    return {
        **{f"{name}_s": each for name, each in seconds.items()},
        **{f"{name}_cpu_s": each for name, each in busy.items()},
        **{f"{name}_volumes_per_s": volumes / each for name, each in seconds.items()},
        "ratio": seconds["theirs"] / seconds["ours"],
        "cpu_ratio": busy["theirs"] / busy["ours"],
    }


def agreement(method: str, width: int) -> None:
    """Compare both losses, from PyTorch's fresh weights, one image and one mask or set of crops.

    Ends the run where they differ.
    """
    ours, theirs = losses(method, width)
    apart = abs(ours - theirs) / abs(theirs)
    print(
        f"{method}, width {width}, same weights and inputs: loss {ours:.7f} here, {theirs:.7f} in PyTorch",
        flush=True,
    )
    if not apart <= SAME:
        sys.exit(
            f"{method}: the losses differ by {apart:.1e} of their size, more than {SAME}; nothing is timed."
        )


def losses(method: str, width: int) -> tuple[float, float]:
    """Our loss and PyTorch's, as `agreement` has it."""
    import torch

    from tools import nnssl_style
    from ukbob_jax import weights

    torch.manual_seed(0)
    model = network(width, 1)
    if method == "mae":
        options = Case(method, CHECKED, width, 1).options
        peer = nnssl_style.SwinUNETR(1, 1, feature_size=width)
        image = torch.randn(1, 1, *CHECKED)
        hidden = nnssl_style.block_mask(1, CHECKED, options.block, options.ratio)
        with torch.no_grad():
            theirs = nnssl_style.masked_mse(peer(image.masked_fill(hidden, 0)), image, hidden)
        params = weights.from_torch(_arrays(peer), model)
        ours_image, mask = _last(image), _last(hidden)[..., 0]
        seen = jnp.where(mask[..., None], 0, ours_image)
        found = jax.jit(lambda p, x: model.apply({"params": p}, x))(params, seen)
        return float(masked.masked_mse(found, ours_image, mask)), float(theirs)
    options = Case(method, (0, 0, 0), width, 1).options
    peer, size = nnssl_style.VoCo(width, options.width), [VOCO_CROP * n for n in options.grid]
    bases, others, overlap = nnssl_style.cut(torch.randn(1, 1, *size), options.grid, options.targets)
    with torch.no_grad():
        theirs = peer.loss(bases, others, overlap)
    whole = nnssl_style.SwinUNETR(1, 1, feature_size=width)
    whole.swinViT.load_state_dict(peer.encoder.state_dict())
    params = weights.from_torch(_arrays(whole), model)
    linear = [layer for layer in peer.head if isinstance(layer, torch.nn.Linear)]
    head = {
        f"Dense_{n}": {
            "kernel": jnp.asarray(each.weight.detach().numpy().T),
            "bias": jnp.asarray(each.bias.detach()),
        }
        for n, each in enumerate(linear)
    }
    rows = _last(torch.cat([bases, others], 1)[0])
    maps = jax.jit(lambda p, x: model.apply({"params": p}, x, method="hidden"))(params, rows)
    vectors = contrast.Projection(options.width).apply({"params": head}, forward.pooled(maps))[None]
    n = bases.shape[1]
    ours = voco.voco(vectors[:, :n], vectors[:, n:], jnp.asarray(overlap.numpy()), options.form).total
    return float(ours), float(theirs)


def _arrays(peer: Any) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in peer.state_dict().items()}


def _last(tensor: Any) -> jax.Array:
    """`b c x y z` of PyTorch as `b x y z c`."""
    return jnp.asarray(np.moveaxis(tensor.numpy(), 1, -1))


def share(case: Case, rounds: int) -> dict[str, Any]:
    """Our step beside what comes before its forward pass."""
    key, batch = jax.random.key(0), {"image": jnp.asarray(case.image)}
    step = our_step(case)
    views = ready(functools.partial(seen, case.method, case.options), key, batch)
    rows = batch
    if case.task.cut:
        rows = {"image": jax.jit(case.task.cut)(key, batch)["image"]}
    augmented = ready(augment.compose(*case.config.augment), key, rows)
    wall, _ = take_turns({"step": step.run, "views": views, "augment": augmented}, rounds)
    seconds = {name: statistics.median(each) for name, each in wall.items()}
    return case._asdict() | shares(**seconds)


def ready(function: Callable, *inputs: Any) -> Callable[[], Any]:
    """() -> the function's result for `inputs`, once it is there; compiled."""
    program = jax.jit(function).lower(*inputs).compile()
    return lambda: jax.block_until_ready(program(*inputs))


def shares(step: float, views: float, augment: float) -> dict[str, float]:
    """Seconds of a step without augmentations, of its masks and views, and of augmentations; the shares of all three."""
    return {
        "step_s": step,
        "views_s": views,
        "views_share": views / step,
        "augment_s": augment,
        "augment_share": augment / (step + augment),
    }


def seen(method: str, options: Any, key: jax.Array, batch: Batch) -> Any:
    """What `method` makes of its images before the network sees them; `key` is that of the objective.

    SimCLR's pairs are two crops that the host reads: nothing is made on the device.
    """
    image = batch["image"]
    if method == "voco":
        return voco.cut(key, batch, grid=options.grid, targets=options.targets)
    if method == "simclr":
        return image
    if method == "swinunetr":
        turn_key, cut_key, _ = jax.random.split(key, 3)
        both = jnp.concatenate([image] * contrast.VIEWS)
        turns = jax.random.randint(turn_key, (len(both),), 0, contrast.TURNS)
        halves = zip(jax.random.split(cut_key), jnp.split(contrast.turn(both, turns, options.axes), 2))
        return jnp.concatenate([swin.cut_out(k, half, options) for k, half in halves])
    own_key, _ = jax.random.split(key)
    if method == "genesis":
        return jax.vmap(lambda k, x: genesis.pair(k, x, options))(
            jax.random.split(own_key, len(image)), image
        )
    if method == "fusion":
        pairs = image.reshape(-1, fusion.PAIR, *image.shape[1:])
        keys = jax.random.split(own_key, len(pairs))
        target = jax.vmap(lambda k: fusion.draw_tiles(k, image.shape[1:4], options))(keys)
        return fusion.mixed(pairs[:, 0], pairs[:, 1], target, options.classes)
    hidden = masked.block_mask(own_key, image.shape[:4], options.block, options.ratio)
    return jnp.where(hidden[..., None], jnp.zeros((), image.dtype), image)


HEADS = {
    "steps": f"{'method':<8}{'x y z':<13}{'width':>6}{'ours s':>8}{'torch s':>9}{'ratio':>7}{'CPU ratio':>11}"
    f"{'volumes/s':>11}{'torch':>8}{'compile s':>11}",
    "shares": f"{'method':<11}{'x y z':<13}{'width':>6}{'step s':>8}{'views s':>9}{'share':>8}{'augment s':>11}{'share':>8}",
}


def steps_line(row: dict[str, Any]) -> str:
    return (
        f"{row['method']:<8}{' '.join(map(str, row['size'])):<13}{row['width']:>6}{row['ours_s']:8.2f}"
        f"{row['theirs_s']:9.2f}{row['ratio']:7.2f}{row['cpu_ratio']:11.2f}{row['ours_volumes_per_s']:11.3f}"
        f"{row['theirs_volumes_per_s']:8.3f}{row['compile_s']:11.1f}"
    )


def shares_line(row: dict[str, Any]) -> str:
    return (
        f"{row['method']:<11}{' '.join(map(str, row['size'])):<13}{row['width']:>6}{row['step_s']:8.2f}"
        f"{row['views_s']:9.3f}{row['views_share']:8.1%}{row['augment_s']:11.3f}{row['augment_share']:8.1%}"
        f"{'' if row['views_share'] <= GOAL else '  above ' + format(GOAL, '.0%')}"
    )


LINES = {"steps": steps_line, "shares": shares_line}

if __name__ == "__main__":
    main()
