"""dipy and SimpleITK, of the extra `dwi`."""

import importlib
from types import ModuleType

from ukbob_jax.errors import ConfigError


def load(name: str) -> ModuleType:
    """A module of dipy, such as "dipy.denoise.gibbs", or SimpleITK.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"diffusion series need {name.split('.')[0]}: pip install 'ukbob-jax[dwi]'."
        ) from error
