import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ukbob_jax as bob
from ukbob_jax.errors import ConfigError
from ukbob_jax.models import architecture
from ukbob_jax.sentinel import degradation
from ukbob_jax.sentinel.volumes import OUTLINE, VolumeGrader, pooled, soft_dice

TINY = {"n_stages": 2, "features_per_stage": (4, 6), "strides": (1, 2), "n_conv_per_stage": 1}


@pytest.fixture(scope="module")
def tiny():
    model = VolumeGrader(3, network_fields=TINY, hidden=5)
    cubes = jax.random.normal(jax.random.key(1), (2, 8, 8, 8, 2))
    return model, jax.jit(model.init)(jax.random.key(0), cubes), cubes


def test_grades_depend_on_mask_embedding_and_place(tiny):
    model, variables, cubes = tiny
    run = jax.jit(lambda x, e, s: model.apply(variables, x, e, s))
    e, s = jnp.ones((2, 3)), jnp.array([[0.5, 0, 0.1, -1], [0.8, 0.3, 0, 1]])
    grade = run(cubes, e, s)
    assert grade.shape == (2,)
    assert ((grade > 0) & (grade < 1)).all()
    for other in (
        run(cubes * jnp.array([1, -1])[None, None, None, None], e, s),
        run(cubes, 0 * e, s),
        run(cubes, e, 2 * s),
    ):
        assert (jnp.abs(other - grade) > 1e-6).all()


def test_only_the_encoder_has_parameters(tiny):
    assert all(name.startswith("encoder_") for name in tiny[1]["params"]["encoder"])


@pytest.fixture(scope="module")
def drawing():
    model = VolumeGrader(3, network_fields=TINY, hidden=5, outline=4)
    cubes = jax.random.normal(jax.random.key(1), (2, 8, 8, 8, 2))
    return model, jax.jit(model.init)(jax.random.key(0), cubes), cubes


def test_a_drawing_is_of_the_cubes_voxels_and_only_sown(drawing):
    model, variables, cubes = drawing
    e, s = jnp.ones((2, 3)), jnp.zeros((2, 4))
    grade, more = model.apply(variables, cubes, e, s, mutable=["intermediates"])
    assert more["intermediates"][OUTLINE][0].shape == (2, 8, 8, 8)
    assert (model.apply(variables, cubes, e, s) == grade).all() and ((grade > 0) & (grade < 1)).all()
    assert "intermediates" not in variables


def test_the_grade_starts_from_the_dice_with_the_drawing(drawing):
    model, variables, cubes = drawing
    silent = jax.tree.map_with_path(
        lambda path, value: 0 * value if path[0].key == "head" else value, variables["params"]
    )
    cubes = cubes.at[..., 1].set(jnp.sign(cubes[..., 1]))
    grade, more = model.apply({"params": silent}, cubes, jnp.ones((2, 3)), mutable=["intermediates"])
    drawn, mask = jax.nn.sigmoid(more["intermediates"][OUTLINE][0]), (cubes[..., 1] + 1) / 2
    expected = [2 * float((d * m).sum()) / float(d.sum() + m.sum()) for d, m in zip(drawn, mask)]
    np.testing.assert_allclose(grade, expected, rtol=1e-5)


def test_an_outline_needs_the_sigmoid():
    with pytest.raises(ConfigError, match="outline needs squash=True"):
        VolumeGrader(3, network_fields=TINY, outline=4, squash=False)


def test_soft_dice_is_dice_of_masks_and_stays_inside():
    rng = np.random.default_rng(0)
    first, second = (rng.random((2, 4, 4, 4)) < 0.5 for _ in range(2))
    expected = [degradation.dice(a, b) for a, b in zip(first, second)]
    np.testing.assert_allclose(soft_dice(jnp.float32(first), jnp.float32(second)), expected, rtol=1e-6)
    nothing = jnp.zeros((1, 2, 2, 2))
    assert 0 < soft_dice(nothing, nothing)[0] < soft_dice(1 + nothing, 1 + nothing)[0] < 1


def test_pooling_keeps_what_lies_inside_apart():
    mask = np.zeros((1, 8, 8, 8, 1), np.float32)
    mask[:, 2:6, 2:6, 2:6] = 1
    inside, near, whole, most = pooled(jnp.asarray(mask), jnp.asarray(mask))[0]
    assert inside == 1
    assert 0.3 < near < 0.7
    assert whole == pytest.approx(1 / 8)
    assert most == 1
    assert (pooled(jnp.ones((1, 4, 4, 4, 1)), jnp.zeros((1, 8, 8, 8, 1)))[0] == jnp.array([0, 0, 1, 1])).all()


def test_a_grader_is_saved_with_its_card(tiny, tmp_path):
    model, variables, _ = tiny
    bob.weights.save(tmp_path / "grader.safetensors", variables["params"], model)
    read = bob.weights.read(tmp_path / "grader.safetensors", model)
    jax.tree.map(np.testing.assert_array_equal, read.params, variables["params"])
    assert read.card.build() == model


def test_fields_survive_json():
    model = VolumeGrader(3, network_fields=TINY, detection=True)
    assert architecture.of(model).build(architecture.of(model).fields(model)) == model
    assert hash(model) == hash(dataclasses.replace(model))


@pytest.mark.parametrize(
    ("network", "fields"),
    [("resenc_unet", {"n_stages": 2, "features_per_stage": (4, 6), "strides": (1, 2), "n_blocks_per_stage": 1}),
     ("swin_unetr", {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)})],
)  # fmt: skip
def test_other_encoders_serve_too(network, fields):
    model = VolumeGrader(3, network, fields, detection=True, learned_classes=4)
    cubes = jnp.zeros((2, 32, 32, 32, 2))
    variables = jax.eval_shape(model.init, jax.random.key(0), cubes)
    found = jax.eval_shape(model.apply, variables, cubes, jnp.array([1, 2]))
    assert [part.shape for part in found] == [(2,), (2,)]


@pytest.mark.parametrize(
    ("cubes", "embedding", "side", "what"),
    [((2, 8, 8, 8), None, None, r"cubes are \(2, 8, 8, 8\)"),
     ((2, 8, 8, 8, 2), (2, 4), None, r"embeddings of shape \(2, 3\)"),
     ((2, 8, 8, 8, 2), (2, 3), (2, 3), r"places are \(2, 3\)")],
)  # fmt: skip
def test_bad_input_is_one_line(tiny, cubes, embedding, side, what):
    args = [
        None if shape is None else jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in (cubes, embedding, side)
    ]
    with pytest.raises(ValueError, match=what):
        jax.eval_shape(tiny[0].apply, tiny[1], *args)
