"""Primus beside the classes it is made after, on configurations that the reference does not hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ukbob_jax as bob
from ukbob_jax import weights

primus = pytest.importorskip("dynamic_network_architectures.architectures.primus")
torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

CASES = {
    "no rotations, registers, unequal patches": ("Primus", 1, (16, 16, 8), {
        "embed_dim": 40, "patch_embed_size": (8, 4, 2), "eva_depth": 2, "eva_numheads": 5, "use_rot_pos_emb": False,
        "num_register_tokens": 2, "init_values": 0.2,
    }),
    "no learnt positions, another MLP": ("Primus", 2, (8, 16, 24), {
        "embed_dim": 36, "patch_embed_size": (8, 8, 8), "eva_depth": 2, "eva_numheads": 2, "use_abs_pos_embed": False,
        "mlp_ratio": 3.3, "scale_attn_inner": True,
    }),
    "a stem without projection": ("PrimusV2", 32, (16, 16, 8), {
        "embed_dim": 36, "patch_embed_size": (8, 8, 8), "eva_depth": 1, "eva_numheads": 2, "num_register_tokens": 2,
    }),
    "two halvings, no skips, no scales": ("PrimusV3", 1, (16, 8, 16), {
        "embed_dim": 24, "patch_embed_size": (4, 4, 4), "eva_depth": 1, "eva_numheads": 2, "depth_per_level": (2, 1),
        "ch_per_level": (4, 4, 6), "add_skips": False, "init_values": None, "scale_attn_inner": False,
    }),
    "four halvings": ("PrimusV3", 4, (32, 16, 16), {
        "embed_dim": 24, "patch_embed_size": (16, 16, 16), "eva_depth": 2, "eva_numheads": 2,
        "depth_per_level": (1, 1, 1, 1), "ch_per_level": (4, 4, 6, 8, 8),
    }),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_logits_and_gradients_are_the_originals(case):
    kind, channels, size, fields = CASES[case]
    torch.manual_seed(0)
    network = getattr(primus, kind)(input_channels=channels, num_classes=3, input_shape=size, **fields).eval()
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            tensor.copy_(
                0.2 * torch.randn_like(tensor) + (1.0 if "norm" in name and "weight" in name else 0.0)
            )
    model = bob.networks.build("primus", channels, 3, kind=kind, input_shape=size, **fields)
    named = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    params = weights.from_torch(named, model)
    again = weights.to_torch(params, model)
    assert set(again) == set(named)
    for name, array in named.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)

    x = np.random.default_rng(0).normal(size=(2, channels, *size))
    logits = network.double()(torch.from_numpy(x))
    logits.square().mean().backward()
    with jax.enable_x64(True):
        wide, run = (
            jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params),
            model.clone(dtype=jnp.float64),
        )

        def loss(params, x):
            found = run.apply({"params": params}, x)
            return jnp.square(found).mean(), found

        (_, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
            wide, jnp.asarray(np.moveaxis(x, 1, -1))
        )
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), logits.detach().numpy(), rtol=1e-5, atol=1e-5)
    ours = weights.to_torch(gradient, model)
    largest = max(float(p.grad.norm()) for p in network.parameters())
    for name, parameter in network.named_parameters():
        np.testing.assert_allclose(
            ours[name], parameter.grad.numpy(), rtol=1e-4, atol=1e-6 * largest, err_msg=name
        )
