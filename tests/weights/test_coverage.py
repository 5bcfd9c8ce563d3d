"""How far tensors cover a model, and what may be made to fit on request."""

import numpy as np
import pytest

from tests.tiny_network import Tiny
from tests.weights.monai_files import FIELDS, MODEL, state_dict, write
from ukbob_jax import weights
from ukbob_jax.errors import ConfigError
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.weights import coverage, tensors


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


@pytest.mark.parametrize("option", ["new", "drop"])
def test_a_pattern_that_is_none_is_refused_by_its_option(tmp_path, option):
    path = write(tmp_path / "a.pt", {k: v for k, v in state_dict().items() if not k.startswith("out")})
    with pytest.raises(ConfigError, match=rf"{option}='\(' is no regular expression"):
        weights.load(path, MODEL, **{option: "("})


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


TINY = Tiny(2, 3, width=5)


def tiny(model=TINY, seed=0):
    """Random numbers under the names of the tiny network's PyTorch class."""
    rng = np.random.default_rng(seed)
    want = tensors.expected(model)
    return {name: rng.normal(size=tensor.torch_shape).astype(np.float32) for name, tensor in want.items()}


def test_a_report_names_what_differs_and_is_complete_only_without():
    assert coverage.compare(tiny(), TINY).complete and coverage.compare(tiny(), TINY).problems() == ""
    changed = tiny() | {"seg.bias": np.zeros(4, np.float32), "more": np.zeros(1)}
    del changed["backbone.fine.bias"]
    report = coverage.compare(changed, TINY)
    assert not report.complete and len(report.matched) == len(tiny()) - 2
    assert report.problems() == (
        "1 missing: backbone.fine.bias; 1 unexpected: more; "
        "1 reshaped: seg.bias (shape (4,), the model has (3,))"
    )
    assert str(report).splitlines()[:3] == [
        f"matched: {len(tiny()) - 2}",
        "missing: 1",
        "  backbone.fine.bias",
    ]


def test_what_may_be_new_is_no_problem_and_the_rest_stays_one():
    changed = {name: array for name, array in tiny().items() if not name.startswith("seg.")}
    changed["backbone.fine.bias"] = np.zeros(9, np.float32)
    report = coverage.compare(changed, TINY)
    head = coverage.mark_reinitialised(report, coverage.may_be_new(TINY, ("head",)))
    assert (
        set(head.new) == {"seg.weight", "seg.bias"}
        and not head.missing
        and set(head.reshaped) == {"backbone.fine.bias"}
    )
    every = coverage.mark_reinitialised(report, coverage.may_be_new(TINY, "bias$"))
    assert set(every.new) == {"seg.bias", "backbone.fine.bias"} and every.missing == ("seg.weight",)
    assert coverage.mark_reinitialised(report, coverage.may_be_new(TINY, "")) == report


def test_parts_are_those_that_the_architecture_says():
    assert coverage.part(TINY, "stem") == ("backbone.fine.weight",)
    assert set(coverage.part(TINY, "head")) == {"seg.weight", "seg.bias"}
    with pytest.raises(
        ConfigError, match=r"'tests.tiny_network' has no part 'decoder'; there are: stem, encoder, head"
    ):
        coverage.part(TINY, "decoder")


def test_copies_count_once_and_must_agree():
    named = tiny()
    first = named.pop("backbone.fine.weight")
    once, differing = coverage.without_copies(named | {"fine_again.weight": first}, TINY)
    assert not differing and set(once) == set(tiny())
    np.testing.assert_array_equal(once["backbone.fine.weight"], first)
    _, differing = coverage.without_copies(tiny() | {"fine_again.weight": first + 1}, TINY)
    assert list(differing) == ["fine_again.weight"]
    nan = {"backbone.fine.weight": np.full(2, np.nan), "fine_again.weight": np.full(2, np.nan)}
    assert not coverage.without_copies(nan, TINY)[1]


def test_an_averaged_stem_keeps_the_sum_over_channels():
    one = Tiny(1, 3, width=5)
    kept, fresh, averaged = coverage.adapt_channels_and_head(tiny(one), TINY, head="new", stem="average")
    assert set(fresh) == {"seg.weight", "seg.bias"} and not set(fresh) & set(kept)
    assert averaged == ("backbone.fine.weight",)
    kernel, old = kept["backbone.fine.weight"], tiny(one)["backbone.fine.weight"]  # o i z y x
    np.testing.assert_allclose(kernel.sum(1), old.sum(1), rtol=1e-6)
    np.testing.assert_array_equal(kernel[:, 0], kernel[:, 1])
    same, fresh, averaged = coverage.adapt_channels_and_head(tiny(), TINY, head="match", stem="average")
    assert not fresh and not averaged and same.keys() == tiny().keys()
