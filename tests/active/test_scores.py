"""Scores and choices beside the values of nnActive, and what holds for any input."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.active import budget, choices, patches, randomly, uncertainty
from ukbob_jax.active.patches import Unit
from ukbob_jax.errors import ValuesError

MAPS = {
    "pred_entropy": uncertainty.predictive_entropy,
    "exp_entropy": uncertainty.expected_entropy,
    "mutual_information": uncertainty.mutual_information,
}


@pytest.fixture(scope="module")
def case(reference):
    facts = json.loads((reference / "active" / "active.json").read_text())
    with np.load(reference / "active" / "active.npz") as file:
        return facts, dict(file)


@pytest.mark.reference
@pytest.mark.parametrize("name", MAPS)
def test_maps_and_patch_scores_equal_those_of_nnactive(case, name):
    facts, arrays = case
    size = tuple(facts["patch_size"])
    found = np.asarray(MAPS[name](jnp.asarray(arrays["probs"], jnp.float32)))
    np.testing.assert_allclose(found, arrays[f"map_{name}"], atol=1e-6)
    scores = np.asarray(uncertainty.box_mean(found, size))
    assert list(scores.shape) == facts[name]["patch_scores"]["shape"]
    np.testing.assert_allclose(scores, arrays[f"patch_{name}"], atol=1e-6)
    strided = np.asarray(uncertainty.box_mean(found, size, 2))
    assert list(strided.shape) == facts[name]["patch_scores"]["stride2_shape"]
    np.testing.assert_allclose(strided, arrays[f"patch_{name}"][::2, ::2, ::2], atol=1e-6)
    assert found.mean() == pytest.approx(facts[name]["map"]["mean"], abs=1e-6)
    assert found.min() == pytest.approx(facts[name]["map"]["min"], abs=1e-6) and not np.isnan(found).any()


@pytest.mark.reference
def test_class_maps_equal_those_of_nnactive(case):
    facts, arrays = case
    mean = jnp.mean(jnp.asarray(arrays["probs"], jnp.float32), 0)
    found = np.concatenate([uncertainty.class_entropy(mean), uncertainty.entropy(mean)[None]])
    np.testing.assert_allclose(found, arrays["map_class_pred_entropy"], atol=1e-6)
    assert list(found.shape) == facts["class_pred_entropy"]["map"]["shape"]


@pytest.mark.reference
@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("tag", ["nothing_labelled", "two_labelled"])
def test_greedy_choices_equal_those_of_nnactive(case, name, tag):
    facts, arrays = case
    size, wanted = tuple(facts["patch_size"]), facts["greedy"][f"{name}_{tag}"]
    taken = [Unit("img", tuple(start), tuple(side)) for start, side in facts["already_labelled"]]
    scores = np.asarray(uncertainty.box_mean(jnp.asarray(arrays[f"map_{name}"]), size))
    found = patches.greedy(
        "img", scores, facts["shape"], size, 6, taken if tag == "two_labelled" else (), allowed=0.0
    )
    assert [list(unit.start) for unit in found] == wanted["coords"]
    np.testing.assert_allclose([unit.score for unit in found], wanted["scores"], atol=1e-6)


@pytest.mark.reference
def test_ties_and_overlaps_are_those_of_nnactive_and_the_true_fraction(case):
    facts, _ = case
    flat = np.zeros((4, 3, 3))
    flat[1, 1, 1] = flat[2, 0, 0] = 1
    found = patches.greedy("img", flat, (4, 3, 3), (1, 1, 1), 2)
    assert [list(unit.start) for unit in found] == facts["ties"]["order_of_the_two"]
    a, b, c = (Unit("f", start, (4, 4, 4)) for start in ((0, 0, 0), (2, 2, 2), (4, 0, 0)))
    assert patches.overlap(b, [a]) == facts["overlap"]["true_fraction"]
    assert patches.overlap(c, [a]) == 0.0
    assert patches.overlap(b, [a, c]) == 0.25  # shares add up: (4, 0, 0) covers another eighth


@pytest.mark.reference
@pytest.mark.parametrize("area", ["seg", "border"])
@pytest.mark.parametrize("number", range(3))
def test_foreground_draws_equal_those_of_nnactive(case, area, number):
    facts, arrays = case
    wanted = facts["foreground_random"]["cases"][f"{area}_{number}"]
    rng = np.random.default_rng(wanted["default_rng"])
    voxels = randomly.class_voxels(arrays["seg"], area, rng)
    assert len(voxels) == wanted["n_locs"]
    assert sorted({int(arrays["seg"][tuple(v)]) for v in voxels}) == wanted["class"]
    assert voxels.mean() == pytest.approx(wanted["locs_checksum"]["mean"])
    assert np.linalg.norm(voxels) == pytest.approx(wanted["locs_checksum"]["l2"])
    centre = voxels[int(rng.integers(len(voxels)))]
    start = randomly.start_around(centre, facts["patch_size"], facts["shape"])
    ends = [n - side for n, side in zip(facts["shape"], facts["patch_size"])]
    assert list(start) == np.minimum(wanted["patch_start"], ends).tolist()  # theirs can stick out by one


@pytest.mark.reference
def test_classes_are_drawn_as_often_as_by_nnactive(case):
    facts, arrays = case
    counts = dict.fromkeys(range(4), 0)
    for seed in range(600):
        voxels = randomly.class_voxels(arrays["seg"], "seg", np.random.default_rng(seed))
        counts[int(arrays["seg"][tuple(voxels[0])])] += 1
    assert {str(k): n for k, n in counts.items()} == facts["foreground_random"]["class_frequencies_600_seeds"]


@pytest.mark.reference
def test_a_patch_around_a_voxel_never_leaves_the_scan(case):
    said = case[0]["foreground_random"]["patch_start_for_a_centre"]
    for centre, theirs in said["start_by_centre"].items():
        found = randomly.start_around((int(centre),) * 3, said["patch"], said["image"])
        inside = [min(s, n - p) for s, n, p in zip(theirs, said["image"], said["patch"])]
        assert list(found) == inside  # theirs is out by one for odd sides, at centre 10


@pytest.mark.reference
def test_uniform_patches_reach_the_last_place(case):
    facts, _ = case
    wanted = facts["foreground_random"]["largest_valid_start"]
    rng, found = np.random.default_rng(0), []
    for _ in range(600):
        found += randomly.patches({"s": facts["shape"]}, facts["patch_size"], 1, (), rng)
    assert np.max([unit.start for unit in found], 0).tolist() == wanted
    assert np.min([unit.start for unit in found], 0).tolist() == [0, 0, 0]


@pytest.mark.reference
def test_noise_and_its_schedule_equal_those_of_nnactive(case):
    facts, _ = case
    for beta, wanted in facts["power_noise"]["beta"].items():
        rng = np.random.default_rng(facts["power_noise"]["default_rng"])
        found = choices.power_noise(np.array(facts["power_noise"]["scores"]), float(beta), rng)
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    wanted = facts["schedules"]["exponential_1_100_5"]
    np.testing.assert_allclose([choices.rising_beta(i, 5) for i in range(5)], wanted, rtol=1e-12)


def test_mutual_information_is_never_negative_and_zero_for_members_that_agree():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3) * 0.1, (4, 5, 5, 5)).transpose(0, 4, 1, 2, 3).astype(np.float32)
    assert np.asarray(uncertainty.mutual_information(probs)).min() >= 0
    same = np.broadcast_to(probs[:1], probs.shape)
    np.testing.assert_allclose(uncertainty.mutual_information(same), 0, atol=1e-6)
    assert np.asarray(uncertainty.predictive_entropy(probs)).max() <= np.log(3) + 1e-6


@pytest.mark.parametrize("seed", range(8))
def test_chosen_patches_lie_within_the_scan_and_do_not_overlap(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(4, 12, 3))
    size = uncertainty.cut_to(rng.integers(1, 7, 3), shape)
    taken = randomly.patches({"s": shape}, size, 2, (), rng)
    scores = rng.random([n - p + 1 for n, p in zip(shape, size)])
    segmentation = rng.integers(0, 3, shape)
    drawn = randomly.patches({"s": shape}, size, 5, taken, rng, lambda _: segmentation)
    for found in (drawn, patches.greedy("s", scores, shape, size, 5, taken)):
        cover = np.zeros(shape, int)
        for unit in (*taken, *found):
            assert min(unit.start) >= 0 and all(s + p <= n for s, p, n in zip(unit.start, unit.size, shape))
            cover[unit.box] += 1
        assert cover.max() == 1


def test_an_allowance_of_overlap_is_kept_and_used():
    scores = np.random.default_rng(1).random((9, 9, 9))
    none = patches.greedy("s", scores, (12, 12, 12), (4, 4, 4), 40)
    some = patches.greedy("s", scores, (12, 12, 12), (4, 4, 4), 40, allowed=0.25)
    assert len(some) > len(none)
    shares = [patches.overlap(unit, some[:i]) for i, unit in enumerate(some)]
    assert 0 < max(shares) <= 0.25


def test_draws_repeat_with_their_seed_and_prefer_structures():
    segmentation = np.zeros((16, 16, 16), np.uint8)
    segmentation[12:14, 12:14, 12:14] = 1
    segmentation[0, 0, 0] = 255

    def draw(seed, **more):
        shapes = {"a": (16, 16, 16), "b": (16, 16, 16)}
        return randomly.patches(shapes, (4, 4, 4), 6, (), np.random.default_rng(seed), **more)

    aware = {"segmentation": lambda _: segmentation}
    assert draw(3, **aware) == draw(3, **aware) != draw(4, **aware)
    hits = [
        np.mean([(segmentation[u.box] == 1).any() for seed in range(30) for u in draw(seed, **more)])
        for more in ({}, aware, aware | {"odds": randomly.ODDS["4:1:1"]})
    ]
    assert hits[0] < hits[2] < hits[1]


def test_a_full_scan_ends_the_draw():
    found = randomly.patches({"s": (4, 4, 4)}, (4, 4, 9), 5, (), np.random.default_rng(0))
    assert found == [Unit("s", (0, 0, 0), (4, 4, 4))]
    assert randomly.patches({"s": (4, 4, 4)}, (2, 2, 2), 1, found, np.random.default_rng(0)) == []


def test_scans_are_drawn_once_each_and_rare_structures_as_often_as_others():
    shapes = {f"s{i}": (2, 2, 2) for i in range(10)}
    holders = lambda subject: [1, 2] if subject == "s7" else [1]  # noqa: E731
    firsts = [randomly.scans(shapes, 1, np.random.default_rng(s), holders)[0].subject for s in range(200)]
    assert 80 < firsts.count("s7") < 130  # half, and a tenth of the other half
    everything = randomly.scans(shapes, 99, np.random.default_rng(0))
    assert sorted(unit.subject for unit in everything) == sorted(shapes)


def test_soft_rank_follows_the_order_alone_and_noise_fades():
    scores, draw = np.array([0.2, 0.9, 0.5]), np.random.default_rng
    np.testing.assert_array_equal(
        choices.soft_rank(scores, 2.0, draw(0)), choices.soft_rank(scores**3, 2.0, draw(0))
    )
    np.testing.assert_allclose(choices.soft_rank(scores, 1e9, draw(0)), -np.log([3, 1, 2]), atol=1e-6)


def test_far_candidates_are_chosen_and_every_row_once():
    features = np.concatenate([np.random.default_rng(0).normal(size=(20, 2)), [[500.0, 500.0]]])
    for seed in range(10):
        assert 20 in choices.kmeans_plus_plus(features, 2, np.random.default_rng(seed))
    assert sorted(choices.kmeans_plus_plus(np.zeros((4, 3)), 9, np.random.default_rng(0))) == [0, 1, 2, 3]
    with pytest.raises(ValuesError, match="NaN"):
        choices.kmeans_plus_plus(np.full((2, 2), np.nan), 1, np.random.default_rng(0))


def test_classes_share_two_thirds_of_a_query():
    def unit(x, score):
        return Unit("s", (x, 0, 0), (2, 2, 2), score)

    of = {1: [unit(0, 9), unit(4, 8), unit(8, 7)], 2: [unit(1, 9), unit(12, 5), unit(16, 4)]}
    found = choices.by_class(of, [unit(0, 1.0), unit(30, 0.9), unit(20, 0.8)], 6)
    assert [u.start[0] for u in found] == [
        0,
        12,
        4,
        16,
        30,
        20,
    ]  # (1, ..) overlaps (0, ..), as (0, ..) does later


def test_areas_and_efficiency_of_known_curves():
    assert budget.area_under([1, 2, 4], [0.5, 0.7, 0.9]) == pytest.approx((0.6 + 1.6) / 3)
    assert budget.area_under([3], [0.4]) == 0.4
    with pytest.raises(ValuesError, match="grow"):
        budget.area_under([1, 1], [0.1, 0.2])
    share = np.linspace(0.1, 0.9, 6)
    dice = 0.9 - (0.9 - 0.3) * np.exp(-4.2 * (share - 0.1))
    assert budget.foreground_efficiency(share, dice, 0.9) == pytest.approx(4.2, rel=1e-4)
    assert np.isnan(budget.foreground_efficiency(share, dice, 0.2))


def test_comparisons_over_seeds_are_paired_t_tests():
    rng = np.random.default_rng(0)
    base = {seed: [0.5, *rng.uniform(0.4, 0.9, 3)] for seed in range(3)}
    better = {seed: [v + 0.1 + 0.001 * seed * bool(i) for i, v in enumerate(r)] for seed, r in base.items()}
    found = budget.compare(better, base)
    assert found.wins == 1.0 and found.difference == pytest.approx(0.101) and found.p < 0.001
    assert budget.compare(base, better).wins == 0.0
    assert budget.compare(base, base) == budget.Compared(0.0, 0.0, 1.0)
    assert np.isnan(budget.compare({0: base[0]}, base).p)
