"""What `ukbob check` finds and says; its exit codes are tested in tests/test_cli.py."""

import argparse
import json

import numpy as np
import pytest

from ukbob_jax.commands import check
from ukbob_jax.errors import ConfigError, FileError, SomeFailed
from ukbob_jax.sources.files import ReadOptions
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.volume import Volume


def parse(*words):
    parser = argparse.ArgumentParser(exit_on_error=False)
    check.add_options(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.fixture
def folder(tmp_path):
    for kind in ("i", "l"):
        for name in "ab":
            label = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 3
            write_volume(tmp_path / kind / f"{name}.nii.gz", Volume(label, np.diag([2.0, 2.0, 2.0, 1.0])))
    return tmp_path


def test_a_scan_is_described_in_one_line_and_flat_channels_are_named():
    array = np.zeros((2, 3, 4, 3), np.int16)
    array[0, 0, 0, 1] = 5
    text = check.describe(array, np.diag([-1.5, 2, 3.25, 1]))
    assert text == "2 x 3 x 4 voxels, 1.5 x 2 x 3.25 mm, LAS, 3 channels, int16; channels [0, 2] show nothing"


def names(*words) -> list[str]:
    return [scan.subject for scan in check.scans(parse(*words))]


def test_a_file_a_folder_and_a_layout_are_named_alike(folder):
    assert names(folder / "i" / "a.nii.gz") == ["a"]
    assert names(folder / "i") == ["a", "b"]
    assert names(folder / "i", "--labels", folder / "l") == ["a", "b"]
    assert names(folder / "i", "--layout", "folders", "--path", f"labels={folder / 'l'}") == ["a", "b"]


def test_options_are_those_of_ingestion(folder):
    words = "--nan zero --constant accept --num-classes 9 --mask-value 255 --assume-ras --spacing-mm 1 2 3 --contrasts t1"
    words += " --order 3 --crop"
    (scan, _) = check.scans(parse(folder / "i", *words.split()))
    assert scan.settings == ReadOptions(
        nan="zero", constant="accept", num_classes=9, mask_value=255, assume_ras=True, spacing_mm=(1.0, 2.0, 3.0),
        contrasts=("t1",), order=3, crop=True,
    )  # fmt: skip
    words = ("--label-map", "btcv", "--label-table", "t.csv")
    with pytest.raises(ConfigError, match="label_map and label_table both change the ids"):
        check.scans(parse(folder / "i", *words))


@pytest.mark.parametrize(
    "words, said",
    [
        (("--path", "modality=CT"), "--path modality=CT: expected KEY=VALUE with KEY one of images, labels"),
        (("--path", "labels"), "--path labels: expected KEY=VALUE"),
        (("--labels", "l", "--layout", "bids"), "--labels: layout bids finds the labels below DATA"),
    ],
)
def test_words_that_the_layout_does_not_take_are_refused(folder, words, said):
    with pytest.raises(ConfigError, match=said):
        check.scans(parse(folder / "i", *words))


def test_missing_folders_are_refused(folder):
    with pytest.raises(FileError, match="none: no such file or folder"):
        check.scans(parse(folder / "none"))


def test_unknown_ids_are_bad_and_the_others_are_still_looked_at(folder, capsys):
    label = np.full((2, 3, 4), 2, np.uint8)
    write_volume(folder / "l" / "a.nii.gz", Volume(label // 2, np.diag([2.0, 2.0, 2.0, 1.0])))
    with pytest.raises(SomeFailed, match="1 of 2 scans cannot be used"):
        check.run(parse(folder / "i", "--labels", folder / "l", "--num-classes", 2))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("ok   a: 2 x 3 x 4 voxels") and second.startswith("BAD  b: ")
    assert "not among the classes 0 to 1" in second
    check.run(parse(folder / "i", "--labels", folder / "l", "--num-classes", 3))


def test_a_series_is_of_dicom_files_only(folder):
    for words in ((folder / "i",), (folder / "i" / "a.nii.gz",), (folder / "i", "--layout", "folders")):
        with pytest.raises(ConfigError, match="--series goes with a folder of DICOM files"):
            check.scans(parse(*words, "--series", "1.2.3"))


@pytest.fixture
def ct(tmp_path):
    """Write a CT series as HU + `shift`, most of which is water."""
    pytest.importorskip("pydicom")
    from tests.volumes.dicom import series_files

    def make(shift: int = 0, name: str = "ct", **tags):
        array = np.full((7, 6, 5), 1024 + 40, np.uint16)
        array[0], array[1, 1] = 0, 1024 + 300
        truth = Volume(array, np.diag([2.0, 3.0, 4.0, 1.0]))
        usual = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": shift - 1024}
        return series_files.write(tmp_path / name, series_files.images(truth, **{**usual, **tags}))

    return make


def test_values_of_dicom_are_doubted_as_those_of_files(ct, capsys):
    check.run(parse(ct()))
    assert "warning" not in capsys.readouterr().out
    check.run(parse(ct(1024, "shifted")))
    assert "it looks like HU + 1024: no value is negative" in capsys.readouterr().out
    check.run(parse(ct(1024, "mr", Modality="MR")))
    assert "warning" not in capsys.readouterr().out


def test_dicom_of_one_value_is_bad_unless_accepted(ct, capsys):
    flat = ct(RescaleSlope=1e-30, RescaleIntercept=5)
    with pytest.raises(FileError, match="no scan of 1 can be used"):
        check.run(parse(flat))
    assert "channel 0 is 5 in every voxel" in capsys.readouterr().out
    check.run(parse(flat, "--constant", "accept"))
    assert "channels [0] show nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    ["--spacing-mm 1 2 3", "--num-classes 5", "--label-map btcv", "--label-table t.csv", "--mask-value 255", "--nan zero",
     "--order 3", "--crop",
     "--person (.+)_L", "--assume-ras", "--path modality=CT"],
)  # fmt: skip
def test_options_of_files_do_not_go_with_dicom(ct, words):
    option, *_ = words.split()
    with pytest.raises(ConfigError, match=f"{option}: not with .*ct, which holds no NIfTI"):
        check.scans(parse(ct(), *words.split()))


def test_dicom_beside_scans_is_told(ct, folder, capsys):
    for path in ct().iterdir():
        path.rename(folder / "i" / path.name)
    check.run(parse(folder / "i"))
    told, *scans = capsys.readouterr().out.splitlines()
    assert "warning: " in told and "5 DICOM files beside the scans are left aside: IM0000, IM0001" in told
    assert [line.split(":")[0] for line in scans if line.startswith("ok")] == ["ok   a", "ok   b"]


def test_one_scan_without_labels_does_not_stop_the_others(folder, capsys):
    (folder / "l" / "b.nii.gz").unlink()
    (folder / "i" / "._a.nii.gz").write_bytes(b"\0\5\x16\7")
    with pytest.raises(SomeFailed, match="1 of 2 scans cannot be used"):
        check.run(parse(folder / "i", "--labels", folder / "l"))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("ok   a: ") and second.startswith("BAD  b: ") and "no label map" in second


def organ_masks(root):
    """Two subjects, one organ each."""
    for name in ("s1", "s2"):
        image = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
        for path, array in (
            ("mri.nii.gz", image),
            ("segmentations/liver.nii.gz", (image > 9).astype(np.uint8)),
        ):
            write_volume(root / name / path, Volume(array, np.diag([2.0, 2.0, 2.0, 1.0])))
    return root


def test_folders_of_masks_are_read_by_the_names_of_the_organs(tmp_path, capsys):
    words = ("--layout", "organ_masks", "--label-map", "totalsegmentator_mr")
    check.run(parse(organ_masks(tmp_path), *words))
    assert [line[:8] for line in capsys.readouterr().out.splitlines()] == ["ok   s1:", "ok   s2:"]


def test_odd_scans_of_a_set_are_told_at_the_end(tmp_path, capsys):
    for name, spacing in (("a", 2.0), ("b", 2.0), ("c", 0.2), ("d", 2.0)):
        array = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
        write_volume(tmp_path / f"{name}.nii.gz", Volume(array, np.diag([spacing, spacing, spacing, 1.0])))
    check.run(parse(tmp_path))
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == (
        "     warning: 1 of 4 scans (c): voxels of 0.2 x 0.2 x 0.2 mm, the median of the set is 2 x 2 x 2 mm. "
        "Check the unit and the header."
    )


def test_the_orientation_in_the_file_is_told_where_it_is_another(tmp_path, capsys):
    turned = np.diag([-2.0, 2.0, 2.0, 1.0])
    write_volume(tmp_path / "a.nii.gz", Volume(np.arange(120, dtype=np.int16).reshape(4, 5, 6), turned))
    check.run(parse(tmp_path / "a.nii.gz"))
    assert "2 x 2 x 2 mm, RAS (stored LAS), 1 channels" in capsys.readouterr().out


@pytest.mark.parametrize("value", [100, 255])
def test_a_mask_whose_value_is_no_id_is_asked_about(folder, capsys, value):
    mask = np.zeros((2, 3, 4), np.uint8)
    mask[0] = value
    write_volume(folder / "l" / "b.nii.gz", Volume(mask, np.diag([2.0, 2.0, 2.0, 1.0])))
    check.run(parse(folder / "i", "--labels", folder / "l"))
    [told] = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert told.startswith(f"     b: warning: label set 'manual' holds {value} alone")
    assert f"mask_value {value}" in told


def test_ids_that_the_data_set_does_not_name_are_asked_about(folder, capsys):
    (folder / "i").rename(folder / "imagesTr")
    (folder / "l").rename(folder / "labelsTr")
    training = [{"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"} for name in "ab"]
    said = {"training": training, "labels": {"0": "background", "1": "liver"}}
    (folder / "dataset.json").write_text(json.dumps(said))
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 2
    write_volume(folder / "labelsTr" / "b.nii.gz", Volume(array, np.diag([2.0, 2.0, 2.0, 1.0])))
    check.run(parse(folder, "--layout", "decathlon"))
    assert [line for line in capsys.readouterr().out.splitlines() if "warning" in line] == [
        "     a: warning: ids 2 are in the label map, but the data set's description names only 0, 1. Correct the file."
    ]


@pytest.mark.parametrize("name", ["a.nii", "a.Nii.gz", "a.NII"])
def test_files_that_the_reader_takes_are_described_whatever_their_ending_says(name, tmp_path, capsys):
    values = np.random.default_rng(0).random((9, 8, 7), np.float32)
    write_volume(tmp_path / "a.nii.gz", Volume(values, np.diag([-2.0, 2, 2, 1]), (1, 1)))
    (tmp_path / "a.nii.gz").rename(tmp_path / name)
    check.run(parse(str(tmp_path / name)))
    assert "2 x 2 x 2 mm, RAS (stored LAS), 1 channels" in capsys.readouterr().out
