"""What a notebook needs, under one name: `import ukbob_jax as bob`.

Names load on first use, so that the import itself stays cheap.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "export2d": "ukbob_jax.export2d",
    "losses": "ukbob_jax.training.losses",
    "metrics": "ukbob_jax.evaluation.metrics",
    "networks": "ukbob_jax.networks",
    "nnunet": "ukbob_jax.inference.nnunet",
    "phantom": "ukbob_jax.phantom",
    "quality": "ukbob_jax.quality",
    "radiomics": "ukbob_jax.radiomics",
    "sentinel": "ukbob_jax.sentinel",
    "ssl": "ukbob_jax.training.ssl",
    "weights": "ukbob_jax.weights",
    "anatomy": "ukbob_jax.anatomy",
}
_NAMES = {
    "Segmenter": "ukbob_jax.inference.segmenter",
    "Store": "ukbob_jax.store.reader",
    "SwinUNETR": "ukbob_jax.models.swin_unetr.network",
    "Volume": "ukbob_jax.volumes.volume",
    "etta": "ukbob_jax.inference.adaptation.etta",
    "read_pair": "ukbob_jax.volumes.nifti",
    "read_volume": "ukbob_jax.volumes.nifti",
    "sliding_window": "ukbob_jax.inference.windows.sliding",
    "write_volume": "ukbob_jax.volumes.nifti",
}
__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    elif name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    else:
        raise AttributeError(f"module 'ukbob_jax' has no attribute {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
