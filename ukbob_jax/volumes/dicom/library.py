"""pydicom, an extra: imported where it is needed, and kept quiet."""

import contextlib
import warnings
from collections.abc import Iterator
from types import ModuleType

from ukbob_jax.errors import ConfigError


def library() -> ModuleType:
    """pydicom, which plain installations do without.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise ConfigError(
            "Reading DICOM needs pydicom, which is not installed: pip install 'ukbob-jax[dicom]'."
        ) from error
    return pydicom


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep remarks of libraries off the terminal: they repeat what the header says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
