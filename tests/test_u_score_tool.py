"""What tools/u_score.py reads and writes; no network is timed here for its number's sake."""

import json

import pytest

from tools import u_score as tool
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.evaluation import u_score


def test_a_volume_is_covered_by_crops_that_share_half():
    assert tool.windows((32, 32, 32), (32, 32, 32)) == tool.windows((20, 32, 8), (32, 32, 32)) == 1
    assert tool.windows((48, 33, 96), (32, 32, 32)) == 2 * 2 * 5


def test_two_small_networks_are_measured_and_scored_and_tested_beside_the_baseline(tmp_path, capsys):
    for name, worse in (("plain_unet", 0.0), ("stunet", 0.1)):
        folder = tmp_path / name / "evaluation"
        folder.mkdir(parents=True)
        rows = [
            {
                "subject": f"s{i}",
                "method": "off",
                "organ": "liver",
                "dice": 0.9,
                "iou": 0.8 - worse - 0.01 * i,
            }
            for i in range(6)
        ]
        (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--networks", "plain_unet", "stunet", "--crop", "8", "8", "8", "--classes", "3", "--rounds", "1"]
    runs = [word for name in ("plain_unet", "stunet") for word in ("--run", f"{name}={tmp_path / name}")]
    tool.main([*words, *runs, "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out.json").read_text())
    plain, stunet = found["rows"]
    assert plain["parameters_m"] > 0 and stunet["gflops"] > 0 and plain["speed"] > 0
    assert plain["iou, in domain"] == pytest.approx(0.775) and stunet["iou, in domain"] == pytest.approx(
        0.675
    )
    test = found["against_plain_unet"]["in domain"]["stunet"]
    assert test["mean"] == pytest.approx(-0.1) and test["p"] == test["p_holm"] == 2 / 2**6
    costs = {
        row["network"]: u_score.Cost(row["parameters_m"], row["gflops"], row["speed"])
        for row in found["rows"]
    }
    again = u_score.table(costs, {"in domain": {"plain_unet": 0.775, "stunet": 0.675}})
    assert [row["u_score, in domain"] for row in again] == pytest.approx(
        [row["u_score, in domain"] for row in found["rows"]]
    )
    page = (tmp_path / "out.md").read_text()
    assert page == capsys.readouterr().out.removesuffix("\n") and "| stunet |" in page
    assert "10th and 90th percentiles of this pool" in page


def test_accuracy_is_read_from_a_table_and_empty_columns_are_left_out(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("network,iou,zero_shot\nstunet,0.8,0.5\nprimus,0.7,\n")
    assert tool.accuracy(path) == {"in domain": {"stunet": 0.8, "primus": 0.7}, "zero-shot": {"stunet": 0.5}}
    path.write_text("network,iou\nstunet,0.8\n")
    assert list(tool.accuracy(path)) == ["in domain"]
    path.write_text("network,iou\nstunet,high\n")
    with pytest.raises(FileError, match="no CSV with columns network, iou and zero_shot"):
        tool.accuracy(path)
    path.write_text("network,iou\nstunet,0.8\n")
    with pytest.raises(ConfigError, match="--networks nnunet: not in the pool; it has swin_unetr"):
        tool.main(["--networks", "nnunet"])
    with pytest.raises(ConfigError, match="'stunet' is not in the pool; it has primus"):
        tool.main(["--networks", "primus", "--accuracy", str(tmp_path / "a.csv"), "--run", "stunet=nowhere"])
