import numpy as np
import pytest

from tests.quality.test_solf import K, N, cohort
from ukbob_jax import files
from ukbob_jax.errors import FileError
from ukbob_jax.quality import cache, fit, flag, outside, stack, verdicts
from ukbob_jax.quality.measures import OrganMeasures


def test_rows_are_read_back_as_the_verdicts_they_were_made_from(tmp_path):
    measures, names = cohort(1), [f"s{i}" for i in range(N)]
    limits = fit(measures, 5.0)
    flagged = flag(measures, limits)
    rows = list(verdicts.rows(names, measures, outside(measures, limits), flagged, {("s2", 1): "keep"}))
    assert len(rows) == N * (K - 1)  # not the background
    assert [row["organ"] for row in rows if row.get("decision") == "keep"] == [1]
    path = verdicts.folder(tmp_path, "auto") / verdicts.VERDICTS
    files.write_jsonl(path, rows)
    expected = {s: set(np.flatnonzero(f[1:]) + 1) for s, f in zip(names, flagged) if f[1:].any()}
    assert verdicts.flagged_organs(tmp_path, "auto") == expected
    other = tmp_path / "other.jsonl"
    files.write_jsonl(other, rows[:5])
    assert verdicts.flagged_organs(tmp_path, "auto", other).keys() <= {"s0", "s1"}
    with pytest.raises(FileError, match="no verdicts"):
        verdicts.flagged_organs(tmp_path, "auto", tmp_path / "none.jsonl")


def test_an_undefined_measure_is_null():
    measures = cohort(2)
    measures.eccentricity[0, 1] = np.nan
    rows = verdicts.rows(["s"] * N, measures, np.zeros((N, K, 3), bool), np.zeros((N, K), bool))
    assert next(rows)["eccentricity"] is None


def one(i: int) -> OrganMeasures:
    return OrganMeasures(*(None if field is None else field[i] for field in cohort(3)))


def test_measures_of_several_processes_are_read_together(tmp_path):
    for part in range(2):
        found = {f"s{i}": (f"key{i}", one(i)) for i in range(part, 6, 2)}
        cache.save(tmp_path / f"measures.{part}-of-2.npz", found)
    both = cache.load_all(tmp_path)
    assert sorted(both) == [f"s{i}" for i in range(6)] and both["s3"][0] == "key3"
    np.testing.assert_array_equal(
        stack([both[f"s{i}"][1] for i in range(6)]).sphericity, cohort(3).sphericity[:6]
    )


def test_a_damaged_cache_is_measured_anew(tmp_path):
    cache.save(tmp_path / "measures.npz", {"s0": ("key", one(0))})
    data = (tmp_path / "measures.npz").read_bytes()
    (tmp_path / "measures.npz").write_bytes(data[: len(data) // 2])
    assert cache.load_all(tmp_path) == {}
