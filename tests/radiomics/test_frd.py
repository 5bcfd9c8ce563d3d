"""Frechet radiomic distance beside frd-score's own values, and what must hold whatever the values."""

import json
import warnings

import numpy as np
import pytest

from ukbob_jax import errors, radiomics
from ukbob_jax.radiomics import frechet, normalise
from ukbob_jax.radiomics.frd import align, compare, shifts
from ukbob_jax.radiomics.ood import Detector
from ukbob_jax.radiomics.uncertainty import certainty

ROOT_TOLERANCE = (
    1e-6  # absolute, of d2: roots of singular products keep half the digits (the reference's README)
)


@pytest.fixture(scope="module")
def cases(reference):
    return json.loads((reference / "radiomics" / "frd.json").read_text())


@pytest.fixture(scope="module")
def arrays(reference):
    return dict(np.load(reference / "radiomics" / "frd.npz"))


def moments(table):
    return table.mean(0), np.cov(table, rowvar=False)


def number(value):
    return np.array(value, dtype=float)  # also "nan" and "-inf"


def made(n=14, f=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, f)) @ rng.normal(size=(f, f)) + 3


@pytest.mark.reference
def test_distances_of_tables_and_moments(cases, arrays):
    for name, wanted in cases["frechet"].items():
        tables = arrays[f"case_{name}_x"], arrays[f"case_{name}_y"]
        given = *moments(tables[0]), *moments(tables[1])
        for found in (frechet.of_tables(*tables), frechet.of_moments(*given), frechet.released(*given)):
            assert found == pytest.approx(wanted["value"], abs=ROOT_TOLERANCE), name
            assert found == pytest.approx(wanted["eigen_form"], abs=ROOT_TOLERANCE), name


@pytest.mark.reference
def test_distances_of_given_moments(cases):
    for name, case in cases["frechet_given_moments"].items():
        given = [number(case[key]) for key in ("mu1", "sigma1", "mu2", "sigma2")]
        np.testing.assert_allclose(frechet.released(*given), number(case["value"]), atol=1e-12, err_msg=name)
        wanted = (
            0.0 if name == "huge_scale" else number(case["value"])
        )  # equal moments, where the released form overflows
        np.testing.assert_allclose(frechet.of_moments(*given), wanted, atol=1e-12, err_msg=name)


@pytest.mark.reference
def test_root_that_is_not_finite_is_taken_again_with_an_offset(cases, arrays, monkeypatch):
    root, calls = frechet.scipy.linalg.sqrtm, []

    def broken(matrix):
        calls.append(matrix)
        return np.full_like(matrix, np.nan) if len(calls) == 1 else root(matrix)

    monkeypatch.setattr(frechet.scipy.linalg, "sqrtm", broken)
    found = frechet.released(*moments(arrays["set_a"]), *moments(arrays["set_b"]))
    wanted = cases["non_finite_root_branch"]
    assert found == pytest.approx(wanted["value"], abs=ROOT_TOLERANCE)
    assert len(calls) == wanted["calls"]
    assert np.linalg.norm(calls[1]) == pytest.approx(wanted["second_argument_checksum"]["l2"])


@pytest.mark.reference
def test_normalisation(arrays):
    a, b = arrays["set_a"], arrays["set_b"]
    gap = a.copy()
    gap[2, 1] = np.nan
    flat, other = np.c_[a, np.full(len(a), 2.0)], np.c_[b, np.arange(len(b))]
    raw = {"fill": False, "constant_to_zero": False}
    found = {
        "zscore_own": normalise.z_score(a),
        "zscore_ref_a_on_b": normalise.z_score(b, a),
        "zscore_nan": normalise.z_score(gap),
        "zscore_nan_kept": normalise.z_score(gap, fill=False),
        "zscore_constant_handled": normalise.z_score(flat),
        "zscore_constant_raw": normalise.z_score(flat, **raw),
        "zscore_constant_in_ref_raw": normalise.z_score(other, flat, **raw),
        "minmax_joint": normalise.min_max(a, np.concatenate([a, b])),
        "minmax_constant": normalise.min_max(np.full((3, 1), 4.0)),
    }
    assert {f"norm_{name}" for name in found} == {name for name in arrays if name.startswith("norm_")}
    for name, values in found.items():
        np.testing.assert_allclose(values, arrays[f"norm_{name}"], rtol=1e-12, atol=1e-12, err_msg=name)


def pipelines(arrays):
    a, b = arrays["set_a"], arrays["set_b"]

    def with_column(table, values):
        return np.c_[table, np.broadcast_to(values, len(table))]

    flat, other = with_column(a, 2.0), with_column(b, np.arange(len(b)))
    return {
        "v1": (a, b),
        "v1_swapped": (b, a),
        "v1_same_set": (a, a),
        "v0": (a, b),
        "v0_swapped": (b, a),
        "v1_joint": (a, b),
        "v1_independent": (a, b),
        "v1_constant_in_reference": (flat, other),
        "v0_constant_in_reference": (flat, other),
        "v1_constant_in_test_only": (other, flat),
        "v1_constant_0.1_in_both": (with_column(a, 0.1), with_column(b, 0.1)),
        "v1_constant_0.1_reference_0.2_test": (with_column(a, 0.1), with_column(b, 0.2)),
        "v1_nan_in_one_image": (a, arrays["pipe_nan_b"]),
        "v1_inf_in_one_image": (a, arrays["pipe_inf_b"]),
        "v1_one_image": (a, b[:1]),
        "v1_more_features_than_images": (a[:4], b[:5]),
    }


# where the corrected form means to differ: constants that the released code lets pass, infinity as a missing value
CORRECTED = {
    "v1_constant_0.1_reference_0.2_test": "v1",
    "v1_constant_0.1_in_both": "v1",
    "v1_inf_in_one_image": "v1_nan_in_one_image",
}


@pytest.mark.reference
@pytest.mark.parametrize("form", ["released", "corrected"])
def test_pipelines(cases, arrays, form):
    tried = pipelines(arrays)
    assert set(tried) == set(cases["pipeline"])
    for name, (reference, other) in tried.items():
        options = {
            "version": name[:2],
            "scale": {"v1_joint": "joint", "v1_independent": "independent"}.get(name, ""),
        }
        wanted = cases["pipeline"][CORRECTED.get(name, name) if form == "corrected" else name]
        if "raises" in wanted:
            with pytest.raises(errors.ValuesError, match="two or more"):
                compare(reference, other, form=form, **options)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = compare(reference, other, form=form, **options)
        # of d2: float32 z-scores have seven digits, their squares summed six
        np.testing.assert_allclose(found.d2, wanted["d2"], rtol=1e-6, atol=ROOT_TOLERANCE, err_msg=name)
        np.testing.assert_allclose(found.value, number(wanted["reported"]), rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(found.paper, number(wanted["paper_formula"]), rtol=1e-6, err_msg=name)
        assert [int(rows.sum()) for rows in (found.reference_rows, found.other_rows)] == wanted["n"], name
        kept = [f"f{i}" for i in np.flatnonzero(found.features)]
        assert kept == wanted["kept"], name


@pytest.mark.reference
@pytest.mark.parametrize("distribution", ["gaussian", "t", "counting"])
def test_scores_of_single_images(cases, arrays, distribution):
    wanted = cases["ood"][distribution]
    test = Detector.fit(arrays["set_a"], distribution=distribution, scaled=False, form="released")
    assert test.threshold == pytest.approx(wanted["threshold"], rel=1e-12)
    np.testing.assert_allclose(test.scores(arrays["ood_test"]), wanted["scores"], rtol=1e-12)
    np.testing.assert_allclose(
        test.p_values(arrays["ood_test"]), wanted["p_values"], atol=1e-15
    )  # theirs is 1 - cdf
    assert test.outside(arrays["ood_test"]).tolist() == wanted["predictions"]
    assert radiomics.nfrd(arrays["set_a"], arrays["ood_test"], scaled=False) == pytest.approx(
        cases["ood"]["nfrd"]
    )
    assert radiomics.nfrd(arrays["set_a"], arrays["set_a"], scaled=False) == cases["ood"]["nfrd_same"]


@pytest.mark.reference
def test_distance_of_real_slices_from_their_vectors(reference):
    stored = json.loads((reference / "radiomics" / "frd_images.json").read_text())
    vectors = np.load(reference / "radiomics" / "frd_images.npz")
    for version, tolerance in (("v0", 1e-6), ("v1", 1e-4)):
        a, b = vectors[f"{version}_a"], vectors[f"{version}_b"]
        for form in ("released", "corrected"):
            ways = (((a, b), "a_to_b"), ((b, a), "b_to_a"))
            for pair, key in ways[: 1 if form == "released" else 2]:  # a root of 398 x 398 takes a while
                found = radiomics.frd(*pair, version=version, form=form)
                assert found == pytest.approx(stored[version][key], rel=tolerance), (version, form, key)


def test_v1_does_not_depend_on_units_or_on_the_order_of_images():
    a, b = made(seed=1), made(seed=2) + 0.5
    scale, shift = np.array([1e-9, 1.0, 1e6, -3.0, 7.0]), np.arange(5.0)
    found = radiomics.frd(a, b)
    assert radiomics.frd(a * scale + shift, b * scale + shift) == pytest.approx(found, rel=1e-6)
    assert radiomics.frd(a[::-1], b[::-1]) == pytest.approx(found, rel=1e-9)


def test_a_shift_of_all_images_adds_its_square():
    a = made(f=40)  # more features than images
    assert frechet.of_tables(a, a + 2) == pytest.approx(4 * 40, rel=1e-9)
    found = compare(a, a + a.std(0))
    assert found.d2 == pytest.approx(40, rel=1e-9)
    moved, wider = shifts(a, a + a.std(0))
    np.testing.assert_allclose(moved, 1)
    np.testing.assert_allclose(wider, 0, atol=1e-9)
    flat = np.c_[a[:, 0], np.full(len(a), 0.1)]
    moved, wider = shifts(flat, flat[:, ::-1])
    assert np.isfinite(moved[0]) and wider[0] == -np.inf and np.isnan(moved[1]) and np.isnan(wider[1])


def test_missing_values_cost_a_feature_or_an_image():
    a, b = made(), made(seed=3)
    b[:, 2] = np.nan  # missing everywhere: the feature goes, not every image
    b[0, 0] = np.inf
    with pytest.warns(UserWarning, match="1 of 5 features, 0 of 14 reference images and 1 of 14 others"):
        found = compare(a, b)
    assert found.features.tolist() == [True, True, False, True, True]
    assert found.other_rows.sum() == 13
    assert found.d2 == pytest.approx(compare(a[:, [0, 1, 3, 4]], b[1:, [0, 1, 3, 4]]).d2)


def test_p_values_of_t_agree_with_its_threshold():
    a = made(40)
    test = Detector.fit(a, distribution="t")
    scores = np.linalg.norm((a - a.mean(0)) / a.std(0), axis=1)
    np.testing.assert_allclose(test.reference_scores, scores)
    far = made(60, seed=5) * 1.3
    assert ((test.p_values(far) < 0.05) == test.outside(far)).all()
    assert test.outside(np.full((1, 5), np.nan)).all()


@pytest.mark.parametrize(
    ("reference", "other", "message"),
    [
        (made(), made()[:1], "the second table has 1 rows"),
        (made(), made()[:, :3], "tables of 5 and 3 columns"),
        (made(), np.full((4, 5), np.nan), "no feature varies|images without missing values"),
        (np.ones((4, 2)), made(f=2), "no feature varies"),
        (made()[0], made(), "need a row per image"),
    ],
)
def test_tables_that_cannot_be_used(reference, other, message):
    with pytest.raises(errors.InputError, match=message), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        radiomics.frd(reference, other)


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_certainty_tells_kinds_apart(version):
    rng = np.random.default_rng(0)
    first, far = (rng.normal(size=(60, 3)) + shift for shift in (0, 2))
    apart = certainty(first, far, version=version, draws=60)
    assert apart.p == pytest.approx(1 / 61) and apart.by_chance < apart.low < apart.high
    same = [certainty(*rng.normal(size=(2, 12, 3)), version=version, draws=19).p for _ in range(20)]
    assert 0.3 < np.mean(same) < 0.7  # uniform where both are of one kind: 0.5 +- 0.065
    again = certainty(first, far, version=version, draws=60)
    assert again == apart  # the same seed
    true = (
        12
        if version == "v1"
        else 4 * 3 * 7.45670747756958**2 / np.mean(np.ptp(np.r_[first, far], axis=0) ** 2)
    )
    low, high = (np.exp(v) if version == "v1" else v for v in (apart.low, apart.high))
    assert low < true < high  # means 2 apart in three features of unit spread
    with pytest.raises(errors.ConfigError, match="draws=0"):
        certainty(first, far, draws=0)


def test_text_among_the_features_is_told():
    table = np.array([["p1", 1.0], ["p2", 2.0]], object)
    for call in (lambda: radiomics.frd(table, table), lambda: radiomics.Detector.fit(table)):
        with pytest.raises(errors.ValuesError, match=r"something else than numbers .*'p1'"):
            call()
    test = radiomics.Detector.fit(np.eye(3, 2))
    with pytest.raises(errors.ValuesError, match="table of images"):
        test.scores(table)


def test_values_too_great_to_be_squared_count_as_missing():
    tables = np.random.default_rng(0).normal(size=(2, 6, 3))
    wanted = radiomics.frd(*tables[:, :, 1:])
    tables[0, :, 0] = 1e200
    with pytest.warns(UserWarning, match="1 of 3 features"):
        assert radiomics.frd(*tables) == wanted


@pytest.mark.parametrize("distribution", ["gaussian", "t", "counting"])
def test_p_values_of_scores_that_are_equal_or_missing(distribution):
    test = radiomics.Detector.fit(np.array([[0.0, 1.0], [1.0, 0.0]]), distribution=distribution)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = test.p_values(np.array([[9.0, 9.0], [np.nan, 0.0]]))
    assert 0 <= p[0] < 1e-9 and np.isnan(p[1])


def test_other_bad_input():
    with pytest.raises(errors.ConfigError, match="version='v2'"):
        radiomics.frd(made(), made(), version="v2")
    with pytest.raises(errors.ConfigError, match="distribution='normal'"):
        Detector.fit(made(), distribution="normal")
    with pytest.raises(errors.ValuesError, match="not finite"):
        frechet.of_tables(made(), np.full((3, 5), np.inf))
    with pytest.raises(errors.MismatchError, match="need the same columns"):
        Detector.fit(made()).scores(made(f=3))
    with pytest.raises(errors.MismatchError, match="only one of the tables, the first is b"):
        align(made(f=2), ["a", "b"], made(f=1), ["a"])
    assert (align(made(f=2), ["a", "b"], made(f=2), ["b", "a"])[1] == made(f=2)[:, ::-1]).all()
