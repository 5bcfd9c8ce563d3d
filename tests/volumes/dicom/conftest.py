"""A sound archive, read and joined once."""

import pytest

from tests.volumes.dicom.dixon_archive import join, read, scanned
from ukbob_jax.volumes.dicom import dixon


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dixon.Dixon:
    return join(read(tmp_path_factory.mktemp("sound"), scanned()))
