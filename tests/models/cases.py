"""The reference configurations of `swin_unetr/README.md`: weights and inputs are formulas, outputs are MONAI's."""

import functools
import importlib.util
import json
import pathlib

import jax
import numpy as np

from ukbob_jax import weights
from ukbob_jax.models.swin_unetr.network import SwinUNETR

OURS = {  # what the JSON's MONAI arguments become
    "D": {"depths": (1, 2, 1, 1), "window_size": (4, 7, 5)},
    "E": {"downsample": "merging_legacy"},
}


def formulas(reference: pathlib.Path):
    """The reference pack's `refcommon.py`."""
    spec = importlib.util.spec_from_file_location("refcommon", reference / "refcommon.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Case:
    """One configuration with its weights, input and MONAI's results, axes ours unless said."""

    def __init__(self, reference: pathlib.Path, tag: str):
        self.formulas, self.tag, self.folder = formulas(reference), tag, reference / "swin_unetr"
        self.facts = json.loads((self.folder / f"swin_{tag}.json").read_text())
        config = self.facts["config"]
        self.seed, self.shape = (
            config["seed"],
            (config["batch"], config["model"]["in_channels"], *config["spatial"]),
        )
        self.model = SwinUNETR(**{**config["model"], **OURS.get(tag, {})})

    @functools.cached_property
    def state_dict(self):
        return self.formulas.formula_state_dict(self.facts["state_dict_shapes"], self.seed)

    @functools.cached_property
    def params(self):
        return weights.from_monai(self.state_dict, self.model)

    @functools.cached_property
    def image(self):
        return np.moveaxis(self.formulas.formula_input(self.shape, self.seed), 1, -1)

    @functools.cached_property
    def expected(self):
        return dict(np.load(self.folder / f"swin_{self.tag}_outputs.npz"))

    def thinned(self, x, like):
        """`x` (b x y z c) in MONAI's layout, at the voxels the reference keeps in `like`."""
        x = np.moveaxis(np.asarray(x), -1, 1)
        return x if x.shape == like.shape else self.formulas.subsample(x)

    @functools.cached_property
    def results(self):
        """Our logits and the encoder's five maps."""

        def both(params, x):
            logits = self.model.apply({"params": params}, x)
            return logits, self.model.apply({"params": params}, x, method="hidden")

        return jax.device_get(jax.jit(both)(self.params, self.image))
