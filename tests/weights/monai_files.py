"""Weights under MONAI's names, of a small Swin-UNETR, as files of others; shared by the tests of this folder."""

import numpy as np

from ukbob_jax.models.swin_unetr import ARCHITECTURE
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.weights import tensors, torch_files

FIELDS = {"feature_size": 4, "num_heads": (1, 2, 2, 4), "window_size": 3, "depths": (1, 2, 1, 1)}
MODEL = SwinUNETR(2, 3, **FIELDS)


def state_dict(model=MODEL, seed=0):
    """Random numbers under MONAI's names and shapes, with the integer tables."""
    rng = np.random.default_rng(seed)
    want = tensors.expected(model)
    floats = {name: rng.normal(size=tensor.torch_shape).astype(np.float32) for name, tensor in want.items()}
    counts = {name: np.array(7, np.int64) for name in floats if name.endswith("num_batches_tracked")}
    return floats | counts | ARCHITECTURE.torch.buffers(model)


def write(path, tensors, **texts):
    """A file as others would leave it, without our description."""
    torch_files.save(path, {"state_dict": tensors, **texts})
    return path


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, name
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
