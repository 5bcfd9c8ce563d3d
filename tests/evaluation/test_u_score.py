"""U-Score, on values worked out by hand."""

import math

import numpy as np
import pytest

from ukbob_jax.errors import ValuesError
from ukbob_jax.evaluation import u_score
from ukbob_jax.evaluation.u_score import Cost, Quantiles, Range


def test_the_score_is_the_one_worked_out_by_hand():
    pool = Quantiles(Range(0.0, 4.0), Range(1.0, 3.0), Range(20.0, 120.0))
    cost = Cost(parameters_m=math.e, gflops=math.e**2, speed=45.0)  # p = 3/4, g = 1/2, s = 1/4
    assert u_score.efficiency(cost, pool) == pytest.approx(3 / (4 / 3 + 2 + 4))
    found = u_score.u_score(0.7, Range(0.5, 0.9), cost, pool)  # a = 1/2
    assert found == pytest.approx(100 * 2 / (2 + (4 / 3 + 6) / 3))


def test_terms_are_cut_at_the_percentiles_and_have_a_floor():
    worst = Cost(1e6, 1e6, 0.001)
    best = Cost(0.01, 0.01, 1e6)
    assert u_score.efficiency(worst, u_score.U_BENCH) == pytest.approx(0.05)
    assert u_score.efficiency(best, u_score.U_BENCH) == 1
    assert u_score.u_score(0.1, Range(0.5, 0.9), worst, u_score.U_BENCH) == pytest.approx(5)
    assert u_score.u_score(0.95, Range(0.5, 0.9), best, u_score.U_BENCH) == pytest.approx(100)
    one_bad_term = Cost(0.01, 0.01, 0.001)  # a harmonic mean forgives no weak side
    assert u_score.efficiency(one_bad_term, u_score.U_BENCH) == pytest.approx(3 / 22)


def test_published_percentiles_give_a_published_kind_of_score():
    """A U-Net of 31 million parameters, 55 GFLOPs, 70 images per second, at 256 x 256."""
    cost = Cost(31.0, 55.0, 70.0)
    p, g = (4.32 - math.log(31)) / 3.93, (4.20 - math.log(55)) / 3.32
    s = (70 - 24.28) / 97.35
    assert u_score.efficiency(cost, u_score.U_BENCH) == pytest.approx(3 / (1 / p + 1 / g + 1 / s))


def test_a_pools_own_percentiles_are_numpys_and_each_column_has_its_own():
    rng = np.random.default_rng(0)
    costs = {f"n{i}": Cost(*rng.uniform(0.5, 60, 3)) for i in range(9)}
    ious = {
        "in domain": {f"n{i}": 0.5 + 0.05 * i for i in range(9)},
        "zero-shot": {"n0": 0.6, "n8": 0.2, "n4": 0.3},
    }
    rows = u_score.table(costs, ious)
    pool = u_score.quantiles(list(costs.values()))
    assert pool.log_gflops == pytest.approx(
        np.percentile([math.log(c.gflops) for c in costs.values()], [10, 90])
    )
    assert pool.speed == pytest.approx(np.percentile([c.speed for c in costs.values()], [10, 90]))
    best = max(rows, key=lambda row: row["iou, zero-shot"] or 0)
    assert best["network"] == "n0" and rows[1]["u_score, zero-shot"] is None
    zero = u_score.percentiles([0.6, 0.2, 0.3], "")
    assert rows[4]["u_score, zero-shot"] == u_score.u_score(0.3, zero, costs["n4"], pool)
    assert all(5 <= row["u_score, in domain"] <= 100 for row in rows)


def test_order_of_the_pool_does_not_count_and_cheaper_or_better_is_never_worse():
    costs = {"a": Cost(1, 10, 5.0), "b": Cost(4, 40, 2.0), "c": Cost(16, 90, 1.0)}
    pool = u_score.quantiles(list(costs.values()))
    assert pool == u_score.quantiles(list(costs.values())[::-1])
    for field, better in (("parameters_m", 2.0), ("gflops", 20.0), ("speed", 3.0)):
        assert u_score.efficiency(costs["b"]._replace(**{field: better}), pool) > u_score.efficiency(
            costs["b"], pool
        )
    assert u_score.u_score(0.7, Range(0.5, 0.9), costs["b"], pool) > u_score.u_score(
        0.6, Range(0.5, 0.9), costs["b"], pool
    )


def test_a_pool_whose_networks_do_not_differ_is_refused():
    with pytest.raises(ValuesError, match="parameters: 2 networks with one value"):
        u_score.quantiles([Cost(1, 2, 3), Cost(1, 4, 5)])
    with pytest.raises(ValuesError, match="gflops: 0 is not a number above 0"):
        u_score.quantiles([Cost(1, 0, 3), Cost(1, 4, 5)])
    with pytest.raises(ValuesError, match="IoU zero-shot: 1 networks with one value"):
        u_score.table({"a": Cost(1, 2, 3), "b": Cost(2, 4, 5)}, {"zero-shot": {"a": 0.5}})
