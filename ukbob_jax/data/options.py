"""How batches are made: which crops, what labels, read how. Fields, defaults and checks, written once."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax.errors import ConfigError

Config = Any  # an ml_collections.ConfigDict, whose fields have no types
Size = tuple[int, int, int]  # voxels, x y z
ACTIONS = ("ignore", "drop", "background")
SAMPLING = ("balanced", "nnunet")


@dataclasses.dataclass(frozen=True)
class Crops:
    """Where crops lie.

    Attributes:
        size: voxels, x y z.
        foreground: fraction of crops centred on a voxel of a class, classes drawn equally.
        sampling: "balanced": every crop is centred with the chance `foreground`, and moved to lie inside the scan.
            "nnunet": the last rows of each batch are, from round(batch size (1 - foreground)) on, and a centred crop may
            reach beyond the upper ends of the scan, where image and label are 0 (background).
        views: crops of each sample, as neighbouring rows of the batch.
        max_shift: voxels by which the start of the other views may differ from that of the first, along each axis; 0:
            the same crop several times. None: each view is drawn by itself.
    """

    size: Size
    foreground: float = 0.67
    views: int = 1
    max_shift: int | None = None
    sampling: str = "balanced"

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLING:
            raise ConfigError(f"sampling {self.sampling!r}: expected one of {', '.join(SAMPLING)}.")
        if self.sampling == "nnunet" and self.views > 1:
            raise ConfigError(f"sampling 'nnunet': places one crop of each sample, not {self.views} views.")
        if len(self.size) != 3 or min(self.size) < 1:
            raise ConfigError(f"crop {tuple(self.size)}: expected three positive numbers of voxels.")
        if not 0 <= self.foreground <= 1:
            raise ConfigError(f"foreground {self.foreground}: expected a fraction in [0, 1].")
        if self.views < 1:
            raise ConfigError(f"views {self.views}: expected 1 or more crops of each sample.")
        if self.max_shift is not None and self.max_shift < 0:
            raise ConfigError(f"max_shift {self.max_shift}: expected a number of voxels from 0, or None.")


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """What is learnt of a label set.

    Attributes:
        set: its name in the store.
        lookup: uint8[256], stored id -> id of training; None: the same.
        flagged: organs by subject whose labels are not to be trusted, as stored ids.
        action: what becomes of them: "ignore" (255), "drop" (the subject) or "background" (0).
        weights: how much an organ's label counts in the loss, from 0, by subject and stored id; ids without count 1.
            Empty: batches have no weights.
        groups: number of each person's group by subject, for losses that compare groups; subjects without one have -1.
            Empty: batches have no groups.
        num_classes: length of a batch's "annotated" and "weights".
        regions: the ids of training of each region; a region then stands for a class where crops are centred. Empty:
            classes.
    """

    set: str
    lookup: np.ndarray | None = None
    flagged: Mapping[str, Collection[int]] = dataclasses.field(default_factory=dict)
    action: str = "ignore"
    weights: Mapping[str, Mapping[int, float]] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, int] = dataclasses.field(default_factory=dict)
    num_classes: int = 73
    regions: Sequence[Sequence[int]] = ()

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ConfigError(f"flagged={self.action!r}: expected one of {', '.join(ACTIONS)}.")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How this process reads; none of it changes a batch but `packed` and what "skip" leaves out.

    Attributes:
        threads: that read batches; as many batches are held ready.
        workers: reader processes beside, for machines whose one process cannot keep up; 0: none.
        packed: leave the voxels as stored, for `unpack.unpack` to finish on the device: a third of the work here.
        cache_gb: memory in each reading process for scans kept decoded, GB. A set of scans that fits is decompressed
            once; one that does not is read anew for every crop, as few of its chunks would be met again.
        damaged: "stop", or "skip": warn of subjects with crops that cannot be read, and ignore every voxel of those
            (0 throughout where there are no labels).
        process: which consecutive part of every batch to read, of
        processes: so many.
    """

    threads: int = 16
    workers: int = 0
    packed: bool = False
    cache_gb: float = 1.0
    damaged: str = "stop"
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        if self.damaged not in ("stop", "skip"):
            raise ConfigError(f"damaged={self.damaged!r}: expected stop or skip.")
        if not self.cache_gb >= 0:
            raise ConfigError(f"cache_gb={self.cache_gb}: expected a number from 0, in GB.")
        if not 0 <= self.process < self.processes:
            raise ConfigError(f"process {self.process} is not one of {self.processes} processes.")


READING = Reading()
