"""S3D: sparse convolutions by masks, against the original's values and against the dense encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny_network
from tests.tiny_network import Tiny
from tests.training.objectives.conftest import check, last, projection
from ukbob_jax import networks
from ukbob_jax.errors import ConfigError
from ukbob_jax.models.blocks import Conv
from ukbob_jax.training import optimizer
from ukbob_jax.training import state as states
from ukbob_jax.training.objectives import s3d, sparse, tasks
from ukbob_jax.training.objectives.masked import block_mask, masked_mse
from ukbob_jax.training.state import PRETEXT

SIZE, BLOCK = (16, 16, 16), 4
PLANS = {"n_stages": 4, "features_per_stage": (4, 6, 6, 6), "kernel_sizes": 3, "n_conv_per_stage_decoder": 1}
STRIDES = ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2))
NETWORKS = {
    "plain_unet": {**PLANS, "strides": STRIDES, "n_conv_per_stage": 1},
    "resenc_unet": {**PLANS, "strides": STRIDES, "n_blocks_per_stage": 1},
    "stunet": {"dims": (4, 6, 6, 6), "depth": 1, "pool_op_kernel_sizes": STRIDES[1:]},
    "mednext": {"n_channels": 4, "exp_r": 1, "kernel_size": 3, "block_counts": (1,) * 9},
}
ATTENTION = {
    "swin_unetr": {"feature_size": 12, "depths": (1, 1, 1, 1)},
    "primus": {
        "embed_dim": 12, "patch_embed_size": (8, 8, 8), "input_shape": SIZE, "eva_depth": 1, "eva_numheads": 1,
        "use_rot_pos_emb": False,
    },
}  # fmt: skip


def network(name, out_channels=1):
    return networks.build(name, 1, out_channels, **{**NETWORKS, **ATTENTION}[name])


@pytest.fixture(scope="module", params=list(NETWORKS))
def encoders(request):
    """Name, (image, visible) -> the encoder's sparse maps, image -> its dense ones."""
    model = network(request.param)
    variables = model.init(jax.random.key(0), jnp.zeros((1, *SIZE, 1)))
    # Norms that start at zero would hide what their branch has seen.
    params = jax.tree.map(
        lambda p: p + 0.1 * jax.random.normal(jax.random.key(1), p.shape), variables["params"]
    )

    def masked(image, visible):
        with sparse.encoder(model, visible, BLOCK):
            return model.apply({"params": params}, image, method="hidden")

    return (
        request.param,
        jax.jit(masked),
        jax.jit(lambda image: model.apply({"params": params}, image, method="hidden")),
    )


@pytest.mark.reference
def test_cells_are_visible_where_the_references_are(ssl):
    """Repeated where a map is finer than the mask, and all of them where it is coarser along every axis."""
    given = ssl("masked")
    cells = given.arrays["spark_active"][:, 0] != 0
    block = 4
    voxels = jnp.asarray(cells.repeat(block, 1).repeat(block, 2).repeat(block, 3))
    compared = 0
    for row in given.values["spark"]["upsampling"]:
        if row["result"]["shape"][2:] != row["feature_grid"]:
            continue  # a mask of another size than the map: theirs fails there
        found = sparse.visible_at(voxels, row["feature_grid"], block)
        found = np.ones((2, *row["feature_grid"]), bool) if found is None else np.asarray(found)
        assert [*found.shape] == [2, *row["feature_grid"]] and found.sum() == row["result"]["sum"]
        np.testing.assert_allclose(projection(found), row["result"]["proj"], atol=1e-12)
        compared += 1
    assert compared == 5


def test_a_cell_is_visible_where_any_voxel_in_it_is():
    voxels = np.asarray(~block_mask(jax.random.key(3), (2, 8, 12, 20), 4, 0.7))
    found = np.asarray(sparse.visible_at(jnp.asarray(voxels), (8, 3, 2), 4))  # cells of 1 x 4 x 10 voxels
    want = voxels.reshape(2, 8, 1, 3, 4, 2, 10).any((2, 4, 6))
    np.testing.assert_array_equal(found, want)
    odd = sparse.visible_at(jnp.asarray(voxels), (3, 3, 3), 4)  # cells of 3 x 4 x 7 voxels
    np.testing.assert_array_equal(odd[:, 2, 0, 2], voxels[:, 6:, :4, 14:].any((1, 2, 3)))


@pytest.mark.reference
def test_norms_over_visible_cells_equal_the_references(ssl):
    given = ssl("masked")
    x, want = (last(given.arrays[f"spark_norm_{name}"]) for name in "xy")
    visible = given.arrays["spark_norm_active"][:, 0].repeat(2, 1).repeat(2, 2).repeat(2, 3) != 0
    rule = given.values["spark"]["sparse_instance_norm"]
    scale, bias = (jnp.asarray(rule[name], jnp.float32) for name in ("weight", "bias"))
    found = sparse.sparse_norm(jnp.asarray(x), visible, scale, bias, epsilon=rule["eps"])
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
    assert not np.asarray(found)[~visible].any()


@pytest.mark.reference
def test_the_loss_is_the_references(ssl):
    given = ssl("masked")
    pred, target = (last(given.arrays[f"mae_{name}"]) for name in ("pred", "target"))
    hidden = 1 - last(given.arrays["mae_visible_small"]).repeat(4, 1).repeat(4, 2).repeat(4, 3)
    loss = functools.partial(masked_mse, target=target, hidden=hidden)
    check(loss, given.values["spark_mse"], pred, names=("p",), channels_first=("p",))


@pytest.mark.reference
@pytest.mark.parametrize("form", ["paper", "nnssl"])
def test_the_first_convolution_sees_hidden_voxels_in_nnssls_form_only(ssl, form, monkeypatch):
    """The reference's case: ones 3 x 3 x 3, one visible block of 4 in 8, half of the voxels, all hidden, from 0 to 100."""
    want = ssl("masked").values["spark"]["first_conv_leak"]

    class First(Tiny):
        def setup(self):
            self.conv = Conv(1, 3)

        def hidden(self, x, *, train=False):
            return [self.conv(x)]

    monkeypatch.setattr(First, "__module__", tiny_network.__name__)
    visible = jnp.zeros((2, 8, 8, 8), bool).at[:, :4, :4, :4].set(True)
    image = visible[..., None].astype(jnp.float32)
    image = image.at[1, 4:].set(100.0)  # hidden voxels, 0 in the other sample
    seen = image if form == "nnssl" else jnp.where(visible[..., None], image, 0)
    params = {"conv": {"kernel": jnp.ones((3, 3, 3, 1, 1))}}
    with sparse.encoder(First(1, 1), visible, 4):
        [found] = First(1, 1).apply({"params": params}, seen, method="hidden")
    change = np.abs(np.asarray(found[1] - found[0]))[..., 0]
    inside = (change[:4, :4, :4] > 0).sum()
    assert (change > 0).sum() - inside == want["changed_hidden_outputs"] == 0
    leaks = (want["changed_visible_outputs"], want["max_change"])
    assert (inside, change.max()) == (leaks if form == "nnssl" else (0, 0))


def test_with_everything_visible_the_encoder_is_the_dense_one(encoders):
    _, masked, dense = encoders
    image = jax.random.normal(jax.random.key(2), (2, *SIZE, 1))
    for found, want in zip(masked(image, jnp.ones((2, *SIZE), bool)), dense(image), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)  # means are summed in another order


def test_hidden_cells_are_0_and_visible_ones_are_not_the_dense_encoders(encoders):
    name, masked, dense = encoders
    image = jax.random.normal(jax.random.key(2), (2, *SIZE, 1))
    hidden = block_mask(jax.random.key(4), (2, *SIZE), BLOCK, 0.75)
    seen = jnp.where(hidden[..., None], 0, image)
    checked = 0
    for found, want in zip(masked(seen, ~hidden), dense(seen)):
        visible = sparse.visible_at(~hidden, found.shape[1:4], BLOCK)
        if visible is None:
            continue
        visible = np.asarray(visible)
        assert not np.asarray(found)[~visible].any() and np.asarray(found)[visible].any()
        assert not np.allclose(np.asarray(found)[visible], np.asarray(want)[visible], rtol=1e-2)
        checked += 1
    assert checked >= 3, name


def test_what_a_network_pads_is_visible():
    """18 x 13 x 9 voxels become 24 x 16 x 12: with nothing hidden the numbers are the dense ones, and the crop fits."""
    size, model = (18, 13, 9), network("plain_unet")
    image = jax.random.normal(jax.random.key(0), (1, *size, 1))
    variables = jax.jit(model.init)(jax.random.key(1), image)

    @jax.jit
    def both(variables, image):
        with sparse.encoder(model, jnp.ones((1, *size), bool), BLOCK):
            found = model.apply(variables, image)
        return found, model.apply(variables, image)

    found, want = both(variables, image)
    assert found.shape == (1, *size, 1)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    # The coarsest cells have 8 x 8 x 4 voxels: longer than blocks of 3 along every axis, not than blocks of 4.
    assert [s3d.levels(model, 1, size, block) for block in (3, 4)] == [[4, 6, 6, 0], [4, 6, 6, 6]]


def test_tokens_fill_hidden_cells_and_the_convolution_starts_as_identity():
    parts = s3d.Densify()
    level = jax.random.normal(jax.random.key(0), (2, 4, 4, 4, 3))
    visible = ~block_mask(jax.random.key(1), (2, 4, 4, 4), 2, 0.75)
    level = jnp.where(visible[..., None], level, 0)
    coarse = jnp.ones((2, 1, 1, 1, 5))
    params = parts.init(jax.random.key(2), *s3d.one_cell((3, 0)))
    found, same = parts.apply(params, [level, coarse], [visible, None])
    assert same is coarse and set(params["params"]) == {"scale_0", "bias_0", "token_0", "conv_0"}
    normal = sparse.sparse_norm(level, visible)
    want = np.where(np.asarray(visible)[..., None], normal, params["params"]["token_0"])
    np.testing.assert_allclose(found, want, rtol=1e-6)


@pytest.mark.parametrize("form", ["paper", "nnssl"])
def test_what_is_hidden_changes_the_target_alone_in_the_papers_form(form):
    """The prediction, seen through the loss's gradient with respect to the image, knows visible voxels alone."""
    task = tasks.build(
        "s3d", {"block": BLOCK, "form": form}, functools.partial(network, "plain_unet"), 1, SIZE
    )
    params = task.variables(jax.random.key(0))["params"]
    state = states.start(params, {}, optimizer.build(learning_rate=0.1, steps=1))
    image = jax.random.normal(jax.random.key(2), (2, *SIZE, 1))
    key = jax.random.key(5)
    hidden = block_mask(jax.random.split(key)[0], (2, *SIZE), BLOCK, 0.75)[..., None]

    @jax.jit
    def gradients(params, image):
        loss = lambda p, x: task.objective(p, state, {"image": x}, key)[0]  # noqa: E731
        return jax.value_and_grad(loss, (0, 1))(params, image)

    value, (grads, at) = gradients(params, image)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert all(np.abs(g).max() > 0 for name, g in grads[PRETEXT].items() if "token" in name)
    # mean (p - x)^2 over hidden voxels: where p ignores them, its second difference for steps of 1 is 2 exactly
    step = jnp.where(hidden, 1.0, 0)
    ahead, _ = gradients(params, image + step)
    back, _ = gradients(params, image - step)
    curvature = float(ahead - 2 * value + back)
    assert (abs(curvature - 2) < 1e-3) == (form == "paper"), curvature
    assert np.abs(np.asarray(at)[~np.asarray(hidden)]).max() > 0  # visible voxels are what it is made from


@pytest.mark.parametrize("name", list(ATTENTION))
def test_networks_with_attention_are_refused_in_one_line(name):
    with pytest.raises(
        ConfigError, match=rf"config.model.name: network '{name}' has layers .*pretrain.py:simmim"
    ):
        tasks.build(
            "s3d", {}, functools.partial(network, name), 1, (32, 32, 32) if name == "swin_unetr" else SIZE
        )


def test_networks_that_hide_their_encoder_or_have_batch_norms_are_refused(monkeypatch):
    fields = {**NETWORKS["plain_unet"], "norm": "batch"}
    with pytest.raises(
        ConfigError, match=r"config.model.name: network 'plain_unet' has norms of kind 'batch'"
    ):
        tasks.build("s3d", {}, lambda k: networks.build("plain_unet", 1, k, **fields), 1, SIZE)

    class Elsewhere(Tiny):
        def __call__(self, x, *, train=False):
            fine = self.hidden(x)[0] if self.is_initializing() else self.fine_norm(self.fine(x))
            return self.head(fine)

    monkeypatch.setattr(Elsewhere, "__module__", tiny_network.__name__)
    with pytest.raises(ConfigError, match=r"config.model.name: network .* does not take its maps"):
        tasks.build("s3d", {"block": 4}, lambda k: Elsewhere(1, k), 1, SIZE)
