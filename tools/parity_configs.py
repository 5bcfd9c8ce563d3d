"""Random configurations of the networks of the nnU-Net family: arguments of the PyTorch classes, as JSON values.

Small, so that a comparison takes seconds, and unlike each other: axes, depths, kernels, strides and layers all vary.
"""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Draw = np.random.Generator
VOXELS = {2: 6000, 3: 24000}  # of a volume, about


class Configuration(NamedTuple):
    """One network and its input."""

    kind: str  # PyTorch's class
    channels: int
    classes: int
    batch: int
    size: tuple[int, ...]  # voxels, x y z or x y
    arguments: dict[str, Any]  # of the class, without channels, classes and, of a Primus, `input_shape`


def drawn(network: str, number: int) -> Configuration:
    """The configuration of this number: always the same one."""
    rng = np.random.default_rng([number, zlib.crc32(network.encode())])
    return NETWORKS[network](rng)


def plain_unet(rng: Draw) -> Configuration:
    found = _of_plans(rng, "PlainConvUNet", "n_conv_per_stage")
    if rng.random() < 0.2:
        found.arguments["nonlin_first"] = True
    return found


def resenc_unet(rng: Draw) -> Configuration:
    found = _of_plans(rng, "ResidualEncoderUNet", "n_blocks_per_stage")
    stages = found.arguments["n_stages"]
    if rng.random() < 0.4:
        widths = _per_stage(rng, stages, 2, 6)
        found.arguments.update(block="BottleneckD", bottleneck_channels=widths)
    if rng.random() < 0.4:
        found.arguments["stem_channels"] = int(rng.integers(3, 9))
    return found


def stunet(rng: Draw) -> Configuration:
    stages = int(rng.integers(3, 7))
    strides, size = _strides(rng, 3, stages)
    arguments = {
        "depth": [int(n) for n in rng.integers(1, 3, stages)],
        "dims": _features(rng, stages),
        "pool_op_kernel_sizes": strides[1:],
        "conv_kernel_sizes": [_kernel(rng, 3) for _ in range(stages)],
    }
    # Its first stage has no strides.
    size = tuple(n // s for n, s in zip(size, strides[0]))
    return Configuration("STUNet", *_ends(rng), size, arguments)


def mednext(rng: Draw) -> Configuration:
    rank = 2 if rng.random() < 0.3 else 3
    size = [16] * rank
    for axis in rng.permutation(rank)[: rng.integers(1, 3)]:
        size[axis] = 32
    arguments: dict[str, Any] = {
        "n_channels": int(rng.integers(2, 6)),
        "exp_r": int(rng.integers(1, 5)) if rng.random() < 0.4 else [int(n) for n in rng.integers(1, 5, 9)],
        "kernel_size": int(rng.choice([3, 3, 5, 7])),
        "do_res": bool(rng.random() < 0.6),
        "do_res_up_down": bool(rng.random() < 0.6),
        "block_counts": [int(n) for n in rng.integers(0, 3, 9)],
        "norm_type": "layer"
        if rank == 3 and rng.random() < 0.25
        else "group",  # with 2d the class's "layer" fails
        "dim": f"{rank}d",
        "grn": bool(rng.random() < 0.5),
        "deep_supervision": bool(rng.random() < 0.8),
    }
    if rng.random() < 0.25:
        sides = {"enc_kernel_size": int(rng.choice([1, 3, 5])), "dec_kernel_size": int(rng.choice([3, 5]))}
        arguments |= {"kernel_size": None, **sides}
    if rng.random() < 0.2:
        arguments["checkpoint_style"] = "outside_block"
    return Configuration("MedNeXt", *_ends(rng), tuple(size), arguments)


def primus(rng: Draw) -> Configuration:
    version = int(rng.integers(1, 4))
    levels = {1: 0, 2: 3, 3: int(rng.integers(1, 4))}[version]
    patch = [2**levels] * 3 if levels else [int(2**n) for n in rng.integers(0, 4, 3)]
    if max(patch) == 1:
        patch[int(rng.integers(3))] = 4
    heads, rotary = int(rng.choice([1, 2, 3, 4])), bool(rng.random() < 0.7)
    grid = rng.integers(1, 4, 3)
    grid[rng.integers(3)] = 4 if levels < 3 else 2
    arguments: dict[str, Any] = {
        "embed_dim": heads * (6 * int(rng.integers(1, 4)) if rotary else int(rng.integers(5, 14))),
        "patch_embed_size": patch,
        "eva_depth": int(rng.integers(1, 4)),
        "eva_numheads": heads,
        "use_rot_pos_emb": rotary,
    }
    for share, name, value in (
        (0.4, "num_register_tokens", int(rng.integers(1, 5))),
        (0.3, "use_abs_pos_embed", False),
        (0.6, "init_values", [None, 0.1, 1.0][int(rng.integers(3))]),
        (0.6, "scale_attn_inner", bool(rng.random() < 0.5)),
        (0.3, "mlp_ratio", float(rng.choice([2.0, 3.3, 4.0]))),
        (0.2, "drop_path_rate", 0.3),
        (0.2, "proj_drop_rate", 0.1),
        (0.2, "attn_drop_rate", 0.2),
    ):
        if rng.random() < share:
            arguments[name] = value
    if version == 3:
        arguments |= {
            "depth_per_level": [int(n) for n in rng.integers(1, 3, levels)],
            "ch_per_level": [int(n) for n in rng.integers(3, 9, levels + 1)],
        }
        if rng.random() < 0.3:
            arguments["add_skips"] = False
    size = tuple(int(n * p) for n, p in zip(grid, patch))
    kind = "Primus" if version == 1 else f"PrimusV{version}"
    return Configuration(kind, *_ends(rng), size, arguments)


NETWORKS: dict[str, Callable[[Draw], Configuration]] = {
    function.__name__: function for function in (plain_unet, resenc_unet, stunet, mednext, primus)
}


def _of_plans(rng: Draw, kind: str, counts: str) -> Configuration:
    """What the two networks of nnU-Net's plans share."""
    rank, stages = 2 if rng.random() < 0.3 else 3, int(rng.integers(2, 8))
    strides, size = _strides(rng, rank, stages)
    arguments = {
        "n_stages": stages,
        "features_per_stage": _features(rng, stages),
        "conv_op": f"Conv{rank}d",
        "kernel_sizes": 3 if rng.random() < 0.1 else [_kernel(rng, rank) for _ in range(stages)],
        "strides": strides,
        counts: _per_stage(rng, stages, 1, 3 if stages < 5 else 2),
        "n_conv_per_stage_decoder": _per_stage(rng, stages - 1, 1, 2),
        "conv_bias": bool(rng.random() < 0.6),
    }
    return Configuration(kind, *_ends(rng), size, {**arguments, **_layers(rng, rank)})


def _layers(rng: Draw, rank: int) -> dict[str, Any]:
    norms: list[tuple[str | None, dict[str, Any] | None]] = [
        (f"InstanceNorm{rank}d", {"eps": 1e-5, "affine": True}),
        (f"InstanceNorm{rank}d", {"eps": 1e-3, "affine": True}),
        (f"InstanceNorm{rank}d", None),
        (f"BatchNorm{rank}d", {"eps": 1e-5, "affine": True}),
        (None, None),
    ]
    activations: list[tuple[str | None, dict[str, Any] | None]] = [
        ("LeakyReLU", {"inplace": True}),
        ("LeakyReLU", {"negative_slope": 0.2}),
        ("ReLU", {"inplace": True}),
        ("GELU", None),
        ("GELU", {"approximate": "tanh"}),
        ("SiLU", None),
        ("ELU", None),
        ("SELU", None),
        ("Mish", None),
        (None, None),
    ]
    norm = norms[_pick(rng, [0.5, 0.1, 0.1, 0.2, 0.1])]
    activation = activations[_pick(rng, [0.4, 0.1, 0.15, 0.1, 0.05, 0.04, 0.04, 0.04, 0.04, 0.04])]
    dropout, rate = [(None, None), (f"Dropout{rank}d", {"p": 0.3, "inplace": True}), ("Dropout", {"p": 0.1})][
        _pick(rng, [0.7, 0.2, 0.1])
    ]
    return {
        **{"norm_op": norm[0], "norm_op_kwargs": norm[1], "nonlin": activation[0], "nonlin_kwargs": activation[1]},
        **{"dropout_op": dropout, "dropout_op_kwargs": rate},
    }  # fmt: skip


def _strides(rng: Draw, rank: int, stages: int) -> tuple[list[list[int]], tuple[int, ...]]:
    """Strides of each stage, and a size that they divide, with more than one voxel left."""
    first = [1] * rank if rng.random() < 0.9 else [int(n) for n in rng.integers(1, 3, rank)]
    strides, whole = [first], np.array(first)
    for _ in range(stages - 1):
        step = np.array([rng.choice([1, 2, 2, 2, 3], p=[0.25, 0.22, 0.22, 0.22, 0.09]) for _ in range(rank)])
        while np.prod(whole * step) * 2 > VOXELS[rank] / 2:
            step[rng.integers(rank)] = 1
        strides.append([int(n) for n in step])
        whole = whole * step
    left = np.ones(rank, int)
    left[rng.integers(rank)] = 2
    for axis in rng.permutation(rank):
        left[axis] += np.prod(whole * left) / left[axis] * (left[axis] + 1) <= VOXELS[rank]
    while np.prod(whole * left) < VOXELS[rank] / 8:
        left[rng.integers(rank)] += 1
    return strides, tuple(int(n) for n in whole * left)


def _kernel(rng: Draw, rank: int) -> list[int]:
    kind = rng.random()
    if kind < 0.4:
        return [3] * rank
    if kind < 0.5:
        return [int(rng.choice([1, 5, 7]))] * rank
    return [int(k) for k in rng.choice([1, 3, 3, 5], size=rank, p=[0.3, 0.3, 0.3, 0.1])]


def _features(rng: Draw, stages: int) -> list[int]:
    """Narrow ones of any number, or some so wide that other kernels are taken."""
    if rng.random() < 0.3:
        return [int(n) for n in rng.choice([8, 24, 32, 33], stages)]
    return [int(n) for n in rng.integers(2, 14, stages)]


def _per_stage(rng: Draw, stages: int, least: int, most: int) -> int | list[int]:
    if rng.random() < 0.2:
        return int(rng.integers(least, most + 1))
    return [int(n) for n in rng.integers(least, most + 1, stages)]


def _ends(rng: Draw) -> tuple[int, int, int]:
    """Channels, classes, batch."""
    return int(rng.integers(1, 4)), int(rng.integers(1, 6)), int(rng.integers(1, 3))


def _pick(rng: Draw, shares: list[float]) -> int:
    return int(rng.choice(len(shares), p=shares))
