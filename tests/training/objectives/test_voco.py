"""VoCo: overlaps, and the loss in three forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.objectives.conftest import check
from ukbob_jax.errors import ConfigError
from ukbob_jax.training.objectives import contrast
from ukbob_jax.training.objectives.voco import (
    VocoOptions,
    authors_ce,
    cut,
    overlaps,
    similarity,
    voco,
    voco_authors,
)


@pytest.fixture(scope="module")
def given(ssl):
    found = ssl("voco")
    return found.values, *(found.arrays[f"voco_{name}"] for name in ("base", "target", "overlaps"))


@pytest.mark.reference
def test_overlaps_equal_the_reference(given):
    case = given[0]["nnssl_overlap"]
    found = overlaps(
        np.array(case["offsets"]), case["crop_size"], case["volume_shape"][2:], case["base_crop_count"]
    )
    np.testing.assert_array_equal(found, np.array(case["overlaps"], np.float32))


@pytest.mark.reference
def test_the_authors_labels_are_the_same_overlaps(given):
    for case in given[0]["authors_labels"]["cases"]:
        roi, n = case["roi"], case["num_crops"]
        x, y = (centre - roi // 2 for centre in case["center"])
        found = overlaps(np.array([[x, y, 0]]), (roi,) * 3, (roi * n, roi * n, roi), (n, n, 1))
        np.testing.assert_allclose(found[0], case["label"], atol=1e-7)


@pytest.mark.reference
def test_nnssls_form_equals_the_reference(given):
    values, base, target, overlap = given
    np.testing.assert_allclose(similarity(target, base), values["nnssl_similarity"], atol=1e-6)
    both = {"names": ("b", "t")}
    check(lambda b, t: voco(b, t, overlap).prediction, values["nnssl_prediction"], base, target, **both)
    check(lambda b: voco(b, target, overlap).regulariser, values["nnssl_regulariser"], base, names=("b",))
    check(lambda b, t: voco(b, t, overlap).total, values["nnssl_total"], base, target, **both)
    weighted = lambda b, t: voco(b, t, overlap, weights=(0.5, 2.0)).total  # noqa: E731
    check(weighted, values["nnssl_total_w_half_two"], base, target, **both)
    every = np.full_like(overlap, 1 / base.shape[1])
    check(lambda t: voco(base, t, every).prediction, values["nnssl_no_negatives"], target, names=("t",))


@pytest.mark.reference
def test_the_first_form_equals_the_reference(given):
    values, base, target, overlap = given
    one = voco(base[:1], target[:1], overlap[:1], "first")
    np.testing.assert_allclose(one.prediction, values["v1_ce"]["value"], rtol=1e-5)
    check(
        lambda b: voco(b[None], target[:1], overlap[:1], "first").regulariser,
        values["v1_base"],
        base[0],
        names=("b",),
    )


@pytest.mark.reference
def test_the_authors_form_equals_the_reference(ssl):
    found = ssl("voco")
    names = ("x_student", "bases_student", "x_teacher", "bases_teacher")
    arrays = [found.arrays[f"vocoA_{name}"] for name in names]
    labels = found.arrays["vocoA_labels"]
    check(
        lambda *features: voco_authors(*features, labels).total, found.values["authors_total"], *arrays,
        names=("xs", "bs", "xt", "bt"),
    )  # fmt: skip
    parts = voco_authors(*arrays, labels)
    for ours, theirs in (("intra", "intra"), ("inter", "inter"), ("regulariser", "reg")):
        want = np.mean(found.values["authors_parts_per_volume"][theirs])
        np.testing.assert_allclose(getattr(parts, ours), want, rtol=1e-5)


@pytest.mark.reference
def test_the_authors_cross_entropy_equals_the_reference(given):
    values, base, target, overlap = given
    s = similarity(target, base)[:1]
    check(lambda s: authors_ce(overlap[:1], s[None])[0], values["authors_ce"], s[0], names=("s",))


@pytest.mark.reference
def test_the_projections_norm_is_nnssls(ssl):
    found = ssl("voco")
    x = found.arrays["voco_projector_norm_in"]
    norm = contrast.nn.LayerNorm(1e-5, use_bias=False, use_scale=False)
    want = found.values["nnssl_projector_norm"]["out"]["result"]
    np.testing.assert_allclose(norm.apply({}, x), want, atol=1e-5)


def test_terms_without_members_are_zero():
    rng = np.random.default_rng(0)
    base, target = rng.normal(size=(2, 1, 8)), rng.normal(size=(2, 3, 8))
    for form in ("nnssl", "first"):
        loss = voco(base, target, np.zeros((2, 3, 1)), form)
        assert loss.regulariser == 0 and np.isfinite(loss.prediction)
        assert np.isfinite(voco(base, target, np.ones((2, 3, 1)), form).total)


def test_crops_that_tile_the_volume_share_all_of_it():
    offsets = np.random.default_rng(0).integers(0, 5, (2, 9, 3))
    found = overlaps(offsets, (4, 4, 4), (8, 8, 8), (2, 2, 2))
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
    assert overlaps(np.array([[4, 0, 4]]), (4, 4, 4), (8, 8, 8), (2, 2, 2))[0, 5] == 1  # x slowest
    with pytest.raises(ConfigError, match=r"config.pretrain.grid: \(3, 2, 2\) base crops"):
        overlaps(offsets, (4, 4, 4), (8, 8, 8), (3, 2, 2))


def test_a_perfect_prediction_has_no_loss_but_the_regulariser():
    base = jnp.eye(4)[None]
    loss = voco(base, base, jnp.eye(4)[None])
    np.testing.assert_allclose(loss.total, 0, atol=1e-5)
    with pytest.raises(ValueError, match="do not belong together"):
        voco(base, base, jnp.ones((1, 4, 3)))
    with pytest.raises(ValueError, match="form='mine'"):
        voco(base, base, jnp.eye(4)[None], "mine")
    assert jax.jit(voco, static_argnames="form")(base, base, jnp.eye(4)[None]).total.dtype == jnp.float32


def test_crops_are_cut_where_their_overlaps_say():
    """Voxels tell where they are, so a crop's first voxel is its start."""
    place = np.stack(np.indices((8, 8, 4)), -1).astype(np.float32)
    batch = {"image": jnp.stack([place, place + 100]), "kept": jnp.arange(2)}
    found = jax.jit(lambda key: cut(key, batch, grid=(2, 2, 1), targets=60))(jax.random.key(0))
    rows = np.asarray(found["image"]).reshape(2, 64, 4, 4, 4, 3)
    assert (found["kept"] == batch["kept"]).all()
    starts = rows[:, :, 0, 0, 0] - np.array([0, 100]).reshape(2, 1, 1)
    np.testing.assert_array_equal(starts[0, :4], [[0, 0, 0], [0, 4, 0], [4, 0, 0], [4, 4, 0]])
    offset = np.array([0, 100]).reshape(2, 1, 1, 1, 1, 1)
    np.testing.assert_array_equal(
        rows - offset - starts[:, :, None, None, None], np.broadcast_to(place[:4, :4], rows.shape)
    )
    expected = overlaps(starts[:, 4:].astype(int), (4, 4, 4), (8, 8, 4), (2, 2, 1))
    np.testing.assert_array_equal(found["overlap"], expected)
    assert starts[:, 4:, 0].max() == 4 and starts[:, 4:, 2].max() == 0  # the last place is reached
    assert (starts[0, 4:] != starts[1, 4:]).any()


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"grid": (1, 1, 1)}, r"grid: \(1, 1, 1\)"),
        ({"targets": 0}, "targets: 0"),
        ({"form": "x"}, "form: 'x'"),
    ],
)
def test_options_that_cannot_be_used_are_refused(fields, named):
    with pytest.raises(ConfigError, match=f"config.pretrain.{named}"):
        VocoOptions(**fields)
