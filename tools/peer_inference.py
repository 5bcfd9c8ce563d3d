"""MONAI's side of `bench_inference.py`: on the CPU, or with AMP on a GPU."""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDiceMetric
from monai.networks.nets import SwinUNETR

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Constant(torch.nn.Module):
    """Logits are multiples of the scan, in next to no time."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("scales", torch.arange(classes, dtype=torch.float32)[None, :, None, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """b 1 x y z to b k x y z."""
        return x * self.scales


def network(
    classes: int, width: int, roi: list[int], state: dict[str, np.ndarray] | None = None
) -> torch.nn.Module:
    """MONAI's Swin-UNETR, with weights where given."""
    net = SwinUNETR(1, classes, feature_size=width)
    if state is not None:
        net.load_state_dict({name: torch.as_tensor(np.array(value)) for name, value in state.items()})
    net = net.eval().to(DEVICE)
    with _inference():
        net(torch.zeros((1, 1, *roi), device=DEVICE))  # the first call prepares
    return net


def windows(args: argparse.Namespace) -> torch.Tensor:
    """Noise for a call of the network."""
    return torch.randn((args.batch, 1, *args.roi), device=DEVICE)


def clock(run: Callable[[], Any], repeat: int) -> float:
    """Seconds of a run, the median of some."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        with _inference():
            run()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def slide(args: argparse.Namespace, volume: np.ndarray, net: torch.nn.Module) -> torch.Tensor:
    """Logits `1 k x y z` of a scan `x y z 1`."""
    x = torch.from_numpy(volume).permute(3, 0, 1, 2)[None].to(DEVICE)
    return sliding_window_inference(x, args.roi, args.batch, net, overlap=args.overlap, mode="gaussian")


def label(args: argparse.Namespace, volume: np.ndarray, net: torch.nn.Module, softmax: bool) -> tuple:
    """Labels; with `softmax` also what else ours gives, entropy and confidence, with as few maps as torch can."""
    with _inference():
        logits = slide(args, volume, net)
        labels = logits.argmax(1).to(torch.uint8)
        if not softmax:
            return (labels,)
        p = torch.softmax(logits, 1)
        del logits
        confidence = p.amax(1)
        return labels, confidence, torch.special.entr(p).sum(1)


def constant_network(args: argparse.Namespace, classes: int, volume: np.ndarray) -> dict[str, float]:
    """Seconds of a sliding window around a network that takes no time: logits, and labels from them."""
    net = Constant(classes).to(DEVICE)
    clock(lambda: slide(args, volume, net), 1)
    return {
        "logits": clock(lambda: slide(args, volume, net), 2),
        "labels": clock(lambda: label(args, volume, net, softmax=False), 1),
    }


def metrics(
    pred: np.ndarray, true: np.ndarray, spacing: tuple[float, ...], ours: np.ndarray, limit: float
) -> tuple[float, int, float]:
    """Dice, HD95 and surface Dice of class after class of `true`, no further ones after `limit` seconds.

    Returns:
        seconds, classes done, and the largest difference from `ours`, `3 k`.
    """
    took, done, worst = 0.0, 0, 0.0
    for c in np.unique(true)[1:]:
        if took > limit:
            break
        start = time.perf_counter()
        p, t = (torch.from_numpy((m == c)[None, None]).float() for m in (pred, true))
        values = (
            DiceMetric()(p, t),
            HausdorffDistanceMetric(include_background=True, percentile=95)(p, t, spacing=spacing),
            SurfaceDiceMetric([3.0], include_background=True)(p, t, spacing=spacing),
        )
        took, done = took + time.perf_counter() - start, done + 1
        off = [abs(float(a) - b) for a, b in zip(values, ours[:, c]) if np.isfinite(b)]
        worst = max(worst, *off)
    return took, done, worst


def _inference() -> torch.autocast:
    """No gradients, and AMP on a GPU."""
    torch.set_grad_enabled(False)
    return torch.autocast(DEVICE, enabled=DEVICE == "cuda")
