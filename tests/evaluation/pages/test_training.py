"""The curves of training, from its log."""

from ukbob_jax import files
from ukbob_jax.evaluation.pages import training


def test_curves_and_last_numbers_are_those_that_were_written(tmp_path):
    log = [{"step": 10, "train/loss": 2.0}, {"step": 20, "train/loss": 1.0, "val/dice": 0.5}, {"step": 30}]
    files.write_jsonl(tmp_path / "metrics.jsonl", log)
    assert training.series(log, training.LOSS) == ([10, 20], [2.0, 1.0])
    assert training.last(log, training.DICE) == (20, 0.5) and training.last([], training.DICE) == (0, None)
    section = training.section({"run": tmp_path})
    assert section.tables[0].rows == [("run", 20, 1.0, 0.5)]
    assert section.pictures[0].png.startswith(b"\x89PNG")
