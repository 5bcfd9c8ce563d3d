"""Values of the released Quality Sentinel in the reference pack."""

import importlib.util
import json
import pathlib
from types import ModuleType
from typing import Any

import numpy as np

MODEL = "model.json"


def refcommon(reference: pathlib.Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("refcommon", reference / "refcommon.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def facts(reference: pathlib.Path, name: str) -> dict[str, Any]:
    return json.loads((reference / "sentinel" / name).read_text())


def arrays(reference: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(reference / "sentinel" / "sentinel.npz") as file:
        return dict(file)


def state_dict(reference: pathlib.Path) -> dict[str, np.ndarray]:
    """Weights by the pack's formula; running variances like the scale of a norm."""
    formulas, seed = refcommon(reference), facts(reference, MODEL)["input"]["weights_seed"]
    found = {}
    for name, shape in facts(reference, MODEL)["state_dict_shapes"].items():
        if name.endswith("num_batches_tracked"):
            found[name] = np.zeros((), np.int64)
            continue
        found[name] = formulas.formula_tensor(name, shape, seed)
        if name.endswith("running_var"):
            found[name] = (1 + 0.25 * 8 * found[name].astype(np.float64)).astype(np.float32)
    return found


def inputs(reference: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Slices b h w 2 and embeddings b e of the pack's formula."""
    said = facts(reference, MODEL)["input"]
    n, _, h, w = said["shape"]
    rng = np.random.RandomState(said["image_seed"])
    image = rng.randint(-512, 513, size=(n, h, w), dtype=np.int64) / 256.0
    blocks = rng.randint(0, 2, size=(n, -(-h // 8), -(-w // 8)), dtype=np.int64)
    mask = np.repeat(np.repeat(blocks, 8, 1), 8, 2)[:, :h, :w] * 2.0 - 1.0
    rng = np.random.RandomState(said["embedding_seed"])
    embedding = rng.randint(-256, 257, size=(n, 512), dtype=np.int64) / 512.0
    return np.stack([image, mask], -1).astype(np.float32), embedding.astype(np.float32)
