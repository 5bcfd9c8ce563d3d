import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ukbob_jax.errors import FileError, MismatchError, ValuesError
from ukbob_jax.quality import FEATURES, Limits, OrganMeasures, fit, fit_robust, flag, outside, solf

N, K = 101, 4
TRANSFORMS = (np.exp, np.cbrt, lambda v: 5 * v - 3, lambda v: v**3 + v)


def cohort(seed: int = 0, n: int = N) -> OrganMeasures:
    rng = np.random.default_rng(seed)
    return OrganMeasures(
        voxels=rng.integers(50, 900, (n, K)),
        volume_mm3=rng.lognormal(9, 0.3, (n, K)),
        surface_mm2=rng.lognormal(7, 0.3, (n, K)),
        body_fraction=rng.lognormal(-4, 0.3, (n, K)),
        sphericity=rng.uniform(0.4, 0.9, (n, K)),
        eccentricity=rng.uniform(0.2, 0.99, (n, K)),
    )


def numpys_verdict(measures: OrganMeasures, epsilon: float) -> np.ndarray:
    values = solf.features(measures)
    low, high = np.percentile(values, [epsilon, 100 - epsilon], axis=0)
    return ((values < low) | (values > high)).sum(-1) >= 2


@pytest.mark.parametrize("epsilon", [0.3, 1, 2, 3, 5, 20, 49.9])
def test_flags_what_interpolated_percentiles_flag(epsilon):
    measures = cohort(1, 137)
    np.testing.assert_array_equal(flag(measures, fit(measures, epsilon)), numpys_verdict(measures, epsilon))


def test_limits_are_the_stated_order_statistics():
    measures = cohort()
    limits = fit(measures, 2.0)  # r = 0.02 * 100 = 2: the third from either end
    ordered = np.sort(measures.sphericity, 0)
    np.testing.assert_array_equal(limits.low[0, :, 1], ordered[2])
    np.testing.assert_array_equal(limits.high[0, :, 1], ordered[-3])
    assert (outside(measures, limits).sum(0) == 4).all()  # two at either end of 101


def test_epsilon_zero_flags_nothing():
    measures = cohort()
    measures.eccentricity[3, 1] = np.nan
    assert not flag(measures, fit(measures, 0.0)).any()


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 99),
    st.sampled_from([0.5, 2.0, 7.3]),
    st.lists(st.sampled_from(TRANSFORMS), min_size=3, max_size=3),
)
def test_increasing_transforms_change_no_verdict(seed, epsilon, transforms):
    measures = cohort(seed, 60)
    changed = measures._replace(
        **{
            name: transform(getattr(measures, name))
            for name, transform in zip(("body_fraction", "sphericity", "eccentricity"), transforms)
        }
    )
    np.testing.assert_array_equal(
        flag(measures, fit(measures, epsilon)), flag(changed, fit(changed, epsilon))
    )


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99), st.permutations(range(30)))
def test_the_order_of_subjects_changes_no_verdict(seed, order):
    measures = cohort(seed, 30)
    moved = OrganMeasures(*(None if f is None else f[order] for f in measures))
    np.testing.assert_array_equal(flag(measures, fit(measures, 5))[order], flag(moved, fit(moved, 5)))


def test_flags_grow_with_epsilon():
    measures = cohort(3, 400)
    flags = [flag(measures, fit(measures, epsilon)) for epsilon in (0.5, 1, 2, 5, 10)]
    assert all((small <= large).all() for small, large in itertools.pairwise(flags))
    assert flags[-1].sum() > flags[0].sum()


def test_independent_measures_are_flagged_as_often_as_the_binomial_says():
    measures = cohort(4, 20_000)
    p = 0.1  # epsilon 5, two-sided; 3 p^2 (1 - p) + p^3 = 0.028
    share = flag(measures, fit(measures, 5.0)).mean()
    np.testing.assert_allclose(share, 3 * p**2 * (1 - p) + p**3, rtol=0.07)  # 3 sigma of 80,000 draws


def test_missing_organs_are_neither_flagged_nor_fitted():
    measures = cohort()
    limits = fit(measures)
    gone = measures._replace(
        **{name: field.copy() for name, field in measures._asdict().items() if field is not None}
    )
    for field in gone[:6]:
        field[7, 2] = 0
    assert not flag(gone, limits)[7, 2]
    others = OrganMeasures(*(None if f is None else np.delete(f, 7, 0) for f in measures))
    np.testing.assert_array_equal(fit(gone).low[0, 2], fit(others).low[0, 2])
    assert fit(gone).count[0].tolist() == [N, N, N - 1, N]


def test_undefined_measures_count_as_outside():
    measures = cohort()
    limits = fit(measures)
    inside = np.median(solf.features(measures), 0)
    one = OrganMeasures(*[np.ones(K)] * 3, inside[:, 0], inside[:, 1], np.full(K, np.nan))
    assert not flag(one, limits).any() and flag(one, limits, min_outside=1).all()
    assert flag(one._replace(sphericity=np.full(K, 9.0)), limits).all()


def test_one_scan_is_judged_alone_by_saved_limits(tmp_path):
    measures = cohort()
    limits = fit(measures, 2.0, min_count=100)._replace(provenance={"label": "auto"})
    limits.save(tmp_path / "limits.json")
    loaded = Limits.load(tmp_path / "limits.json")
    assert (loaded.rule, loaded.provenance, loaded.groups) == (limits.rule, {"label": "auto"}, ("",))
    alone = [flag(OrganMeasures(*(None if f is None else f[i] for f in measures)), loaded) for i in range(N)]
    np.testing.assert_array_equal(np.stack(alone), flag(measures, limits))


def test_rare_organs_are_not_judged_and_their_limits_survive_saving(tmp_path):
    measures = cohort()
    measures.voxels[5:, 1] = 0
    limits = fit(measures, 20.0)
    assert np.isinf(limits.low[0, 1]).all() and not flag(measures, limits)[:, 1].any()
    limits.save(tmp_path / "limits.json")
    np.testing.assert_array_equal(Limits.load(tmp_path / "limits.json").high, limits.high)


def test_groups_have_limits_of_their_own():
    small, large = cohort(0), cohort(1)
    large = large._replace(body_fraction=large.body_fraction * 50)
    both = OrganMeasures(*(None if a is None else np.concatenate([a, b]) for a, b in zip(small, large)))
    groups = ["F"] * N + ["M"] * N
    limits = fit(both, 2.0, groups=groups)
    assert limits.groups == ("F", "M")
    expected = np.concatenate([flag(m, fit(m, 2.0)) for m in (small, large)])
    np.testing.assert_array_equal(flag(both, limits, groups=groups), expected)
    first = OrganMeasures(*(None if f is None else f[0] for f in both))
    np.testing.assert_array_equal(flag(first, limits, groups="F"), expected[0])


def test_robust_limits_follow_the_noise_where_percentiles_do_not():
    clean = cohort(5, 500)
    clean = clean._replace(
        sphericity=np.random.default_rng(0).lognormal(-0.5, 0.05, (500, K)),
        eccentricity=np.sqrt(1 - np.random.default_rng(1).lognormal(-1.5, 0.1, (500, K))),
    )
    noisy = OrganMeasures(*(None if f is None else f.copy() for f in clean))
    noisy.body_fraction[:60], noisy.sphericity[:60] = noisy.body_fraction[:60] / 30, 0.2
    assert flag(clean, fit_robust(clean)).sum() == 0
    found = flag(noisy, fit_robust(noisy))
    assert found[:60].all() and not found[60:].any()
    assert flag(noisy, fit(noisy, 2.0))[:60].mean() < 0.5  # 12 % are wrong, but only 4 % may leave a range


def test_robust_limits_are_the_median_and_mad_of_the_logarithms():
    measures = cohort(6)
    scale = pytest.importorskip("scipy.stats").median_abs_deviation
    logs = np.log(measures.body_fraction)
    spread = 3.0 * scale(logs, scale="normal")
    limits = fit_robust(measures, 3.0)
    np.testing.assert_allclose(limits.low[0, :, 0], np.exp(np.median(logs, 0) - spread), rtol=1e-4)
    np.testing.assert_allclose(limits.high[0, :, 0], np.exp(np.median(logs, 0) + spread), rtol=1e-4)


@pytest.mark.parametrize("value", [1.0, 0.3, 0.123456])  # exp(log(v)) is another number for the last two
def test_robust_limits_keep_a_flat_organ_flat(value):
    measures = cohort()._replace(**{name: np.full((N, K), value) for name in FEATURES})
    limits = fit_robust(measures)
    assert not outside(measures, limits).any()
    others = measures._replace(sphericity=np.full((N, K), 1.01 * value))
    assert outside(others, limits)[..., 1].all()


@pytest.mark.parametrize("kind", [np.float32, np.int64, jnp.float32])
def test_settings_of_any_number_type_survive_saving(tmp_path, kind):
    measures = cohort()
    for limits in (fit(measures, kind(2), min_count=np.int64(7)), fit_robust(measures, kind(3))):
        limits.save(tmp_path / "limits.json")
        assert Limits.load(tmp_path / "limits.json").rule == limits.rule


def test_refuses_what_it_cannot_judge(tmp_path):
    measures = cohort()
    for wrong, words in (
        (lambda: fit(measures, 50), "epsilon=50"),
        (lambda: fit_robust(measures, 0), "deviations=0"),
        (lambda: fit(OrganMeasures(*(None if f is None else f[0] for f in measures))), "Stack"),
        (lambda: fit(measures, groups=["F"]), "1 group names for 101"),
        (lambda: flag(measures, fit(measures, groups=["F", *["M"] * (N - 1)])), "groups F, M"),
        (lambda: flag(measures, fit(measures), groups=["X"] * N), "X"),
        (lambda: flag(OrganMeasures(*[np.ones(9)] * 6), fit(measures)), "9 classes"),
        (lambda: flag(measures, fit(measures), min_outside=0), "min_outside=0"),
    ):
        with pytest.raises((ValuesError, MismatchError), match=words):
            wrong()
    (tmp_path / "limits.json").write_text('{"format": "other"}')
    with pytest.raises(FileError, match="not a file of SOLF limits"):
        Limits.load(tmp_path / "limits.json")


def test_structures_of_a_few_voxels_are_not_judged():
    measures = cohort()
    voxels = measures.voxels.copy()
    voxels[:, 1] = 5
    voxels[0, 2] = 3  # one small instance of a large organ is still judged
    judged = solf.drop_small_organs(measures._replace(voxels=voxels), 24)
    assert not flag(judged, fit(judged, 20))[:, 1].any()
    assert (judged.voxels[:, [0, 2, 3]] == voxels[:, [0, 2, 3]]).all()
