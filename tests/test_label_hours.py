"""The tool that says how many device hours a cohort takes, with a network of two stages on small tiles."""

import re

import pytest

from tools import bench_nnunet, label_hours
from ukbob_jax.inference.nnunet import tiles

SMALL = {
    **{"n_stages": 2, "features_per_stage": (4, 8), "kernel_sizes": ((3, 3, 3),) * 2},
    **{"strides": ((1, 1, 1), (2, 2, 2)), "n_conv_per_stage": (1, 1), "n_conv_per_stage_decoder": (1,)},
}


def test_hours_are_tiles_of_all_images_times_seconds():
    work = label_hours.Work(tiles=30, calls=8, flops=1e12, images=12_000)
    assert work.hours(0.1) == pytest.approx(30 * 12_000 * 0.1 / 3600)
    assert work.all_flops == 30 * 8 * 12_000 * 1e12


@pytest.mark.usefixtures("quick_compilation")
def test_the_table_has_what_was_measured_and_what_follows_from_flops(monkeypatch, capsys):
    monkeypatch.setitem(bench_nnunet.NETWORKS, "plain", ("plain_unet", "PlainConvUNet", SMALL))
    words = "--size 16 16 16 --spacing 3 4.464 4.464 --classes 3 --measured 2 --rounds 1 --mirror --share 0.5"
    label_hours.main([*words.split(), "--contrasts", "2"])
    text = capsys.readouterr().out
    count = len(tiles.lay((370, 87, 112), (16, 16, 16)).starts)  # half as many voxels across
    said = re.search(r"(\d+) tiles a scan, ([\d.]+) GFLOP a tile and call, .* for 103,522 images", text)
    assert int(said[1]) == count
    rows = {name: list(map(float, values)) for name, *values in _rows(text)}
    assert len(rows) == 6
    for a_tile, a_scan, hours in rows.values():
        assert a_scan == pytest.approx(a_tile * count, rel=0.01)
        assert hours == pytest.approx(a_scan * 103_522 / 3600, abs=1, rel=0.01)
    [v5e] = (values for name, values in rows.items() if "v5e" in name)
    convolutions = 16**3 * 27 * (4 * 1 + 4 * 8) + 8**3 * (27 * 8 * 4) + 16**3 * 3 * 4 + 16**3 * 4 * 8
    assert float(said[2]) == pytest.approx(2 * convolutions / 1e9, rel=0.15)
    assert v5e[0] == pytest.approx(float(said[2]) * 1e9 * 8 / (197e12 * 0.5), rel=0.02)


def _rows(text):
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[1][:1].isdigit():
            yield [cells[0], *(cell.replace(",", "") for cell in cells[1:])]
