import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax import weights
from ukbob_jax.errors import ConfigError
from ukbob_jax.models.card import ModelCard
from ukbob_jax.models.swin_unetr import ARCHITECTURE
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.weights import aliases, coverage, files, tensors

FIELDS = {"feature_size": 4, "num_heads": (1, 2, 2, 4), "window_size": 3, "depths": (1, 2, 1, 1)}
MODEL = SwinUNETR(2, 3, **FIELDS)
ENCODER_ONLY = ("decoder", "head")


def state_dict(model=MODEL, seed=0):
    """Random numbers under MONAI's names and shapes, with the integer tables."""
    rng = np.random.default_rng(seed)
    want = tensors.expected(model)
    floats = {name: rng.normal(size=tensor.torch_shape).astype(np.float32) for name, tensor in want.items()}
    counts = {name: np.array(7, np.int64) for name in floats if name.endswith("num_batches_tracked")}
    return floats | counts | ARCHITECTURE.torch.buffers(model)


def write(path, tensors, **texts):
    """A file as others would leave it, without our description."""
    from ukbob_jax.weights import torch_files

    torch_files.save(path, tensors, texts)
    return path


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, name
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.reference
def test_a_whole_monai_checkpoint_comes_back_bitwise(reference):
    theirs = dict(np.load(reference / "swin_unetr" / "swin_A_state_dict.npz"))
    model = SwinUNETR(1, 5, 12)
    params = weights.from_monai(theirs, model)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    same(weights.to_monai(params, model), theirs)


@pytest.mark.parametrize(
    "fields",
    [
        *({"use_v2": True, "patch_norm": True}, {"norm": "batch"}, {"norm": "group", "qkv_bias": False}),
        *({"norm": "instance_affine"}, {"norm": "layer"}, {"norm": "batch", "norm_affine": False}),
    ],
)
def test_every_kind_of_model_comes_back_bitwise(fields):
    model = SwinUNETR(2, 3, **FIELDS, **fields)
    theirs = state_dict(model)
    params, state = weights.from_monai(theirs, model), weights.state_from_torch(theirs, model)
    same(weights.to_monai(params, model, state), theirs)
    expected = tensors.variables(model)
    assert jax.tree.map(jnp.shape, {"params": params, **state}) == jax.tree.map(jnp.shape, dict(expected))


def test_gradient_trees_keep_their_type():
    tree = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights.from_monai(state_dict(), MODEL))
    assert weights.to_monai(tree, MODEL)["out.conv.conv.bias"].dtype == np.float64


def test_missing_extra_and_misshaped_keys_are_all_named():
    theirs = state_dict()
    del theirs["out.conv.conv.bias"], theirs["swinViT.layers2.0.blocks.1.norm1.weight"]
    theirs |= {
        "surprise": np.zeros(3, np.float32),
        "decoder1.transp_conv.conv.weight": np.zeros((1, 2), np.float32),
    }
    theirs["swinViT.layers1.0.blocks.0.attn.relative_position_index"] += 1
    with pytest.raises(ValueError) as error:
        weights.from_monai(theirs, MODEL)
    for word in (
        *("2 missing", "out.conv.conv.bias", "blocks.1.norm1.weight", "1 unexpected: surprise", "(1, 2)"),
        *("decoder1.transp_conv.conv.weight", "relative_position_index (the table of another model"),
    ):
        assert word in str(error.value)
    with pytest.raises(ValueError, match=r"missing head/bias.*unexpected head/b"):
        params = weights.from_monai(state_dict(), MODEL)
        weights.to_monai({**params, "head": {"kernel": params["head"]["kernel"], "b": np.zeros(3)}}, MODEL)


def test_integer_weights_are_refused():
    theirs = state_dict() | {"out.conv.conv.bias": np.zeros(3, np.int8)}
    with pytest.raises(ValueError, match=r"out.conv.conv.bias \(int8"):
        weights.from_monai(theirs, MODEL)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_saved_weights_come_back_bitwise_with_their_description(tmp_path, suffix):
    model = SwinUNETR(2, 3, **FIELDS, norm="batch")
    theirs = state_dict(model)
    params, state = weights.from_monai(theirs, model), weights.state_from_torch(theirs, model)
    facts = {
        "labels": {0: "background", 1: "liver"},
        "spacing_mm": (1.5, 1.5, 3.0),
        "provenance": {"seed": 3},
    }
    card = ModelCard.of(model, **facts)
    path = tmp_path / f"weights{suffix}"
    weights.save(path, params, model, model_state=state, card=card)
    first = path.read_bytes()
    loaded = weights.read(path, model, labels=facts["labels"])
    same(weights.to_monai(loaded.params, model, loaded.model_state), theirs)
    assert loaded.report.complete and len(loaded.report.matched) == len(tensors.expected(model))
    assert loaded.card == card and loaded.card.build() == model
    weights.save(path, params, model, model_state=state, card=card)
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"downsample": "merging_legacy"}, "downsample 'merging', not 'merging_legacy'"),
        ({"normalize": False}, "normalize True, not False"),
        ({"norm": "layer", "norm_affine": False}, "norm 'instance', not 'layer'"),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused_though_its_shapes_fit(tmp_path, fields, words):
    path = tmp_path / "weights.safetensors"
    weights.save(
        path,
        weights.from_monai(state_dict(), MODEL),
        MODEL,
        card=ModelCard.of(MODEL, labels={0: "background"}),
    )
    with pytest.raises(ValueError, match=words):
        weights.load(path, SwinUNETR(2, 3, **FIELDS, **fields))
    with pytest.raises(ValueError, match="labels"):
        weights.load(path, MODEL, labels={0: "air"})
    weights.load(
        path, SwinUNETR(2, 3, **{**FIELDS, "window_size": (3, 3, 3)}, dtype=jnp.bfloat16, remat=True)
    )


@pytest.mark.parametrize(
    "prefix", ["", "module.", "net.", "model.", "backbone.", "module.backbone.", "_orig_mod."]
)
def test_trainers_prefixes_are_taken_off(tmp_path, prefix):
    theirs = state_dict()
    path = write(tmp_path / "a.pt", {prefix + name: array for name, array in theirs.items()})
    same(weights.to_monai(weights.load(path, MODEL), MODEL), theirs)


@pytest.mark.parametrize("prefix", ["student.backbone.", "SwinUNETR.", "_forward_module.module."])
def test_the_one_network_of_a_file_may_stand_under_any_name(tmp_path, prefix):
    theirs = state_dict()
    tensors = {prefix + name.replace("swinViT.", "swin_vit."): array for name, array in theirs.items()}
    same(weights.to_monai(weights.load(write(tmp_path / "a.pt", tensors), MODEL), MODEL), theirs)
    two = ["a.patch_embed.proj.weight", "b.patch_embed.proj.weight"]
    assert not aliases.wrapping(two, ARCHITECTURE.torch)


def test_of_two_networks_one_is_dropped_by_name(tmp_path):
    theirs, other = state_dict(), state_dict(seed=1)
    tensors = {f"student.{name}": array for name, array in theirs.items()}
    tensors |= {f"teacher.{name}": array for name, array in other.items()} | {"teacher.head": np.zeros(2)}
    path = write(tmp_path / "a.pt", tensors)
    with pytest.raises(ValueError, match="drop="):
        weights.load(path, MODEL)
    loaded = weights.read(path, MODEL, drop=r"^teacher\.")
    same(weights.to_monai(loaded.params, MODEL), theirs)
    assert len(loaded.report.left_out) == len(other) + 1


@pytest.mark.parametrize("option", ["new", "drop"])
def test_a_pattern_that_is_none_is_refused_by_its_option(tmp_path, option):
    path = write(tmp_path / "a.pt", {k: v for k, v in state_dict().items() if not k.startswith("out")})
    with pytest.raises(ConfigError, match=rf"{option}='\(' is no regular expression"):
        weights.load(path, MODEL, **{option: "("})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_of_a_diverged_training_are_refused(tmp_path, value):
    path = write(tmp_path / "a.pt", state_dict() | {"out.conv.conv.bias": np.full(3, value, np.float32)})
    with pytest.raises(ValueError, match=r"1 tensors hold NaN or infinity, such as out\.conv\.conv\.bias"):
        weights.load(path, MODEL)


@pytest.mark.parametrize(
    "layout", ["", "module.", "swinViT.", "module.swin_vit.", "encoder.", "encoder.deeper."]
)
def test_self_supervised_encoders_load_when_the_rest_may_be_new(tmp_path, layout):
    theirs, tensors = state_dict(), {}
    for name, array in theirs.items():
        if name.startswith("swinViT."):
            tail = name.removeprefix("swinViT.").replace("mlp.linear", "mlp.fc")
            if layout == "encoder.deeper.":
                tail = tail.replace(".0.blocks.", ".0.0.blocks.").replace(
                    ".0.downsample.", ".0.0.downsample."
                )
            tensors[layout.replace("deeper.", "") + tail] = array
    heads = [
        "module.rotation_head.weight",
        "module.contrastive_head.bias",
        "module.convTrans3d.weight",
        "student.layer1.0.weight",
        "encoder.norm.bias",
    ]
    path = write(tmp_path / "ssl.pt", tensors | {name: np.zeros(2, np.float32) for name in heads})
    with pytest.raises(ValueError, match=r"missing: .*decoder1"):
        weights.load(path, MODEL)
    loaded = weights.read(path, MODEL, new=ENCODER_ONLY, init=weights.from_monai(state_dict(seed=1), MODEL))
    assert set(loaded.report.left_out) == set(heads)
    result, other = weights.to_monai(loaded.params, MODEL), state_dict(seed=1)
    same(result, {name: (theirs if name.startswith("swinViT.") else other)[name] for name in theirs})


def test_new_parts_are_initialised_from_the_seed(tmp_path):
    theirs = {name: array for name, array in state_dict().items() if not name.startswith("out.")}
    path = write(tmp_path / "a.pt", theirs)
    a, b, c = (weights.load(path, MODEL, new="^out", seed=seed)["head"]["kernel"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-3


def test_a_head_of_other_classes_is_new_only_on_request(tmp_path):
    theirs = state_dict(SwinUNETR(2, 7, **FIELDS))
    path = write(tmp_path / "a.pt", theirs)
    with pytest.raises(ValueError, match=r"out.conv.conv.bias \(shape \(7,\), the model has \(3,\)\)"):
        weights.load(path, MODEL)
    init = weights.from_monai(state_dict(seed=1), MODEL)
    loaded = weights.read(path, MODEL, head="new", init=init)
    assert set(loaded.report.new) == {"out.conv.conv.weight", "out.conv.conv.bias"}
    np.testing.assert_array_equal(loaded.params["head"]["bias"], init["head"]["bias"])


def test_an_averaged_stem_answers_equal_channels_as_before(tmp_path):
    one = SwinUNETR(1, 3, **FIELDS)
    theirs = state_dict(one)
    path = write(tmp_path / "a.pt", theirs)
    with pytest.raises(ValueError, match="3 reshaped"):
        weights.load(path, MODEL)
    loaded = weights.read(path, MODEL, stem="average")
    assert set(loaded.report.averaged) == set(coverage.part(MODEL, "stem"))
    old = weights.from_monai(theirs, one)
    for place in (("swin", "patch_embed"), ("encoder1", "conv1"), ("encoder1", "conv3")):
        a, b = (tree[place[0]][place[1]]["kernel"] for tree in (old, loaded.params))
        np.testing.assert_allclose(b.sum(3), a.sum(3), rtol=1e-6)
        np.testing.assert_array_equal(b[..., 0, :], b[..., 1, :])


def test_weights_of_version_2_do_not_pass_for_version_1(tmp_path):
    path = write(
        tmp_path / "voco.pt",
        {"net." + k: v for k, v in state_dict(SwinUNETR(2, 3, **FIELDS, use_v2=True)).items()},
    )
    with pytest.raises(ValueError, match=r"8 unexpected: swinViT.layers1c.0.layer.conv1.conv.weight"):
        weights.load(path, MODEL)
    weights.load(path, SwinUNETR(2, 3, **FIELDS, use_v2=True))


def test_two_tensors_of_one_name_are_refused(tmp_path):
    path = write(
        tmp_path / "a.pt",
        {"module.out.conv.conv.bias": np.zeros(3, np.float32), "out.conv.conv.bias": np.zeros(3, np.float32)},
    )
    with pytest.raises(ValueError, match=r"both out\.conv\.conv\.bias"):
        weights.load(path, MODEL)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_flipped_bit_is_noticed(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    weights.save(path, weights.from_monai(state_dict(), MODEL), MODEL)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match=str(path)):
        weights.load(path, MODEL)


@pytest.mark.parametrize("name", ["w.npz", "w.pt", "w.safetensors"])
def test_missing_or_foreign_files_are_refused_by_name(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}: no such file"):
        weights.load(tmp_path / name, MODEL)
    (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=name):
        weights.load(tmp_path / name, MODEL)


def test_a_safetensors_file_of_others_loads(tmp_path):
    import safetensors.numpy

    theirs = state_dict()
    half = {
        name: array.astype(np.float16) if array.dtype == np.float32 else array
        for name, array in theirs.items()
    }
    safetensors.numpy.save_file(half, tmp_path / "a.safetensors")
    params = weights.load(tmp_path / "a.safetensors", MODEL)
    np.testing.assert_array_equal(params["head"]["bias"], half["out.conv.conv.bias"].astype(np.float32))
    assert files.read(tmp_path / "a.safetensors").description is None
