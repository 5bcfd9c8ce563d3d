import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.models.blocks import Conv, Norm, PatchEmbed, ResidualBlock, Upsample
from ukbob_jax.models.swin_unetr.encoder import SwinBlock


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(2, 3, (2, 4, 5, 6, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "view", "axes"),
    [
        ("instance", (2, 4, 5, 6, 8), (1, 2, 3)),
        ("instance_affine", (2, 4, 5, 6, 8), (1, 2, 3)),
        ("layer", (2, 4, 5, 6, 8), (4,)),
        ("group", (2, 4, 5, 6, 4, 2), (1, 2, 3, 5)),
    ],
)
def test_norms_have_mean_0_and_deviation_1_over_their_axes(x, kind, view, axes):
    norm = Norm(kind)
    y = np.asarray(norm.apply(norm.init(jax.random.key(0), x), x)).reshape(view)
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axes), 1, atol=1e-4)  # epsilon takes 1e-5 of a variance near 9


def test_batch_norm_runs_as_pytorchs(x):
    """Running statistics: a tenth of the new, variance unbiased; evaluation uses them."""
    norm = Norm("batch")
    variables = norm.init(jax.random.key(0), x)
    y, after = norm.apply(variables, x, True, mutable=["batch_stats"])
    flat = x.reshape(-1, 8)
    np.testing.assert_allclose(np.asarray(y).reshape(-1, 8).mean(0), 0, atol=1e-5)
    stats = after["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)
    assert int(stats["count"]) == 1 and int(variables["batch_stats"]["count"]) == 0
    evaluated = norm.apply({**variables, "batch_stats": stats}, x)
    expected = (x - np.asarray(stats["mean"])) / np.sqrt(np.asarray(stats["var"]) + 1e-5)
    np.testing.assert_allclose(evaluated, expected, rtol=1e-5, atol=1e-5)


def test_norms_without_affine_have_no_parameters(x):
    for norm in (Norm("instance"), Norm("group", affine=False), Norm("layer", affine=False)):
        assert "params" not in norm.init(jax.random.key(0), x)


def test_patch_embedding_is_the_convolution_of_stride_two(x):
    embed = PatchEmbed(3)
    even = x[:, :, :4]
    variables = embed.init(jax.random.key(0), even)
    kernel, bias = (np.asarray(variables["params"][name]) for name in ("kernel", "bias"))
    numbers = ("NDHWC", "DHWIO", "NDHWC")
    expected = jax.lax.conv_general_dilated(even, kernel, (2, 2, 2), "VALID", dimension_numbers=numbers)
    np.testing.assert_allclose(
        embed.apply(variables, even), np.asarray(expected) + bias[None, None, None, None], atol=1e-5
    )
    assert bias.all() and np.abs(bias).max() < (8 * even.shape[-1]) ** -0.5  # drawn as PyTorch's


def test_upsampling_puts_each_voxels_product_in_its_cube(x):
    up = Upsample(3)
    variables = up.init(jax.random.key(0), x)
    kernel = np.asarray(variables["params"]["kernel"])
    y = np.asarray(up.apply(variables, x))
    assert y.shape == (2, 8, 10, 12, 3)
    for corner in np.ndindex(2, 2, 2):
        there = y[:, corner[0] :: 2, corner[1] :: 2, corner[2] :: 2]
        np.testing.assert_allclose(there, x @ kernel[corner], atol=1e-5)


def test_a_residual_block_projects_only_where_channels_change(x):
    names = {f: set(ResidualBlock(f, {"kind": "batch"}).init(jax.random.key(0), x)["params"]) for f in (8, 4)}
    assert names[4] - names[8] == {"conv3", "norm3"}


def test_bfloat16_blocks_keep_float32_parameters_and_statistics(x):
    block = ResidualBlock(8, {"kind": "batch"}, jnp.bfloat16)
    variables = block.init(jax.random.key(0), x)
    y, after = block.apply(variables, x, True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((variables["params"], after))} == {
        np.dtype("float32"),
        np.dtype("int32"),
    }
    head = Conv(3, size=1, bias=True, dtype=jnp.bfloat16, accumulate=jnp.float32)
    assert head.apply(head.init(jax.random.key(0), x), x).dtype == jnp.float32


def test_dropout_is_its_keys_and_only_in_training(x):
    block = SwinBlock(2, (2, 2, 2), (1, 1, 1), drop_rate=0.3, attn_drop_rate=0.3, drop_path_rate=0.3)
    variables = block.init(jax.random.key(0), x, False)
    a, b, c = (block.apply(variables, x, True, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert np.abs(np.asarray(a) - np.asarray(c)).max() > 0.1
    plain = dataclasses.replace(block, drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0)
    np.testing.assert_array_equal(block.apply(variables, x, False), plain.apply(variables, x, False))


def test_a_dropped_sample_passes_a_swin_block_unchanged(x):
    block = SwinBlock(2, (2, 2, 2), (0, 0, 0), drop_path_rate=1.0)
    variables = block.init(jax.random.key(0), x, False)
    np.testing.assert_array_equal(block.apply(variables, x, True, rngs={"dropout": jax.random.key(0)}), x)


@pytest.mark.parametrize("size", [1, 3, (1, 3, 5)])
@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2, 2), (2, 1, 3)])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_convolutions_of_any_size_stride_and_groups_are_pytorchs(x, size, strides, groups):
    torch = pytest.importorskip("torch")
    conv = Conv(16, size, strides, groups, bias=True)
    variables = conv.init(jax.random.key(0), x)
    kernel = variables["params"]["kernel"]
    assert kernel.shape[3:] == (8 // groups, 16)
    theirs = torch.nn.functional.conv3d(
        torch.tensor(x.transpose(0, 4, 1, 2, 3).copy()),
        torch.tensor(np.asarray(kernel).transpose(4, 3, 0, 1, 2).copy()),
        stride=strides,
        padding=[k // 2 for k in kernel.shape[:3]],
        groups=groups,
    )
    ours = conv.apply(variables, x)
    np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 4, 1), atol=5e-5)
    assert ours.shape[1:4] == tuple((n - 1) // s + 1 for n, s in zip(x.shape[1:4], strides))


@pytest.mark.parametrize("options", [{"size": (2, 3, 3)}, {"groups": 3}])
def test_even_kernels_and_uneven_groups_are_refused(x, options):
    with pytest.raises(
        ValueError, match=r"Conv: a kernel of .* must be odd, and . groups must divide 8 channels"
    ):
        Conv(6, **options).init(jax.random.key(0), x)


@pytest.mark.parametrize("kind", ["instance_affine", "batch", "group", "layer"])
def test_norms_in_bfloat16_round_once(kind):
    """Statistics, scale and bias are applied in float32; only the result is rounded."""
    x = jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, (2, 4, 5, 6, 8)), jnp.bfloat16)
    values = {"scale": jnp.linspace(0.3, 1.7, 8), "bias": jnp.linspace(-1.0, 1.0, 8)}

    def apply(dtype):
        norm = Norm(kind, dtype=dtype)
        state = {k: v for k, v in norm.init(jax.random.key(0), x).items() if k != "params"}
        return norm.apply({"params": values, **state}, x, train=True, mutable=["batch_stats"])[0]

    np.testing.assert_array_equal(apply(jnp.bfloat16), apply(jnp.float32).astype(jnp.bfloat16))
