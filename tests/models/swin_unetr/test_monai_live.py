"""Configurations beyond the stored ones, against MONAI itself (minutes; needs the `torch` extra)."""

import dataclasses

import jax
import numpy as np
import pytest

from ukbob_jax import weights
from ukbob_jax.models.swin_unetr.network import SwinUNETR

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
nets = pytest.importorskip("monai.networks.nets")

NARROW = {"feature_size": 12, "depths": (1, 1, 1, 1)}
# name: our fields, MONAI's arguments where they differ, size x y z
CASES = {
    "window 5, 6 blocks": ({"feature_size": 12, "depths": (2, 2, 6, 2), "window_size": 5}, {}, (64, 32, 64)),
    "three channels, width 24": ({"feature_size": 24, "in_channels": 3}, {}, (96, 64, 32)),
    "v2, mergingv2": ({**NARROW, "use_v2": True, "downsample": "mergingv2"}, {}, (32, 64, 32)),
    "patch norm, one head": ({**NARROW, "patch_norm": True, "num_heads": (1, 2, 3, 4)}, {}, (64, 64, 32)),
    "even window, depth 3": ({**NARROW, "depths": (3, 2, 1, 1), "window_size": (6, 2, 8)}, {}, (64, 32, 96)),
    "dropout in evaluation": (
        {**NARROW, "drop_rate": 0.3, "attn_drop_rate": 0.2, "dropout_path_rate": 0.4, "mlp_ratio": 2.0},
        {},
        (64, 32, 32),
    ),
    "as many channels as features": ({**NARROW, "in_channels": 12, "qkv_bias": False}, {}, (32, 32, 64)),
    "batch": ({**NARROW, "norm": "batch"}, {}, (64, 32, 32)),
    "batch, not affine": (
        {**NARROW, "norm": "batch", "norm_affine": False},
        {"norm_name": ("batch", {"affine": False})},
        (64, 32, 32),
    ),
    "instance, affine": (
        {**NARROW, "norm": "instance_affine", "use_v2": True},
        {"norm_name": ("instance", {"affine": True})},
        (64, 32, 32),
    ),
    "group": (
        {**NARROW, "norm": "group", "norm_groups": 3},
        {"norm_name": ("group", {"num_groups": 3})},
        (64, 32, 32),
    ),
    "group, not affine, long windows": (
        {
            **{"feature_size": 12, "depths": (2, 1, 3, 1), "window_size": (1, 4, 9)},
            **{"norm": "group", "norm_groups": 6, "norm_affine": False},
        },
        {"norm_name": ("group", {"num_groups": 6, "affine": False})},
        (64, 32, 96),
    ),
    "width 36, five channels, one class, batch": (
        {"feature_size": 36, "in_channels": 5, "out_channels": 1, "depths": (1, 1, 1, 1), "norm": "batch"},
        {},
        (32, 64, 32),
    ),
}  # fmt: skip
ONLY_OURS = ("norm", "norm_groups", "norm_affine")


def pair(fields, arguments):
    """Our model and MONAI's, which is given random weights that matter everywhere."""
    fields = {"in_channels": 1, "out_channels": 3, "norm": "instance", **fields}
    ours = SwinUNETR(**fields)
    same = {name: value for name, value in fields.items() if name not in ONLY_OURS}
    torch.manual_seed(0)
    theirs = nets.SwinUNETR(**same, **{"norm_name": fields["norm"], **arguments}).eval()
    with torch.no_grad():
        for name, tensor in theirs.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point() and tensor.ndim == 1:
                tensor.add_(0.2 * torch.randn_like(tensor))
            elif name.endswith("relative_position_bias_table"):
                tensor.normal_()
    return ours, theirs


def image(model, size, batch=1):
    return np.random.default_rng(0).normal(size=(batch, model.in_channels, *size)).astype(np.float32)


def named(theirs):
    return {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}


@pytest.mark.parametrize("name", CASES)
def test_evaluation_equals_monai(name):
    fields, arguments, size = CASES[name]
    ours, theirs = pair(fields, arguments)
    x = image(ours, size)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    variables = {
        "params": weights.from_monai(named(theirs), ours),
        **weights.state_from_torch(named(theirs), ours),
    }
    y = np.moveaxis(np.asarray(jax.jit(ours.apply)(variables, np.moveaxis(x, 1, -1))), -1, 1)
    difference = np.abs(y - expected)
    print(f"{name}: max {difference.max():.1e}, mean {difference.mean():.1e}, deviation {expected.std():.2f}")
    np.testing.assert_allclose(y, expected, atol=3e-5 * expected.std())


@pytest.mark.parametrize("downsample", ["merging", "mergingv2"])
def test_hidden_maps_of_odd_sizes_equal_monai(downsample):
    """The encoder alone takes any size: 41 x 56 x 74 has odd maps at every stage."""
    ours, theirs = pair({**NARROW, "downsample": downsample, "window_size": (3, 7, 4)}, {})
    x = image(ours, (41, 56, 74))
    with torch.no_grad():
        expected = theirs.swinViT(torch.from_numpy(x), True)
    params = weights.from_monai(named(theirs), ours)
    apply = jax.jit(lambda p, x: ours.apply({"params": p}, x, method="hidden"))
    for mine, his in zip(apply(params, np.moveaxis(x, 1, -1)), expected):
        np.testing.assert_allclose(np.moveaxis(np.asarray(mine), -1, 1), his.numpy(), atol=3e-5)


def test_sizes_between_multiples_equal_monai_on_the_padded_input():
    ours, theirs = pair(NARROW, {})
    x = image(ours, (40, 56, 72))
    padded = np.pad(x, ((0, 0), (0, 0), (0, 24), (0, 8), (0, 24)))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(padded)).numpy()[:, :, :40, :56, :72]
    y = jax.jit(ours.apply)({"params": weights.from_monai(named(theirs), ours)}, np.moveaxis(x, 1, -1))
    np.testing.assert_allclose(np.moveaxis(np.asarray(y), -1, 1), expected, atol=3e-5)


def test_a_training_step_of_batch_norm_equals_monai():
    ours, theirs = pair({**NARROW, "norm": "batch"}, {})
    x = image(ours, (64, 32, 32), batch=2)
    start = named(theirs)
    variables = {"params": weights.from_monai(start, ours), **weights.state_from_torch(start, ours)}
    y, state = jax.jit(lambda v, x: ours.apply(v, x, train=True, mutable=["batch_stats"]))(
        variables, np.moveaxis(x, 1, -1)
    )
    with torch.no_grad():
        expected = theirs.train()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(np.moveaxis(np.asarray(y), -1, 1), expected, atol=5e-5)
    after = weights.to_monai(variables["params"], ours, state)
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_allclose(after[name], tensor.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_gradients_equal_monais_where_nothing_is_default():
    """In float64, where both are exact to rounding; sizes padded inside, odd depths, clipped windows."""
    unusual = {"patch_norm": True, "qkv_bias": False, "normalize": False, "downsample": "mergingv2"}
    fields = {
        **unusual,
        "feature_size": 12,
        "in_channels": 3,
        "depths": (3, 1, 2, 1),
        "window_size": (8, 7, 3),
    }
    ours, theirs = pair({**fields, "norm": "instance_affine"}, {"norm_name": ("instance", {"affine": True})})
    theirs = theirs.double()
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(1, 3, 40, 64, 32)), rng.normal(size=(1, 3, 40, 64, 32))
    padded = np.pad(x, ((0, 0), (0, 0), (0, 24), (0, 0), (0, 0)))
    (theirs(torch.from_numpy(padded))[:, :, :40] * torch.from_numpy(weight)).mean().backward()
    with jax.enable_x64(True):
        model = dataclasses.replace(ours, dtype=np.float64)
        params = jax.tree.map(np.float64, weights.from_monai(named(theirs), ours))
        image_, cotangent = np.moveaxis(x, 1, -1), np.moveaxis(weight, 1, -1)
        loss = jax.jit(jax.grad(lambda p: (model.apply({"params": p}, image_) * cotangent).mean()))
        found = weights.to_monai(loss(params), ours)
    for name, tensor in theirs.named_parameters():
        expected = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()
        off = np.linalg.norm(found[name] - expected) / max(np.linalg.norm(expected), 1e-12)
        assert off < 1e-8, (name, off)


def test_our_files_load_into_monai(tmp_path):
    ours, theirs = pair({**NARROW, "norm": "batch", "use_v2": True}, {})
    start = named(theirs)
    params, state = weights.from_monai(start, ours), weights.state_from_torch(start, ours)
    weights.save(tmp_path / "w.pt", params, ours, model_state=state)
    fresh = pair({**NARROW, "norm": "batch", "use_v2": True}, {})[1]
    fresh.load_state_dict(torch.load(tmp_path / "w.pt", weights_only=True)["state_dict"], strict=True)
    for name, tensor in fresh.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), start[name])


def test_the_same_weights_differ_between_merging_forms():
    """Keys and shapes cannot tell which form a public checkpoint needs; only the answer can."""
    ours, theirs = pair(NARROW, {})
    params = {"params": weights.from_monai(named(theirs), ours)}
    x = np.moveaxis(image(ours, (64, 32, 32)), 1, -1)
    legacy = dataclasses.replace(ours, downsample="merging_legacy")
    assert np.abs(np.asarray(jax.jit(ours.apply)(params, x) - jax.jit(legacy.apply)(params, x))).max() > 0.05
