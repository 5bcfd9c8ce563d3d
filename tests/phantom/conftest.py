import numpy as np
import pytest

from ukbob_jax import phantom

SHAPE = (96, 96, 96)
SMALL = (48, 32, 96)


@pytest.fixture(scope="session")
def man():
    return phantom.subject(3, SHAPE, sex="M")


@pytest.fixture(scope="session")
def cohort():
    """Label maps of 24 subjects, n x y z."""
    return np.stack([phantom.label_map(seed, SMALL) for seed in range(24)])
