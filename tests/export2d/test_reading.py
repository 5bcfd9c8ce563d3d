"""Folders with one defect each: told in one line under the reference's code, and refused, mended or kept."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ukbob_jax import files
from ukbob_jax.errors import FileError, ValuesError
from ukbob_jax.export2d import reading

NO_TABLES = {"bad_manifest_not_json": "cannot be read as JSON", "bad_no_mask_folder": "no such folder"}
# What each defect does to the folder's 3 images and 8 masks: those that are left
LEFT = {
    "json_direction": (3, 8), "json_absolute_path": (3, 8), "json_duplicate_key": (3, 8), "mask_missing": (3, 7),
    "image_missing": (2, 5), "image_without_mask": (2, 5), "mask_listed_twice": (3, 8), "unknown_class": (3, 7),
    "class_id_number": (3, 8), "class_id_shared": (3, 5), "size_mismatch": (3, 7), "mask_grey": (3, 8),
    "mask_three_values": (3, 7), "mask_rgb": (3, 8), "mask_empty": (3, 7), "mask_inverted": (3, 7), "mask_small": (3, 8),
    "mask_mixed_values": (3, 8), "mask_duplicate": (3, 8), "image_constant": (2, 5), "image_binary": (2, 5),
    "image_jpeg": (3, 8), "image_16bit": (2, 5), "image_truncated": (2, 5), "aspect": (3, 8),
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(reference, tmp_path_factory):
    out = tmp_path_factory.mktemp("export2d") / "folders"
    subprocess.run(
        [sys.executable, reference / "export2d/make_export2d.py", out], check=True, capture_output=True
    )
    return out, files.read_json(out / "expected.json")


def left(folder) -> tuple[int, int]:
    images = masks = 0
    tables = reading.read_tables(folder)
    for entry in tables.entries:
        try:
            pair = reading.read(tables, entry)
        except ValuesError as error:
            assert "\n" not in str(error)
            continue
        images, masks = images + 1, masks + len(pair.masks)
    return images, masks


@pytest.mark.reference
def test_every_defect_is_told_in_a_line(folders):
    out, expected = folders
    assert len(expected) == 43
    expected["bad_class_id_number"].remove("unknown_class")  # 3 is taken for "0003"
    for name, codes in expected.items():
        if name == "good_demo":
            continue
        if name in NO_TABLES:
            with pytest.raises(FileError, match=NO_TABLES[name]):
                list(reading.check(out / name))
            continue
        found = list(reading.check(out / name))
        assert set(codes) <= {problem.code for problem in found}, (name, [str(p) for p in found])
        assert all("\n" not in str(problem) for problem in found)
        if not codes:
            assert not found, (name, [str(p) for p in found])


@pytest.mark.reference
def test_what_can_be_used_is_left(folders):
    out, _ = folders
    assert left(out / "good") == (3, 8)
    assert {name: left(out / f"bad_{name}") for name in LEFT} == LEFT


@pytest.mark.reference
def test_mended_masks_are_those_of_the_good_folder(folders):
    out, _ = folders

    def masks(folder):
        tables = reading.read_tables(folder)
        return {m.path: of for entry in tables.entries for m, of in reading.read(tables, entry).masks.items()}

    good = masks(out / "good")
    for name in (
        "good_01",
        "bad_mask_grey",
        "bad_mask_rgb",
        "bad_mask_mixed_values",
        "bad_json_absolute_path",
    ):
        for path, mask in masks(out / name).items():
            np.testing.assert_array_equal(mask, good[path])


def test_a_class_that_is_the_union_of_two_others_is_left_out(tmp_path):
    """ACDC in the published set."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    stem = "mr_cmr--ACDC--p1--z_0003"
    Image.fromarray(rng.integers(0, 255, (40, 40)).astype(np.uint8)).save(tmp_path / f"images/{stem}.png")
    ring, inside = np.zeros((2, 40, 40), bool)
    inside[15:25, 15:25] = True
    ring[10:30, 10:30] = ~inside[10:30, 10:30]
    for four, mask in (("0001", ring), ("0002", inside), ("0003", ring | inside)):
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"masks/{stem}--{four}_000.png")
    table = {f"images/{stem}.png": [f"masks/{stem}--000{i}_000.png" for i in (1, 2, 3)]}
    (tmp_path / "SAMed2D_v1.json").write_text(json.dumps(table))
    names = {"myocardium": "0001", "left_ventricle": "0002", "heart": "0003"}
    (tmp_path / "SAMed2D_v1_class_mapping_id.json").write_text(json.dumps(names))
    tables = reading.read_tables(tmp_path)
    pair = reading.read(tables, tables.entries[0])
    assert [mask.four for mask in pair.masks] == ["0001", "0002"]
    assert [str(p) for p in pair.problems] == [
        f"masks/{stem}--0003_000.png: class 0003 is the union of others (refused)"
    ]
