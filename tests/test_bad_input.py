"""Broken scans given to the command line: exit code 3, one line that names the file, and nothing half-written (F1–F5)."""

import pathlib

import nibabel
import numpy as np
import pytest

from tests.conftest import ROOT
from tests.volumes import malformed
from ukbob_jax import main
from ukbob_jax.store.reader import Store

CASES = {case.name: case for case in malformed.cases()}
MULTI_CHANNEL = {"four_d"}  # a 4-D image is channels to the ingest job
CONSTANT = "image_constant"  # may be read, may not be trained on
BROKEN = [
    case
    for case in CASES.values()
    if case.purpose in ("image", "pair") and case.outcome == "error" and case.name not in MULTI_CHANNEL
]


def ingest(tmp_path: pathlib.Path, image: pathlib.Path, label: pathlib.Path | None, *more: str) -> int:
    return main.main(
        [
            f"--config={ROOT / 'configs/finetune.py'}",
            f"--workdir={tmp_path / 'work'}",
            "--config.job=ingest",
            f"--config.source.paths.images={image}",
            *([f"--config.source.paths.labels={label}"] if label else []),
            *more,
        ]
    )


def written(tmp_path: pathlib.Path) -> list[str]:
    """Everything of a subject below the store."""
    return [path.name for path in tmp_path.glob("work/store/subjects/*")]


def lay_out(case: malformed.Case, folder: pathlib.Path) -> list[pathlib.Path]:
    for name, data in case.files.items():
        if data is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(data)
    return [folder / name for name in case.files] or [folder / case.name]


def good_label(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "good_label.nii.gz"
    path.write_bytes(malformed.gz(malformed.nii(malformed.label())))
    return path


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_broken_scan_ends_in_one_line_and_leaves_no_subject(case, tmp_path, capsys):
    paths = lay_out(case, tmp_path)
    label = paths[1] if case.purpose == "pair" else good_label(tmp_path)
    code = ingest(tmp_path, paths[0], label)
    error = capsys.readouterr().err
    assert code == (2 if case.name == "folder.nii.gz" else 3), error  # an empty folder is an empty data list
    lines = [line for line in error.splitlines() if line.startswith("ukbob: ")]
    [line] = [line for line in lines if not line.startswith("ukbob: warning: ")]
    assert paths[0].name in line or paths[-1].name in line
    assert "Traceback" not in error
    assert not written(tmp_path)


@pytest.mark.parametrize("value, channel", [(7, 0), (0, 0)])
def test_channel_that_shows_nothing_is_refused_by_name(value, channel, tmp_path, capsys):
    image = np.stack([malformed.image(), malformed.image()], -1)
    image[..., channel] = value
    path = tmp_path / "two.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image, malformed.affine()), path)
    assert ingest(tmp_path, path, good_label(tmp_path)) == 3
    error = capsys.readouterr().err
    assert f"channel {channel}" in error and f"is {value} in every voxel" in error and "two.nii.gz" in error
    assert not written(tmp_path)
    assert ingest(tmp_path, path, good_label(tmp_path), "--config.source.constant=accept") == 0
    assert Store.open(tmp_path / "work/store").subjects == ("two",)


@pytest.mark.filterwarnings("default:.*voxels set to zero:UserWarning")
def test_nan_voxels_are_refused_or_zeroed_on_request(tmp_path, capsys):
    [path] = lay_out(CASES["image_nan"], tmp_path)
    assert ingest(tmp_path, path, good_label(tmp_path)) == 3
    assert "1 of 960 voxels are NaN or infinite, the first at (1, 1, 1)" in capsys.readouterr().err
    assert ingest(tmp_path, path, good_label(tmp_path), "--config.source.nan=zero") == 0
    image = Store.open(tmp_path / "work/store").read("image_nan", "image")
    assert np.isfinite(image).all() and image[1, 1, 1, 0] == 0


@pytest.mark.parametrize("field", ["nan", "constant"])
def test_unknown_choice_is_a_mistake_in_the_configuration(field, tmp_path, capsys):
    [path] = lay_out(CASES["control_image"], tmp_path)
    assert ingest(tmp_path, path, good_label(tmp_path), f"--config.source.{field}=maybe") == 2
    assert f"config.source.{field} is 'maybe'" in capsys.readouterr().err


def test_empty_data_list_is_the_operators_mistake(tmp_path, capsys):
    (tmp_path / "scans").mkdir()
    assert ingest(tmp_path, tmp_path / "scans", good_label(tmp_path)) == 2
    error = capsys.readouterr().err
    assert "scans: no .nii or .nii.gz file in this folder" in error and error.count("\n") == 1
    assert not written(tmp_path)
