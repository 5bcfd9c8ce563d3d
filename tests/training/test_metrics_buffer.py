"""Metrics of the latest steps, read back all at once."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.training.metrics_buffer import MetricsBuffer, NonFinite


def metrics(loss, skipped=0, in_row=0, rate=0.1, **own):
    return {
        **{"loss": jnp.float32(loss), "grad_norm": jnp.float32(2 * loss), "learning_rate": jnp.float32(rate)},
        **{"skipped": jnp.int32(skipped), "skipped_in_row": jnp.int32(in_row)},
        **{name: jnp.float32(value) for name, value in own.items()},
    }


def test_a_summary_is_the_mean_of_the_finite_steps_and_starts_afresh(tmp_path, capsys):
    buffer = MetricsBuffer(tmp_path, [], [], stop_after=9)
    buffer.add(metrics(1.0, contrast=4.0), None)
    buffer.add(metrics(np.nan, skipped=1, in_row=1), None)
    buffer.add(metrics(3.0, rate=0.5, contrast=np.nan), None)
    found = buffer.summary(3)
    assert list(found) == ["loss", "grad_norm", "contrast", "learning_rate", "skipped"]
    assert found == {"loss": 2.0, "grad_norm": 4.0, "contrast": 4.0, "learning_rate": 0.5, "skipped": 1}
    buffer.add(metrics(7.0), None)
    assert buffer.summary(4)["loss"] == 7.0
    assert "warning: step 2 (subjects not known)" in capsys.readouterr().err


def test_where_no_step_was_finite_there_is_no_mean(tmp_path):
    buffer = MetricsBuffer(tmp_path, [], [], stop_after=9)
    buffer.add(metrics(np.inf, skipped=1, in_row=1), None)
    found = buffer.summary(1)
    assert found["loss"] is None and found["grad_norm"] is None and found["skipped"] == 1


def test_rows_of_a_checkpoint_come_before_those_of_later_steps(tmp_path):
    first = MetricsBuffer(tmp_path, [], [], stop_after=9)
    first.add(metrics(1.0), None)
    saved = json.loads(json.dumps(first.rows(1)))  # as a checkpoint keeps them
    again = MetricsBuffer(tmp_path, saved, [], stop_after=9)
    again.add(metrics(5.0), None)
    assert [row["loss"] for row in again.rows(2)] == [1.0, 5.0]
    assert again.summary(2)["loss"] == 3.0


def test_steps_that_were_skipped_are_listed_with_their_subjects(tmp_path, capsys):
    buffer = MetricsBuffer(tmp_path, [], ["anna", "bert"], stop_after=2)
    buffer.add(metrics(1.0), jnp.array([0, 0]))
    buffer.add(metrics(np.nan, skipped=1, in_row=1), jnp.array([1, 1, 0, 7]))
    buffer.rows(12)
    assert "step 12 (bert, anna, 7)" in capsys.readouterr().err
    buffer.add(metrics(np.nan, skipped=1, in_row=2), jnp.array([0]))
    with pytest.raises(NonFinite, match=r"step 13 \(anna\): .* in 2 steps in a row.*nonfinite\.jsonl"):
        buffer.rows(13)
    lines = [json.loads(line) for line in (tmp_path / "nonfinite.jsonl").read_text().splitlines()]
    assert lines == [{"step": 12, "subjects": ["bert", "anna", "7"]}, {"step": 13, "subjects": ["anna"]}]


def test_waiting_ends_with_the_step_asked_for(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", lambda value: waited.append(float(value["loss"])))
    buffer = MetricsBuffer(tmp_path, [], [], stop_after=9)
    for loss in (1.0, 2.0, 3.0):
        buffer.add(metrics(loss), None)
        buffer.wait_for_all_but(1)
    assert waited == [1.0, 2.0]
