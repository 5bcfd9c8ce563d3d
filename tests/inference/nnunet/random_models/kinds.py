"""What a random model folder is drawn from, and the kinds of folders: each makes one thing special."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

READERS = ("SimpleITKIO", "NibabelIO", "SimpleITKIOWithReorient", "NibabelIOWithReorient")
SCHEMES = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
SPLINES, TORCH = "resample_data_or_seg_to_shape", "resample_torch_fornnunet"
_TURNS = ([2, 0, 1], [1, 2, 0], [2, 1, 0], [0, 2, 1])


@dataclasses.dataclass
class Spec:
    """What a folder is made from. Numbers per axis are those of nnU-Net's arrays, after `forward`."""

    rank: int
    network: str  # class of dynamic_network_architectures
    reader: str
    schemes: list[str]  # per channel
    masked: list[bool]  # use_mask_for_norm
    forward: list[int]  # transpose_forward
    spacing: list[float]  # three, mm
    labels: dict[str, Any]
    mirror: tuple[int, ...] | None
    order: list[int] | None = None  # regions_class_order
    trainer: str = "nnUNetTrainer"
    folds: tuple[int, ...] = (0,)
    step: float = 0.5
    norm: str = "InstanceNorm"
    resampling: dict[str, tuple[str, dict]] = dataclasses.field(
        default_factory=dict
    )  # where not the planner's
    cascade: bool = False
    before_2_4: bool = False  # plans without `architecture`
    prefix: str = ""  # of the weights' names
    tiles: tuple[float, float] = (0.6, 2.2)  # size of the preprocessed scans, by that of the patch
    ratio: tuple[float, float] = (0.6, 1.6)  # spacing of the scans, by that of the plans
    scans: str = ".nii.gz"  # or .nrrd, .mha, "4d" (all channels in one file), "empty" (nothing but 0)


Change = Callable[[Spec, np.random.Generator], None]


def draw(kind: str, rng: np.random.Generator) -> Spec:
    """A spec of one kind; what the kind does not say is random too."""
    rank, channels = 3 - int(rng.random() < 0.15), int(rng.choice([1, 1, 2]))
    spacing = np.round(rng.uniform(0.7, 2.0, 3) * ((4.5, 1, 1) if rng.random() < 0.3 else 1), 4)
    spec = Spec(
        rank=rank,
        network=("PlainConvUNet", "ResidualEncoderUNet")[rng.integers(2)],
        reader=READERS[rng.choice(4, p=[0.55, 0.15, 0.15, 0.15])],
        schemes=[SCHEMES[rng.integers(2)] for _ in range(channels)],
        masked=[bool(rng.random() < 0.4) for _ in range(channels)],
        forward=list(([0, 1, 2], [1, 0, 2], [2, 0, 1])[rng.integers(3)]),  # those of the planner
        spacing=spacing.tolist(),
        labels={"background": 0, **{f"organ {i}": i for i in range(1, int(rng.integers(2, 5)))}},
        mirror=tuple(range(rank)),
    )
    for change in KINDS[kind]:
        change(spec, rng)
    return spec


def _is(**values: Any) -> Change:
    """These fields have these values."""

    def change(spec: Spec, rng: np.random.Generator) -> None:
        for name, value in values.items():
            setattr(spec, name, value)

    return change


def _one_of(**values: Any) -> Change:
    """Each of these fields has one of these values."""

    def change(spec: Spec, rng: np.random.Generator) -> None:
        for name, choices in values.items():
            setattr(spec, name, choices[rng.integers(len(choices))])

    return change


def _channels(count: int, schemes: tuple[str, ...] = SCHEMES) -> Change:
    """So many channels, with schemes in turn from a random one on."""

    def change(spec: Spec, rng: np.random.Generator) -> None:
        first = int(rng.integers(len(schemes)))
        spec.schemes = [schemes[(first + i) % len(schemes)] for i in range(count)]
        spec.masked = [bool(i % 2 == first % 2) for i in range(count)]

    return change


def _regions(spec: Spec, rng: np.random.Generator) -> None:
    """Overlapping, the smallest neither first nor last, one id in two of them written."""
    spec.labels = {"background": 0, "core": [2, 3], "whole": [1, 2, 3], "tip": 3, "rest": [1]}
    spec.order = [int(i) for i in rng.permutation([2, 1, 3, 1])]


def _ignored(spec: Spec, rng: np.random.Generator) -> None:
    top = max(max(v) if isinstance(v, list) else v for v in spec.labels.values())
    spec.labels = {"background": 0, "ignore": top + 1, **spec.labels}


def _separate(spec: Spec, rng: np.random.Generator) -> None:
    """Slices along one axis are far apart in the plans."""
    spec.spacing = [1.1, 1.3, 0.9]
    spec.spacing[int(rng.integers(3))] = float(rng.uniform(3.3, 6))


def _splines(spec: Spec, rng: np.random.Generator) -> None:
    """Orders that no planner writes."""
    for what, orders in (("data", (0, 1, 2, 3)), ("seg", (0, 1)), ("probabilities", (0, 1))):
        rules = {"is_seg": what == "seg", "order": int(rng.choice(orders))}
        rules["order_z"] = 0 if what == "seg" else int(rng.choice(orders))
        rules["force_separate_z"] = (None, True, False)[rng.integers(3)]
        spec.resampling[what] = (SPLINES, rules)


def _torch(spec: Spec, rng: np.random.Generator) -> None:
    """As nnU-Net's planners with "torchres" in their names."""
    rules: dict[str, Any] = {"is_seg": False, "force_separate_z": False, "memefficient_seg_resampling": False}
    if rng.random() < 0.6:
        rules |= {"force_separate_z": None, "mode": "linear", "aniso_axis_mode": "nearest-exact"}
    for what in ("data", "seg", "probabilities"):
        spec.resampling[what] = (TORCH, {**rules, "is_seg": what == "seg"})


_SOLID = _is(rank=3, mirror=(0, 1, 2))
KINDS: dict[str, tuple[Change, ...]] = {
    "usual": (),
    "ct": (_is(schemes=["CTNormalization"], masked=[False]),),
    "schemes": (_channels(5),),
    "mask": (_channels(2, SCHEMES[:1]),),
    "channels": (_channels(4, SCHEMES[:2]),),
    "transposed": (_is(rank=3, mirror=(0, 2)), _one_of(forward=_TURNS)),
    "separate_z": (_SOLID, _separate),
    "thick_scans": (_SOLID, _is(spacing=[1.0, 1.0, 1.2], ratio=(0.4, 5.5))),
    "regions": (_regions,),
    "regions_ignore": (_regions, _ignored),
    "ignore": (_ignored,),
    "folds": (_is(folds=(0, 1, 3)),),
    "resenc": (_is(network="ResidualEncoderUNet"),),
    "no_mirroring": (_is(mirror=None, trainer="nnUNetTrainerNoMirroring"),),
    "some_mirroring": (_is(rank=3), _one_of(mirror=((0,), (1, 2), (2,), (0, 2)))),
    "slices": (_is(rank=2), _one_of(mirror=((0, 1), (1,), None))),
    "slices_regions": (_is(rank=2, mirror=(0, 1)), _regions),
    "slices_transposed": (_is(rank=2, mirror=(0,)), _one_of(forward=_TURNS)),
    "cascade": (_SOLID, _is(cascade=True)),
    "cascade_regions": (_SOLID, _is(cascade=True), _regions),
    "cascade_separate_z": (_SOLID, _separate, _is(cascade=True)),
    "cascade_torch": (_SOLID, _torch, _is(cascade=True)),
    "cascade_folds": (_SOLID, _is(cascade=True, folds=(0, 1))),
    "cascade_mask": (_SOLID, _channels(2, SCHEMES[:1]), _is(cascade=True)),
    "small": (_is(tiles=(0.2, 0.95)),),
    "large": (_SOLID, _is(tiles=(1.5, 3.5), mirror=None)),
    "steps": (_is(tiles=(0.9, 2.5)), _one_of(step=(0.3, 0.75, 0.8, 1.0))),
    "before_2_4": (_is(before_2_4=True),),
    "prefixed": (_one_of(prefix=("module.", "_orig_mod.", "module._orig_mod.")),),
    "odd_resampling": (_splines,),
    "torch_resampling": (_torch,),
    "batch_norm": (_is(norm="BatchNorm", trainer="nnUNetTrainerBN"),),
    "primus": (
        _is(rank=3, tiles=(1.0, 2.0), mirror=(1,)),
        _one_of(trainer=[f"nnUNet_Primus{v}_Trainer" for v in ("_S", "V2S", "V3S")]),
    ),
    "other_formats": (_one_of(reader=READERS[::2], scans=(".nrrd", ".mha")),),
    "four_axes": (_channels(2, SCHEMES[:2]), _is(reader="SimpleITKIO", scans="4d")),
    "empty": (_is(scans="empty"),),
}
