"""The peer of the 2D export's benchmark writes the files that the job writes, and its shares are shares."""

import pathlib

import pytest
from PIL import Image

from tools import bench_export2d
from ukbob_jax.export2d import png


def test_both_ways_are_compared_and_told(tmp_path):
    words = [
        "--shape",
        "32",
        "24",
        "40",
        "--subjects",
        "1",
        "--workers",
        "1",
        "--contrasts",
        "2",
        "--axes",
        "y",
        "z",
    ]
    encode = png.mask
    found = bench_export2d.measured(bench_export2d.arguments(words), tmp_path)
    assert png.mask is encode
    assert found["files of the first scan"]["masks"] > 500
    assert 0 < sum(found["shares of one process"].values()) < 1
    assert found["PNG encoding, share"] + found["files, share"] < 1
    broken = next((tmp_path / "plain/masks").iterdir())
    with Image.open(broken) as mask:
        size = mask.size
    Image.new("L", size).save(broken)
    with pytest.raises(SystemExit, match=f"{pathlib.Path(broken).name}: the two exports have other pixels"):
        bench_export2d.compared(tmp_path / "plain", tmp_path / "many/export2d")
