"""The PyTorch classes that our networks of the nnU-Net family are made after, from their packages or checkouts."""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import torch

from tools.parity_configs import Configuration

_LAYERS = ("conv_op", "norm_op", "nonlin", "dropout_op")
_STUNET = "nnUNet-2.2/nnunetv2/training/nnUNetTrainer/STUNetTrainer.py"
_MEDNEXT = "nnunet_mednext/network_architecture/mednextv1"
_SIZES = ("patch_embed_size", "depth_per_level", "ch_per_level")


def build(configuration: Configuration, clones: dict[str, Path | None]) -> torch.nn.Module:
    """The original of a configuration, freshly drawn.

    Args:
        configuration: whose arguments are JSON values; classes are given by name.
        clones: checkouts of "MedNeXt" and "STUNet".
    Raises:
        SystemExit: a checkout is needed and not given.
    """
    kind, channels, classes = configuration.kind, configuration.channels, configuration.classes
    given = dict(configuration.arguments)
    if kind in ("PlainConvUNet", "ResidualEncoderUNet"):
        from dynamic_network_architectures.architectures import unet
        from dynamic_network_architectures.building_blocks import residual

        given |= {name: getattr(torch.nn, given[name]) for name in _LAYERS if given.get(name)}
        if "block" in given:
            given["block"] = getattr(residual, given["block"])
        return getattr(unet, kind)(
            input_channels=channels, num_classes=classes, deep_supervision=True, **given
        )
    if kind in ("MedNeXt", "STUNet"):
        clone = clones[kind]
        if clone is None:
            raise SystemExit(f"{kind}: give --{kind.lower()} the checkout it is in.")
        if kind == "STUNet":
            return _module("stunet_trainer", clone / _STUNET).STUNet(channels, classes, **given)
        return _mednext(clone).MedNeXt(channels, given.pop("n_channels"), classes, **given)
    from dynamic_network_architectures.architectures import primus

    given |= {name: tuple(given[name]) for name in _SIZES if name in given}
    return getattr(primus, kind)(
        input_channels=channels, num_classes=classes, input_shape=configuration.size, **given
    )


def _mednext(clone: Path) -> Any:
    """The module of the class; its package's own __init__ asks for all of nnU-Net v1."""
    path = clone
    for part in Path(_MEDNEXT).parts:
        path = path / part
        name = ".".join(path.relative_to(clone).parts)
        if name not in sys.modules:
            package = types.ModuleType(name)
            package.__path__ = [str(path)]
            sys.modules[name] = package
    return importlib.import_module(f"{_MEDNEXT.replace('/', '.')}.MedNextV1")


def _module(name: str, path: Path) -> Any:
    if name not in sys.modules:
        found = importlib.util.spec_from_file_location(name, path)
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]
