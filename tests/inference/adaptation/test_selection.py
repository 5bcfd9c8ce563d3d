"""Which parameters may change."""

import pytest

from ukbob_jax.inference.adaptation import selection


def test_selection_finds_norms_by_name_and_names_them_when_empty():
    tree = {
        "layers1": {"norm1": {"scale": 1, "bias": 2}, "attn": {"kernel": 3}, "LayerNorm_0": {"scale": 4}},
        "normal_head": {"bias": 5},
        "instance_norm": {"bias": 6},
        "norm_out": {"scale": 7},
        "unnormed": {"bias": 8},
    }
    chosen, others = selection.split(tree)
    assert sorted(chosen.values()) == [1, 2, 4, 6, 7]
    assert selection.join(chosen, others) == tree
    with pytest.raises(
        ValueError, match=r"'decoder'\. Norm-like paths are instance_norm/bias, layers1/LayerNorm_0"
    ):
        selection.split(tree, "decoder")
    with pytest.raises(ValueError, match="none looks like a norm"):
        selection.split({"out": {"kernel": 1}})
    with pytest.raises(ValueError, match="not a regular expression"):
        selection.split(tree, "(")
