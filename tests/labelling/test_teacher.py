import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import softmax

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.options import PredictOptions
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.inference.windows import averaging
from ukbob_jax.labelling import teacher
from ukbob_jax.models.card import ModelCard
from ukbob_jax.volumes.volume import Volume

CARD = ModelCard(
    "tests.linear",
    {},
    labels={0: "background", 1: "liver", 2: "spleen"},
    normalize="window:0:100",
    contrasts=("any",),
    window=(8, 8, 8),
)
WEIGHTS = np.array([[0.0, 4.0, -3.0]], np.float32)


class Linear(nn.Module):
    """Logits proportional to the voxel."""

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        return nn.Dense(3, name="norm1", kernel_init=lambda *_: jnp.asarray(WEIGHTS))(x)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    model = Linear()
    return Segmenter(model, model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"], CARD)


def scan(channels: int) -> Volume:
    values = np.random.default_rng(1).integers(-100, 200, (8, 8, 8, channels))
    return Volume(values.astype(np.float32), np.eye(4))


def test_contrasts_are_merged_by_their_mean_probability(segmenter):
    image = scan(3)
    x = np.clip(image.array / 100, 0, 1)
    expected = softmax(x[..., None] * WEIGHTS[0] + [0, -1.5, 0], -1).mean(-2).argmax(-1)
    params = {"norm1": {"kernel": jnp.asarray(WEIGHTS), "bias": jnp.array([0.0, -1.5, 0.0])}}
    found = teacher.label(Segmenter(segmenter.model, params, CARD), image, PredictOptions())
    ids = np.array([0, anatomy.IDS["liver"], anatomy.IDS["spleen"]])
    np.testing.assert_array_equal(found, ids[expected])
    single = softmax(x[..., None] * WEIGHTS[0] + [0, -1.5, 0], -1).argmax(-1)
    assert (ids[single[..., 0]] != found).any()  # one contrast alone says something else somewhere


def test_one_contrast_is_labelled_as_the_segmenter_does(segmenter):
    image = scan(1)
    expected = segmenter(image).array
    np.testing.assert_array_equal(teacher.label(segmenter, image, PredictOptions()) > 0, expected > 0)


def test_a_network_with_classes_that_are_not_ours_is_no_teacher():
    assert teacher.to_taxonomy_ids({0: "background", 1: "liver"})[[0, 1, 2]].tolist() == [0, 5, 255]
    with pytest.raises(ConfigError, match="class 1, 'class_1'"):
        teacher.to_taxonomy_ids({0: "background", 1: "class_1"})


def test_a_mirrored_view_reaches_the_mean_over_contrasts(segmenter):
    class Sided(nn.Module):
        """Liver in the lower half of a window along x, so that its mirror image says otherwise."""

        @nn.compact
        def __call__(self, x, *, train: bool = False):
            scale = self.param("norm1", lambda key: jnp.ones(1))
            low = jnp.arange(x.shape[1]).reshape(1, -1, 1, 1, 1) < x.shape[1] // 2
            low = jnp.broadcast_to(jnp.where(low, 5.0, -5.0) * scale[0], (*x.shape[:4], 1))
            return jnp.concatenate([0 * low, low, 0 * low - 9], -1)

    sided = Segmenter(Sided(), {"norm1": jnp.ones(1)}, CARD)
    plain, mirrored = (
        teacher.label(sided, scan(2), PredictOptions(views=views))
        for views in (averaging.PLAIN, averaging.MIRRORED)
    )
    assert (plain[:4] == anatomy.IDS["liver"]).all() and not plain[4:].any()
    assert (mirrored == mirrored[::-1]).all()
