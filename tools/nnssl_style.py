"""MAE and VoCo on MONAI's Swin-UNETR in PyTorch, trained as nnssl does: what `tools/bench_pretrain.py` compares with.

Written from the formulas in docs/pretraining.md; arrays are `b c x y z`. MONAI and torch are needed (pip install
ukbob-jax[torch]).
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from monai.networks.nets import SwinUNETR
from torch import nn
from torch.nn import functional

EPSILON = 1e-6


def block_mask(batch: int, size: Sequence[int], block: int, ratio: float) -> torch.Tensor:
    """Which voxels are hidden, bool `b 1 x y z`: int(ratio n) of the n blocks of every sample."""
    grid = [n // block for n in size]
    count = math.prod(grid)
    hidden = torch.zeros(batch, count, dtype=torch.bool)
    for row in hidden:
        row[torch.randperm(count)[: int(ratio * count)]] = True
    hidden = hidden.reshape(batch, 1, *grid)
    for axis in (2, 3, 4):
        hidden = hidden.repeat_interleave(block, axis)
    return hidden


def masked_mse(prediction: torch.Tensor, image: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Mean squared error over the hidden voxels."""
    weight = hidden.to(prediction.dtype)
    return (weight * (prediction - image) ** 2).sum() / weight.sum()


def cut(
    image: torch.Tensor, grid: Sequence[int], targets: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Base crops `b n c x y z`, x slowest, further ones `b t c x y z` from anywhere, and overlaps `b t n`."""
    size = image.shape[2:]
    crop = [n // parts for n, parts in zip(size, grid)]
    corners = torch.tensor(
        list(itertools.product(*(range(0, n, side) for n, side in zip(size, crop)))), dtype=torch.long
    )
    starts = torch.stack(
        [torch.randint(n - side + 1, (len(image), targets)) for n, side in zip(size, crop)], -1
    )

    def one(volume: torch.Tensor, start: Sequence[int]) -> torch.Tensor:
        x, y, z = (slice(int(at), int(at) + side) for at, side in zip(start, crop))
        return volume[:, x, y, z]

    bases = torch.stack([torch.stack([one(volume, at) for at in corners]) for volume in image])
    others = torch.stack(
        [torch.stack([one(volume, at) for at in places]) for volume, places in zip(image, starts)]
    )
    shared = (torch.tensor(crop) - (starts[:, :, None] - corners).abs()).clamp(min=0)
    return bases, others, shared.prod(-1).float() / math.prod(crop)


def voco_loss(base: torch.Tensor, target: torch.Tensor, overlap: torch.Tensor) -> torch.Tensor:
    """nnssl's form: `b n d`, `b t d`, `b t n` to a scalar; the bases are constants but in the regulariser."""

    def similarity(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return functional.relu(
            functional.normalize(one, dim=-1) @ functional.normalize(other, dim=-1).transpose(1, 2)
        )

    s, apart = similarity(target, base.detach()), overlap == 0
    near = -(overlap * torch.log(1 - (overlap - s).abs() + EPSILON)).sum() / overlap.sum()
    far = (s[apart] ** 2).sum() / (apart.sum() + EPSILON * overlap.numel())
    pairs = similarity(base, base)
    n = pairs.shape[-1]
    different = ~torch.eye(n, dtype=torch.bool)
    return near + far + pairs[:, different].mean()


class VoCo(nn.Module):
    """The encoder of Swin-UNETR and the projection: crops `m c x y z` to vectors `m width`."""

    def __init__(self, width: int, projection: int) -> None:
        super().__init__()
        self.encoder = SwinUNETR(1, 1, feature_size=width).swinViT
        features = sum(width * 2**level for level in range(5))
        layers: list[nn.Module] = []
        for inner in (features, projection):
            layers += [
                nn.Linear(inner, projection),
                nn.LayerNorm(projection, elementwise_affine=False),
                nn.ReLU(),
            ]
        self.head = nn.Sequential(*layers, nn.Linear(projection, projection))

    def forward(self, crops: torch.Tensor) -> torch.Tensor:  # noqa: D102 - PyTorch calls it
        maps = self.encoder(crops, normalize=True)
        return self.head(torch.cat([level.mean((2, 3, 4)) for level in maps], dim=1))

    def loss(self, bases: torch.Tensor, others: torch.Tensor, overlap: torch.Tensor) -> torch.Tensor:
        """Of what `cut` gives."""
        rows = torch.cat([bases, others], 1)
        vectors = self(rows.flatten(0, 1)).reshape(*rows.shape[:2], -1)
        n = bases.shape[1]
        return voco_loss(vectors[:, :n], vectors[:, n:], overlap)


def mae_step(image: torch.Tensor, width: int, block: int, ratio: float, **optimizer: float) -> Callable:
    """() -> None, one training step on `image` `b c x y z`."""
    network = SwinUNETR(1, 1, feature_size=width)

    def loss() -> torch.Tensor:
        hidden = block_mask(len(image), image.shape[2:], block, ratio)
        return masked_mse(network(image.masked_fill(hidden, 0)), image, hidden)

    return _step(network, loss, **optimizer)


def voco_step(
    image: torch.Tensor, width: int, projection: int, grid: Sequence[int], targets: int, **optimizer: float
) -> Callable:
    """() -> None, one training step on `image` `b c x y z`."""
    network = VoCo(width, projection)
    return _step(network, lambda: network.loss(*cut(image, grid, targets)), **optimizer)


def _step(
    network: nn.Module,
    loss: Callable[[], torch.Tensor],
    learning_rate: float,
    weight_decay: float,
    b2: float,
    clip_norm: float,
) -> Callable[[], None]:
    network.train()
    adamw = torch.optim.AdamW(
        network.parameters(), lr=learning_rate, weight_decay=weight_decay, betas=(0.9, b2)
    )

    def step() -> None:
        adamw.zero_grad(set_to_none=True)
        loss().backward()
        nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
        adamw.step()

    return step
