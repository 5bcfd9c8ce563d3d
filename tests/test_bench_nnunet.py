"""The benchmark's clock and scales, and that its model folder is one that we read."""

import json
import sys

import numpy as np
import pytest

from tools import bench_nnunet
from ukbob_jax.inference.nnunet import plans


def test_memory_is_that_of_a_process_and_its_children():
    child = "x = bytearray(200_000_000); import time; time.sleep(0.5)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    used = bench_nnunet.run([sys.executable, "-c", parent], {})
    assert 200 < used["peak_mb"] < 400
    assert used["wall_s"] > 0.5 and 0 < used["cpu_s"] < used["wall_s"] + 5


def test_a_command_that_fails_is_named_with_its_last_words():
    with pytest.raises(RuntimeError, match=r"-c import sys; sys\.exit\('no scan'\): no scan"):
        bench_nnunet.run([sys.executable, "-c", "import sys; sys.exit('no scan')"], {})


def test_ratios_above_one_are_in_our_favour():
    def row(wall, memory):
        return {"wall_s": wall, "cpu_s": 2 * wall, "peak_mb": memory}

    rows = {("ours warm", 1): row(10, 100), ("ours warm", 2): row(12, 100), ("ours cold", 1): row(30, 120)}
    rows |= {("nnU-Net", 1): row(20, 360), ("nnU-Net", 2): row(28, 400)}
    expected = {
        "wall": 2,
        "wall, nothing compiled": 2 / 3,
        "CPU": 2,
        "peak memory": 3,
        "one more scan, wall": 4,
    }
    assert bench_nnunet.ratios(rows) == pytest.approx(expected)


@pytest.mark.parametrize("network", tuple(bench_nnunet.NETWORKS))
def test_the_plans_are_read_as_those_of_nnunet(network, tmp_path):
    dataset = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    folder.mkdir()
    (folder / "plans.json").write_text(json.dumps(bench_nnunet._plans(network)))
    (folder / "dataset.json").write_text(json.dumps({**dataset, "numTraining": 1}))
    found = plans.read(folder)
    assert found.network.name == bench_nnunet.NETWORKS[network][0]
    assert tuple(found.patch_size) == bench_nnunet.SCAN


def test_formula_weights_keep_the_size_of_what_goes_through():
    """Variance 1 per input of a kernel: uniform in [-a, a] has a^2 / 3."""
    kernel = bench_nnunet._formula("conv.weight", (64, 32, 3, 3, 3))
    assert kernel.var() * 32 * 27 == pytest.approx(1, rel=0.02)
    assert not np.array_equal(kernel, bench_nnunet._formula("other.weight", kernel.shape))
