"""The reference networks of `nnunet_networks/README.md`: weights and inputs are formulas, outputs are the originals'."""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.models.cases import formulas
from ukbob_jax import weights


class Original:
    """One configuration with its weights, input and the original's results; axes ours unless said."""

    def __init__(self, reference: pathlib.Path, tag: str, build: Callable[[dict[str, Any]], Any]):
        self.formulas, self.tag, self.folder = formulas(reference), tag, reference / "nnunet_networks"
        self.facts = json.loads((self.folder / f"{tag}.json").read_text())
        self.config = self.facts["config"]
        self.seed = self.config["seed"]
        self.model = build(self.config)

    def tensor(self, name, shape):
        array = self.formulas.formula_tensor(name, shape, self.seed).reshape(shape)
        shift = sum(by for end, by in self.facts["weight_shifts"] if name.endswith(end))
        return array * np.float32(2.0**shift)

    @functools.cached_property
    def state_dict(self):
        """As the original's, every name of each tensor among them."""
        once = {name: self.tensor(name, shape) for name, shape in self.facts["parameter_shapes"].items()}
        copies = {name: once[first] for name, first in self.facts["state_dict_aliases"].items()}
        buffers = self.facts["state_dict_buffers"].items()
        return once | copies | {name: np.zeros(facts["shape"], np.float32) for name, facts in buffers}

    @functools.cached_property
    def params(self):
        return weights.from_torch(self.state_dict, self.model)

    @functools.cached_property
    def image(self):
        shape = (self.config["batch"], self.config["in_channels"], *self.config["spatial"])
        return np.moveaxis(self.formula(shape, self.seed), 1, -1)

    def formula(self, shape, seed):
        """Slices are volumes of one voxel along the last axis."""
        if len(shape) == 4:
            return self.formulas.formula_input((*shape, 1), seed)[..., 0]
        return self.formulas.formula_input(shape, seed)

    @functools.cached_property
    def expected(self):
        return dict(np.load(self.folder / f"{self.tag}_outputs.npz"))

    def thinned(self, logits):
        """Each of `logits` (b x y z k) in the original's layout, at the voxels the reference keeps."""
        steps = self.facts["sub_steps"]
        assert len(steps) == len(logits)
        return [
            np.moveaxis(np.asarray(one), -1, 1)[(..., *(slice(s // 2, None, s),) * (one.ndim - 2))]
            for one, s in zip(logits, steps)
        ]

    @functools.cached_property
    def results(self):
        """Our logits in float32, finest first."""
        run = jax.jit(functools.partial(self.model.apply, deep=True))
        return self.thinned(run({"params": self.params}, self.image))

    @functools.cached_property
    def results64(self):
        """Logits, loss and its gradient by the original's names, in float64."""
        model = self.model.clone(dtype=jnp.float64)
        shapes = [facts["shape"] for facts in self.facts["outputs"]]
        targets = [np.moveaxis(self.formula(s, self.seed + 5000 + i), 1, -1) for i, s in enumerate(shapes)]

        def loss(params, x):
            logits = model.apply({"params": params}, x, deep=True)
            return sum(
                0.5**i * jnp.square(y - t).mean() for i, (y, t) in enumerate(zip(logits, targets))
            ), logits

        with jax.enable_x64(True):
            wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), self.params)
            run = jax.jit(jax.value_and_grad(loss, has_aux=True))
            (value, logits), gradient = run(wide, jnp.asarray(self.image, jnp.float64))
            return self.thinned(logits), float(value), weights.to_torch(gradient, model)


def check_names(original):
    """Names, shapes and numbers of parameters are the original's, and every tensor comes back bit for bit."""
    facts = original.facts
    leaves = jax.tree.leaves(original.params)
    assert sum(leaf.size for leaf in leaves) == facts["parameters"] and len(leaves) == len(
        facts["parameter_shapes"]
    )
    again = weights.to_torch(original.params, original.model)
    assert {name: list(array.shape) for name, array in again.items()} == facts["state_dict_shapes"]
    for name, array in original.state_dict.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def check_logits(original, most=4e-5):
    """In float32 within `most`, and 1e-5 on average; PyTorch's own are up to 5e-6, of deep ones 2e-5, off its float64."""
    for i, ours in enumerate(original.results):
        off = np.abs(ours - original.expected[f"out{i}"])
        assert off.max() <= most and off.mean() <= 1e-5, (i, off.max(), off.mean())


def check_gradients(original):
    """In float64: logits within 1e-6 (they are stored as float32), the loss, and every gradient within 1e-6 of its norm."""
    logits, loss, gradient = original.results64
    facts = original.facts["gradients"]
    for i, ours in enumerate(logits):
        np.testing.assert_allclose(ours, original.expected[f"out{i}_64"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(loss, facts["loss64"], rtol=1e-8)
    none = {*facts["zero_in_theory"], *facts["without_gradient"]}
    worst = {}
    for name in original.facts["parameter_shapes"]:
        l2 = np.sqrt(np.square(gradient[name]).sum())
        if name in none:
            assert l2 <= 1e-6 * facts["largest_l2"], name
            continue
        theirs = facts["grads64"][name]
        assert gradient[name].dtype == np.float64
        off = max(abs(l2 - theirs["l2"]), abs(original.formulas.projection(gradient[name]) - theirs["proj"]))
        worst[name] = off / theirs["l2"]
    name = max(worst, key=lambda name: worst[name])
    print(f"{original.tag}: worst relative difference of a gradient {worst[name]:.1e}, {name}")
    assert worst[name] < 1e-6, name
