"""The dry run: what it says of scans, the picture it leaves, and that it writes no store."""

import json
import pathlib

import ml_collections
import numpy as np
import pytest
from PIL import Image

from tests.jobs.test_ingest import SHAPE, flip_a_bit, write_scan
from ukbob_jax import errors, files
from ukbob_jax.jobs import inspect
from ukbob_jax.store.prepare import prepare


def recipe(subjects: int = 0, names: str = "", **source) -> ml_collections.ConfigDict:
    settings = {"subjects": subjects, "pictures": 2, "names": names}
    return ml_collections.ConfigDict({"source": source, "inspect": settings})


@pytest.fixture
def dataset(tmp_path) -> pathlib.Path:
    for seed in range(3):
        write_scan(tmp_path / "data", f"scan{seed}", seed)
    return tmp_path / "data"


def folders(data: pathlib.Path, **changes) -> ml_collections.ConfigDict:
    paths = {"images": str(data / "images"), "labels": str(data / "labels")}
    return recipe(**{"kind": "files", "layout": "folders", "paths": paths, **changes})


def test_files_and_what_would_be_stored_are_told_apart(tmp_path, dataset, capsys):
    inspect.run(folders(dataset, spacing_mm=(4.0, 2.0, 3.0)), str(tmp_path / "work"))
    said = capsys.readouterr().out
    assert "3 subjects in the source, 3 looked at" in said
    assert "scan1.nii.gz: 10 x 11 x 12 voxels of 2 x 2 x 3 mm, LAS, int16" in said
    assert "as stored: 6 x 11 x 12 voxels of 4 x 2 x 3 mm, RAS" in said
    assert "label manual: background" in said and "class 4" in said
    assert [path.name for path in sorted((tmp_path / "work").iterdir())] == ["inspect.jsonl", "inspect.png"]


def test_counts_percentiles_and_names_are_those_of_the_arrays(tmp_path, dataset):
    inspect.run(folders(dataset, subjects=1, names="btcv"), str(tmp_path))
    [row] = files.read_jsonl(tmp_path / "inspect.jsonl")
    rng = np.random.default_rng(0)  # as write_scan
    image, label = rng.integers(1, 500, (10, 11, 12)), rng.integers(0, 5, (10, 11, 12))
    np.testing.assert_allclose(row["intensity"]["0"]["percentiles"], np.percentile(image, (0.5, 50, 99.5)))
    counts = dict(
        zip(("background", "spleen", "kidney_right", "kidney_left", "gallbladder"), np.bincount(label.flat))
    )
    assert row["labels"]["manual"] == {name: int(count) for name, count in counts.items()}


def test_a_bad_scan_is_named_and_the_others_are_shown(tmp_path, dataset, capsys):
    flip_a_bit(dataset / "images/scan1.nii.gz")
    with pytest.raises(
        errors.SomeFailed, match=r"1 of 3 subjects cannot be read. The first: .*scan1\.nii\.gz"
    ):
        inspect.run(folders(dataset), str(tmp_path))
    assert "scan1: PROBLEM: " in capsys.readouterr().out
    assert "problem" in json.loads((tmp_path / "inspect.jsonl").read_text().splitlines()[1])
    assert (tmp_path / "inspect.png").is_file()


def test_the_sheet_has_a_row_per_scan_with_labels_in_colour(tmp_path):
    config = recipe(names="ukbob", kind="phantom", count=3, shape=SHAPE, seed=0)
    inspect.run(config, str(tmp_path))
    sheet = np.asarray(Image.open(tmp_path / "inspect.png").convert("RGB")).astype(int)
    assert sheet.shape[1] > 600 and sheet.shape[0] > 300
    left, right = np.array_split(np.ptp(sheet, axis=-1), [sheet.shape[1] * 4 // 7], axis=1)
    assert left.max() < 30 and (right > 60).mean() > 0.02  # four channels in grey, three planes in colour


def test_an_unknown_label_set_is_refused(tmp_path, dataset):
    with pytest.raises(
        errors.ConfigError, match=r"config.inspect.names: 'livers' is unknown; choose from ukbob"
    ):
        inspect.run(folders(dataset, names="livers"), str(tmp_path))


def test_the_image_described_is_the_one_that_would_be_stored():
    image = np.random.default_rng(0).normal(25, 3, (9, 8, 7, 2)).astype(np.float32)
    values = {"image": image, "contrasts": ["a", "b"], "affine": np.eye(4), "labels": {}}
    found = inspect.describe(prepare("s1", **values), {})
    stored = np.rint(image / (image.max((0, 1, 2)) / 32767)) * (image.max((0, 1, 2)) / 32767)
    expected = np.percentile(stored[..., 0], (0.5, 50, 99.5))
    np.testing.assert_allclose(found["intensity"]["a"]["percentiles"], expected, rtol=1e-6)
    assert found["dtype"] == "int16" and not found["remark"]
    image[1, 2, 3, 1] = 1e6
    found = inspect.describe(prepare("s1", **values), {})
    assert found["dtype"] == "float32" and "channel b would be off by up to" in found["remark"]
