import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ukbob_jax as bob
from tests.sentinel import reference as pack
from ukbob_jax.sentinel.head import GatedHead
from ukbob_jax.sentinel.resnet import ResNet50
from ukbob_jax.weights import torch_files

CHECKED = ("mean", "std", "min", "max", "mean_abs", "proj")
GRADIENTS = {
    "conv1.weight": "conv1/kernel",
    "bn1.weight": "bn1/scale",
    "net.layer2.0.conv2.weight": "layer2_0/conv2/kernel",
    "attention2.bias": "head/attention2/bias",
}


@pytest.fixture(scope="module")
def case(reference):
    """Facts, model, variables, inputs, checksum."""
    model, weights = ResNet50(num_classes_embedding=512), pack.state_dict(reference)
    variables = {
        "params": bob.weights.from_torch(weights, model),
        **bob.weights.state_from_torch(weights, model),
    }
    return (
        pack.facts(reference, pack.MODEL),
        model,
        variables,
        pack.inputs(reference),
        pack.refcommon(reference).checksum,
    )


@pytest.fixture(scope="module")
def outputs(case):
    """Grades and intermediates in evaluation; the same with the mask inverted, and without an embedding."""
    _, model, variables, (slices, embedding), _ = case
    run = jax.jit(lambda x, e: model.apply(variables, x, e, mutable=["intermediates"]))
    grade, maps = run(slices, embedding)
    inverted = slices * np.float32([1, -1])[None, None, None]
    return grade, maps["intermediates"], run(inverted, embedding)[0], run(slices, 0 * embedding)[0]


@pytest.mark.reference
def test_grades_equal_the_released_network(case, outputs):
    facts = case[0]["eval"]
    np.testing.assert_allclose(outputs[0], facts["output"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(outputs[2], facts["output_if_mask_inverted"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(outputs[3], facts["output_if_embedding_zero"], atol=1e-6, rtol=0)


@pytest.mark.reference
def test_maps_of_every_stage_equal_the_released_network(case, outputs):
    facts, checksum = case[0]["eval"]["features"], case[4]
    for stage in ("stem", "layer1", "layer2", "layer3", "layer4"):
        found = checksum(np.moveaxis(np.asarray(outputs[1][stage][0]), -1, 1))
        for name in CHECKED:
            assert found[name] == pytest.approx(facts[stage][name], abs=1e-5), (stage, name)


@pytest.mark.reference
def test_gradients_equal_the_released_network(case):
    facts, model, variables, (slices, embedding), _ = case
    params, statistics = variables["params"], variables["batch_stats"]

    def total(params):
        return model.apply({"params": params, "batch_stats": statistics}, slices, embedding).sum()

    found = bob.weights.to_torch(jax.jit(jax.grad(total))(params), model)
    for name, want in facts["eval"]["grad"].items():
        assert np.linalg.norm(found[name]) == pytest.approx(want["l2"], rel=1e-4), name


@pytest.mark.reference
def test_training_mode_and_running_statistics_equal_the_released_network(case):
    facts, model, variables, (slices, embedding), checksum = case
    run = jax.jit(lambda x, e: model.apply(variables, x, e, train=True, mutable=["batch_stats"]))
    grade, state = run(slices, embedding)
    # The released network's own gap between float32 and float64 is 3e-5: the batch has three samples.
    np.testing.assert_allclose(grade, facts["train_mode"]["output"], atol=3e-4, rtol=0)
    statistics = state["batch_stats"]
    running = {
        "bn1.running_mean": statistics["bn1"]["mean"],
        "bn1.running_var": statistics["bn1"]["var"],
        "net.layer4.2.bn3.running_var": statistics["layer4_2"]["bn3"]["var"],
    }
    for name, values in running.items():
        want = facts["train_mode"]["running_after_one_forward"][name]
        for key in ("mean", "std", "min", "max"):
            assert checksum(values)[key] == pytest.approx(want[key], abs=3e-4), (name, key)


@pytest.mark.reference
def test_the_released_layout_is_written_and_read(case, reference, tmp_path):
    facts, model, variables, _, _ = case
    params, state = variables["params"], {"batch_stats": variables["batch_stats"]}
    bob.weights.save(tmp_path / "grader.pth", params, model, model_state=state)
    written = bob.weights.to_torch(params, model, state)
    assert {name: list(array.shape) for name, array in written.items()} == facts["state_dict_shapes"]
    given = pack.state_dict(reference)
    assert all(np.array_equal(written[n], given[n]) for n in given if n not in facts["parameters_never_used"])
    again = bob.weights.read(tmp_path / "grader.pth", model)
    assert again.report.complete
    jax.tree.map(np.testing.assert_array_equal, again.params, params)
    jax.tree.map(np.testing.assert_array_equal, again.model_state, state)


def small(**fields):
    return ResNet50(num_classes_embedding=4, depths=(1, 1), width=4, hidden=3, **fields)


def test_a_network_of_torchvision_starts_a_grader(tmp_path):
    model = small()
    variables = model.init(jax.random.key(0), jnp.ones((1, 16, 16, 2)))
    state = {"batch_stats": variables["batch_stats"]}
    theirs = bob.weights.to_torch(variables["params"], model, state)
    theirs = {
        name.removeprefix("net."): array for name, array in theirs.items() if name.startswith("net.layer")
    }
    theirs |= {"conv1.weight": np.ones((4, 3, 7, 7), np.float32), "fc.weight": np.ones((9, 32), np.float32)}
    torch_files.save(tmp_path / "resnet.pth", theirs)
    new = r"^(conv1\.bias|bn1|attention\d|fc\d)\b"
    read = bob.weights.read(tmp_path / "resnet.pth", model, stem="average", new=new, seed=1)
    np.testing.assert_array_equal(read.params["conv1"]["kernel"], np.full((7, 7, 2, 4), 1.5))
    for name in ("layer1_0", "layer2_0"):
        jax.tree.map(np.testing.assert_array_equal, read.params[name], variables["params"][name])


def test_the_bounded_head_does_not_saturate():
    x = 1000 * jax.random.normal(jax.random.key(1), (8, 64))
    for bounded in (True, False):
        head = GatedHead(squash=True, bounded=bounded)
        variables = head.init(jax.random.key(0), x, jnp.ones((8, 4)))
        grade = head.apply(variables, x, jnp.ones((8, 4)))
        assert (jnp.abs(grade - 0.5) < 0.49).all() == bounded


def test_learned_embeddings_a_detector_and_a_squashed_grade():
    model = small(learned_classes=5, squash=True, detection=True)
    x = jnp.ones((3, 16, 16, 2))
    variables = model.init(jax.random.key(0), x)
    grade, score = model.apply(variables, x, jnp.array([0, 1, 0]))
    assert grade.shape == score.shape == (3,)
    assert ((grade > 0) & (grade < 1)).all()
    assert grade[0] == grade[2] != grade[1]


@pytest.mark.parametrize(
    ("embedding", "what"),
    [
        (None, r"embeddings of shape \(2, 4\), one per sample, got none"),
        (jnp.zeros((2, 3)), r"got float32 of shape \(2, 3\)"),
    ],
)
def test_a_missing_or_misshapen_embedding_is_one_line(embedding, what):
    x, model = jnp.ones((2, 16, 16, 2)), small()
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    with pytest.raises(ValueError, match=what):
        jax.eval_shape(model.apply, variables, x, embedding)


def test_slices_of_another_shape_are_one_line():
    with pytest.raises(ValueError, match=r"slices are \(2, 16, 16, 3\), expected \(b, h, w, 2\)"):
        jax.eval_shape(small().init, jax.random.key(0), jnp.ones((2, 16, 16, 3)))
