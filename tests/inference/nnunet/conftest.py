import pytest

import ukbob_jax as bob


@pytest.fixture(scope="session")
def runs(reference):
    """Folder of runs that nnU-Net itself planned, trained and predicted with."""
    folder = reference / "nnunet_networks" / "runs"
    if not folder.is_dir():
        pytest.skip("no runs of nnU-Net in the reference folder")
    return folder


@pytest.fixture(scope="session")
def models(runs):
    """Name of a run -> its model, loaded once."""
    loaded = {}

    def get(run):
        if run not in loaded:
            loaded[run] = bob.nnunet.load(next((runs / run / "model").iterdir()))
        return loaded[run]

    return get
