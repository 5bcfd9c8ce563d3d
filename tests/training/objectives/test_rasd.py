"""Made volumes, and learning from them: distributions, determinism, and the loss against its formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from ukbob_jax.errors import ConfigError
from ukbob_jax.training.objectives import rasd, synthesis
from ukbob_jax.training.objectives.rasd import RasdOptions
from ukbob_jax.training.objectives.synthesis import RegionOptions

SIZE = (20, 16, 24)
SMALL = RegionOptions(fewest=3, most=6, finest=1.5, coarsest=4.0, ellipsoids=2)


@pytest.fixture(scope="module")
def made():
    """Keys -> labels `n x y z`; key, rows -> the batch of that many rows."""
    label = jax.jit(jax.vmap(lambda key: synthesis.regions(key, SIZE, SMALL)))
    batch = jax.jit(
        lambda key, rows: synthesis.pairs(
            key, {"image": rows, "subject": jnp.zeros(len(rows))}, size=SIZE, channels=2, options=SMALL
        )
    )
    return label, batch


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_a_field_has_unit_variance_everywhere_and_the_filters_correlation(sigma):
    fields = jax.vmap(lambda key: synthesis.smooth_field(key, (12, 6, 5), sigma))(
        jax.random.split(jax.random.key(0), 4000)
    )
    fields = np.asarray(fields)
    np.testing.assert_allclose(fields.mean(0), 0, atol=0.08)  # five standard errors of 4000 draws
    np.testing.assert_allclose(fields.var(0), 1, atol=0.12)
    inner = np.mean(
        fields[:, 5, 3, 2] * fields[:, 7, 3, 2]
    )  # noise through g has the correlation of g with itself
    place = np.arange(12)[:, None]
    weights = np.exp(-0.5 * ((place - place.T) / sigma) ** 2)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    np.testing.assert_allclose(inner, weights[5] @ weights[7], atol=0.08)
    assert (
        abs(np.mean(fields[:, 0, 3, 2] * fields[:, 11, 3, 2])) < 0.08
    )  # opposite borders know nothing of each other


def test_regions_are_as_many_as_drawn_connected_at_their_scale_and_follow_the_key(made):
    label, _ = made
    keys = jax.random.split(jax.random.key(1), 200)
    found = np.asarray(label(keys))
    assert found.dtype == np.uint8 and found.max() < synthesis.count(SMALL)
    np.testing.assert_array_equal(found, label(keys))
    assert len({row.tobytes() for row in found}) == 200
    fields = np.array([len(set(np.unique(row)) - {6, 7}) for row in found])
    drawn = np.array([row[row < 6].max() + 1 for row in found])
    assert fields.max() == 6 and fields.min() >= 2 and drawn.max() == 6
    # Each K of 3..6 equally often: a field that names no voxel only lowers the count.
    share = np.mean(drawn == 6)
    assert 0.13 < share <= 0.4, share
    ellipsoids = np.array([len(set(np.unique(row)) & {6, 7}) for row in found])
    assert (
        set(ellipsoids) == {0, 1, 2} and abs(ellipsoids.mean() - 1) < 0.4
    )  # small ones may miss every voxel
    rng = np.random.default_rng(0)
    pieces = lambda row: sum(ndimage.label(row == k)[1] for k in np.unique(row))  # noqa: E731
    shuffled = np.mean([pieces(rng.permutation(row.ravel()).reshape(SIZE)) for row in found[:5]])
    assert np.mean([pieces(row) for row in found[:40]]) < shuffled / 20  # regions, not noise


def test_smoother_fields_make_larger_regions():
    def border(sigma):
        options = RegionOptions(fewest=4, most=4, finest=sigma, coarsest=sigma, ellipsoids=0)
        keys = jax.random.split(jax.random.key(2), 20)
        label = np.asarray(jax.vmap(lambda key: synthesis.regions(key, (24, 24, 24), options))(keys))
        return np.mean(label[:, 1:] != label[:, :-1])

    assert border(1.0) > 2 * border(4.0)


def test_a_pair_is_two_looks_at_the_same_regions(made):
    _, batch = made
    found = batch(jax.random.key(3), jnp.zeros((6, 1, 1, 1, 2)))
    image, label = np.asarray(found["image"]), np.asarray(found["label"])
    assert image.shape == (6, *SIZE, 2) and image.dtype == np.float32 and label.shape == (6, *SIZE)
    assert np.isfinite(image).all()
    np.testing.assert_allclose(image.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(image.std((1, 2, 3)), 1, atol=1e-4)
    np.testing.assert_array_equal(label[::2], label[1::2])
    assert (label[0] != label[2]).any() and set(found) == {"image", "label", "subject"}
    again = batch(jax.random.key(3), jnp.ones((6, 1, 1, 1, 2)))  # whatever the images were
    np.testing.assert_array_equal(image, again["image"])
    for one, other in ((image[0], image[1]), (image[0, ..., 0], image[0, ..., 1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.95
    explained = []  # of an image's variance, by its regions
    for row, regions in zip(image[..., 0], label):
        means = [row[regions == k].mean() for k in range(8) if (regions == k).any()]
        sizes = [(regions == k).sum() for k in range(8) if (regions == k).any()]
        explained.append(np.average(np.square(means), weights=sizes))
    assert np.mean(explained) > 0.3


def formula(features, label, tau):
    """The loss of the docstring, voxel by voxel, in float64."""
    f = np.asarray(features, np.float64)
    f /= np.linalg.norm(f, axis=-1, keepdims=True)
    ids = sorted(set(label.tolist()))
    prototypes = {k: f[:, label == k].reshape(-1, f.shape[-1]).mean(0) for k in ids}
    prototypes = {k: p / np.linalg.norm(p) for k, p in prototypes.items()}
    terms, right = [], []
    for r in range(2):
        for v, k in enumerate(label.tolist()):
            scores = np.array([f[r, v] @ prototypes[j] / tau for j in ids])
            terms.append(np.log(np.exp(scores).sum()) - scores[ids.index(k)])
            right.append(ids[int(np.argmax(scores))] == k)
    return np.mean(terms), np.mean(1 - (f[0] * f[1]).sum(-1)), np.mean(right)


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_the_loss_is_its_formula(tau):
    rng = np.random.default_rng(0)
    label = rng.choice([0, 2, 3, 7], 50)  # others do not occur
    features = (rng.normal(size=(2, 50, 5)) + 2 * rng.normal(size=(8, 5))[label][None]).astype(np.float32)
    found = rasd.prototype_loss(jnp.asarray(features), jnp.asarray(label), 9, tau)
    np.testing.assert_allclose(found, formula(features, label, tau), rtol=1e-5, atol=1e-6)
    assert 0.5 < found.accuracy < 1


def test_the_loss_is_blind_to_names_and_least_where_regions_agree():
    rng = np.random.default_rng(1)
    label = rng.integers(0, 4, 40)
    features = jnp.asarray(rng.normal(size=(2, 40, 6)), jnp.float32)
    loss = functools.partial(rasd.prototype_loss, labels=8)
    swapped = np.array([5, 7, 1, 0])[label]
    np.testing.assert_allclose(
        loss(features, jnp.asarray(swapped)), loss(features, jnp.asarray(label)), rtol=1e-5
    )
    perfect = jnp.eye(6)[jnp.asarray(label)][None].repeat(2, 0)
    found = loss(perfect, jnp.asarray(label))
    np.testing.assert_allclose(found.contrast, np.log(1 + 3 * np.exp(-10)), rtol=1e-2, atol=1e-6)
    assert abs(found.disagreement) < 1e-6 and found.accuracy == 1
    one = loss(features, jnp.zeros(40, jnp.int32))  # a single region has nothing to be told from
    np.testing.assert_allclose(one.contrast, 0, atol=1e-5)
    grads = jax.grad(lambda f: sum(loss(f, jnp.asarray(label))[:2]))(jnp.zeros_like(features))
    assert np.isfinite(grads).all()


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"fewest": 1}, "config.pretrain.fewest: 1 is not in 2..32"),
        ({"finest": 0.0}, "config.pretrain.finest: 0.0 is not above 0"),
        ({"ellipsoids": 250}, "config.pretrain.ellipsoids: 250 and 32 fields"),
        ({"width": 0}, "config.pretrain.width: 0 is less than 1"),
        ({"temperature": 0.0}, "config.pretrain.temperature: 0.0 is not above 0"),
        ({"agreement": -1.0}, "config.pretrain.agreement: -1.0 is negative"),
    ],
)
def test_options_that_cannot_be_used_are_refused(fields, named):
    with pytest.raises(ConfigError, match=named):
        RasdOptions(**fields)
