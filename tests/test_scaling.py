"""The scaling study's script, without training."""

import itertools
import json
from types import SimpleNamespace

from configs import common
from experiments.scaling import phantoms, scaling
from ukbob_jax import files


def test_shares_are_nested_and_of_their_size():
    names = [f"p{number}" for number in range(30)]
    store = SimpleNamespace(split=lambda name: tuple(names) if name == "train" else ("v0",))
    parts = {share: scaling.split(store, common.base(), 0, share) for share in (1, 10, 50, 100)}
    assert [len(part[0]) for part in parts.values()] == [1, 3, 15, 30]
    assert set(parts[10][0]) < set(parts[50][0]) < set(parts[100][0]) == set(names)
    assert all(part[1] == ["v0"] for part in parts.values())
    assert scaling.split(store, common.base(), 1, 10)[0] != parts[10][0]


def test_a_sweep_goes_on_where_it_stopped_and_draws_what_is_there(tmp_path, monkeypatch):
    made = []

    def one(options, overrides, seed, share, folder):
        made.append((seed, share, overrides))
        files.write_json(
            folder / "score.json", {"seed": seed, "share": share, "subjects": share, "dice": share / 200}
        )

    monkeypatch.setattr(scaling, "one", one)
    argv = ["--workdir", str(tmp_path), "--shares", "10", "100", "--seeds", "2", "--config.train.steps=3"]
    scaling.main([*argv, "--minutes", "-1"])
    assert made == []
    scaling.main(argv)
    scaling.main(argv)
    assert [(seed, share) for seed, share, _ in made] == [(0, 10), (0, 100), (1, 10), (1, 100)]
    assert made[0][2] == ["--config.train.steps=3"]
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [(row["share"], row["seeds"], row["dice"]) for row in rows] == [(10, 2, 0.05), (100, 2, 0.5)]
    errors = [row["error"] for row in json.loads((tmp_path / "results.json").read_text())["rows"]]
    assert errors == [0.0, 0.0]  # both seeds scored alike
    assert (tmp_path / "results.png").read_bytes()[:4] == b"\x89PNG"


def test_the_score_is_the_best_of_a_training(tmp_path):
    rows = [{"step": 1, "train/loss": 2.0}, {"step": 2, "val/dice": 0.3}, {"step": 4, "val/dice": None}]
    files.write_jsonl(tmp_path / "metrics.jsonl", [*rows, {"step": 6, "val/dice": 0.2}])
    assert scaling.best(tmp_path) == 0.3


def test_shares_of_phantoms_are_nested_and_draws_differ(tmp_path, monkeypatch):
    order = [phantoms.nested(20, 0, share).tolist() for share in (1, 10, 50, 100)]
    assert [len(chosen) for chosen in order] == [1, 2, 10, 20]
    assert all(long[: len(short)] == short for short, long in itertools.pairwise(order))
    assert len(set(order[-1])) == 20 and max(order[-1]) < phantoms.FIRST_TEST
    assert phantoms.nested(20, 1, 100).tolist() != order[-1]

    def one(seed, share, path, subjects):
        files.write_json(
            path, {"seed": seed, "share": share, "subjects": subjects * share // 100, "dice": 0.5}
        )

    monkeypatch.setattr(phantoms, "parts", lambda options: ())
    monkeypatch.setattr(phantoms, "one", one)
    phantoms.main(["--workdir", str(tmp_path), "--subjects", "20", "--shares", "10", "100", "--seeds", "2"])
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [(row["subjects"], row["seeds"], row["dice"]) for row in rows] == [(2, 2, 0.5), (20, 2, 0.5)]
