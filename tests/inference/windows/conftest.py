"""Values of MONAI's sliding window."""

import json
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def monai(reference):
    """Cases, outputs, and the script with the input's formula."""
    folder = reference / "sliding_window"
    sys.path[:0] = [str(reference), str(folder)]
    import make_sliding_window

    del sys.path[:2]
    return (
        json.loads((folder / "sliding_window.json").read_text()),
        np.load(folder / "sliding_window_outputs.npz"),
        make_sliding_window,
    )
