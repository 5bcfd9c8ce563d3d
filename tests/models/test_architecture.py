"""Networks are found by name, and nothing outside their folder or file knows one."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny_network
from tests.tiny_network import Tiny
from ukbob_jax import weights
from ukbob_jax.errors import ConfigError
from ukbob_jax.models import architecture
from ukbob_jax.models.mednext.network import MedNeXt
from ukbob_jax.models.plain_unet.network import PlainUNet
from ukbob_jax.models.primus.network import Primus
from ukbob_jax.models.resenc_unet.network import ResEncUNet
from ukbob_jax.models.stunet.network import STUNet
from ukbob_jax.models.swin_unetr import ARCHITECTURE as SWIN
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.training import optimizer
from ukbob_jax.weights import tensors

NAME = "tests.tiny_network"
SIZE = (4, 6, 8)
STAGES = {
    "n_stages": 3,
    "features_per_stage": (4, 6, 6),
    "strides": (1, (2, 1, 2), 2),
    "n_conv_per_stage_decoder": 1,
}
NETWORKS = {
    "swin_unetr": SwinUNETR(
        2, 3, feature_size=4, num_heads=(1, 2, 2, 4), depths=(1,) * 4, deep_supervision=2
    ),
    "mednext": MedNeXt(
        2, 3, n_channels=4, block_counts=(1,) * 9, grn=True, kernel_size=3, do_res_up_down=True
    ),
    "primus": Primus(  # with positions it takes one size only
        2,
        3,
        12,
        (4, 4, 4),
        (4, 4, 4),
        3,
        1,
        2,
        2,
        False,
        False,
        depth_per_level=(1, 1),
        ch_per_level=(2, 4, 4),
    ),
    "plain_unet": PlainUNet(2, 3, **STAGES, n_conv_per_stage=1, deep_supervision=True),
    "resenc_unet": ResEncUNet(2, 3, **STAGES, n_blocks_per_stage=1, deep_supervision=True),
    "stunet": STUNet(2, 3, depth=1, dims=(4, 6, 6), pool_op_kernel_sizes=2, deep_supervision=True),
    NAME: Tiny(2, 3, width=5, deep_supervision=1),
}


def variables(model, seed=0):
    shape = architecture.of(model).input_shape(model)
    return model.init(jax.random.key(seed), jnp.zeros(shape, jnp.float32))


def numbers(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_a_network_says_holds(name):
    """The contract of every architecture."""
    model, said = NETWORKS[name], architecture.find(name)
    assert architecture.of(model) is said and said.name == name
    fields = json.loads(json.dumps(said.fields(model)))
    again = said.build(fields)
    assert again == model and hash(again) is not None  # compiled programs are kept per model
    shapes = tensors.variables(model)
    paths = [optimizer.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes["params"])]
    stages = said.stages_of(model)
    assert {optimizer.depth(path, stages) for path in paths} == {depth for _, depth in stages}
    parts = {part: set(filter(pattern_of(pattern), paths)) for part, pattern in said.parts.items()}
    assert all(parts.values()) and parts["head"].isdisjoint(parts["encoder"])
    x = jax.ShapeDtypeStruct((1, *(2 * n for n in said.multiple(model)), 2), jnp.float32)
    logits = jax.eval_shape(lambda v, x: model.apply(v, x, train=True), shapes, x)
    logits = logits if isinstance(logits, list) else [logits]
    for strides, maps in zip(said.strides(model), logits, strict=True):
        assert maps.shape == (1, *(n // s for n, s in zip(x.shape[1:4], strides)), 3)
    assert jax.eval_shape(lambda v, x: model.apply(v, x), shapes, x).shape == (*x.shape[:4], 3)
    maps = jax.eval_shape(lambda v, x: model.apply(v, x, method=said.features), shapes, x)
    assert maps[0].shape[1] >= maps[1].shape[1] and maps[0].shape[3] > maps[1].shape[3]


def pattern_of(pattern):
    return re.compile(pattern).search


@pytest.mark.parametrize(
    "name", ["", "unet", "blocks", "kernels", "os", "../os", "no.such.module", "os.path"]
)
def test_unknown_networks_are_refused_with_those_there_are(name):
    with pytest.raises(
        ConfigError, match=r"unknown: there are .*swin_unetr.*, or the module path of your own"
    ):
        architecture.find(name)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "network.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"'mylab.network' needs 'no_such_package', which is not installed"):
        architecture.find("mylab.network")


def test_a_network_whose_name_is_another_is_refused(monkeypatch):
    monkeypatch.setattr(tiny_network, "ARCHITECTURE", tiny_network.ARCHITECTURE._replace(name="swin_unetr"))
    with pytest.raises(ConfigError, match=r"its ARCHITECTURE is called 'swin_unetr'"):
        architecture.find(NAME)


def test_a_module_that_says_nothing_is_refused_by_its_class():
    with pytest.raises(ConfigError, match=r"Bands: tests.inference.networks has no constant ARCHITECTURE"):
        from tests.inference.networks import Bands

        architecture.of(Bands())


def test_dropout_is_switched_off_by_the_architecture():
    model = SwinUNETR(1, 2, drop_rate=0.1, attn_drop_rate=0.2, dropout_path_rate=0.3)
    assert SWIN.without_dropout(model) == SwinUNETR(1, 2)
    assert architecture.of(Tiny(1, 2)).without_dropout(Tiny(1, 2, shake_rate=0.5)) == Tiny(1, 2)


def test_the_logits_are_those_of_the_same_network_in_torch():
    """With kernels (out, in, z, y, x): axes are the network's own."""
    torch = pytest.importorskip("torch")
    model = NETWORKS[NAME]
    params = jax.tree.map(lambda leaf: numbers(leaf.shape, leaf.size), variables(model)["params"])
    named = {name: torch.tensor(array) for name, array in weights.to_torch(params, model).items()}
    x = numbers((2, *SIZE, 2))
    f = torch.nn.functional

    def stage(y, name):
        y = f.conv3d(y, named[f"backbone.{name}.weight"], named[f"backbone.{name}.bias"], padding=1)
        norm = f"backbone.{name}.norm."
        return f.leaky_relu(
            f.instance_norm(y, weight=named[norm + "weight"], bias=named[norm + "bias"]), 0.01
        )

    y = torch.tensor(x.transpose(0, 4, 3, 2, 1).copy())  # b c z y x
    fine = stage(y, "fine")
    coarse = f.interpolate(stage(f.avg_pool3d(fine, (2, 2, 1)), "coarse"), scale_factor=(2, 2, 1))
    logits = f.conv3d(torch.cat([fine, coarse], 1), named["seg.weight"], named["seg.bias"])
    ours = model.apply({"params": params}, x)
    np.testing.assert_allclose(ours, logits.numpy().transpose(0, 4, 3, 2, 1), atol=2e-5)
