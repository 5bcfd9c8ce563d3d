import dataclasses
import pathlib

import numpy as np
import pytest

from ukbob_jax.errors import ConfigError, FileError, ValuesError
from ukbob_jax.sources import files
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.scan import Scan
from ukbob_jax.volumes.volume import Volume


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    for name in "abc":
        write_volume(
            tmp_path / "i" / f"{name}.nii.gz", Volume(rng.integers(1, 99, (4, 5, 6)).astype(np.int16), affine)
        )
        write_volume(
            tmp_path / "l" / f"{name}.nii.gz", Volume(rng.integers(0, 3, (4, 5, 6)).astype(np.uint8), affine)
        )
    return tmp_path


def listed(folder, **changes) -> list[files.Files]:
    paths = {"images": str(folder / "i"), "labels": str(folder / "l")}
    return files.list_subjects(**{"layout": "folders", "paths": paths, **changes})


def test_subjects_get_their_files_and_a_split(folder):
    found = listed(folder, splits={"val": 1}, seed=1)
    assert [one.subject for one in found] == ["a", "b", "c"]
    assert sorted(one.split for one in found) == ["train", "train", "val"]
    assert found[0].files() == [str(folder / kind / "a.nii.gz") for kind in "il"]


def test_a_scan_is_stored_in_ras(folder):
    one = listed(folder)[0]
    stored = one.convert(one.read())
    assert stored["image"].shape == (4, 5, 6, 1) and stored["labels"]["manual"].dtype == np.uint8
    assert (np.diag(stored["affine"]) > 0).all() and stored["annotated"] is None


@pytest.mark.parametrize(
    "changes",
    [{"spacing_mm": (2.0, 2.0, 2.0)}, {"num_classes": 9}, {"contrasts": ("t1",)}, {"nan": "zero"}, {"assume_ras": True},
     {"constant": "accept"}, {"label_map": "btcv"}],
)  # fmt: skip
def test_every_setting_changes_the_checksum(folder, changes):
    before, after = listed(folder)[0], listed(folder, **changes)[0]
    assert before.checksum() == listed(folder)[0].checksum() != after.checksum()


def test_bytes_and_split_change_the_checksum(folder):
    one = listed(folder)[0]
    before = one.checksum()
    assert dataclasses.replace(one, split="val").checksum() != before
    path = pathlib.Path(one.files()[1])
    path.write_bytes(path.read_bytes() + b"\0")
    assert one.checksum() != before


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"nan": "keep"}, r"source\.nan is 'keep'; expected refuse or zero"),
        ({"constant": "drop"}, r"source\.constant is 'drop'; expected refuse or accept"),
        ({"spacing_mm": (1.0, 1.0)}, "three positive numbers"),
        ({"spacing_mm": (1.0, 1.0, float("inf"))}, "three positive numbers"),
        ({"label_map": "somewhere"}, "somewhere"),
        ({"layout": "dicom"}, "'dicom' is not known"),
    ],
)
def test_settings_are_refused_before_a_file_is_read(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        listed(folder, **changes)


def test_a_channel_that_shows_nothing_is_named():
    image = np.random.default_rng(0).normal(size=(3, 3, 3, 2))
    paths = (pathlib.Path("a.nii"), pathlib.Path("b.nii"))
    files.check_varies(image, paths, ())
    image[..., 1] = 7
    with pytest.raises(ValuesError, match=r"^b\.nii: channel 1 \(fat\) is 7 in every voxel.*constant=accept"):
        files.check_varies(image, paths, ("water", "fat"))
    with pytest.raises(ValuesError, match=r"^a\.nii: channel 1 is 7"):
        files.check_varies(image, paths[:1], ())


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, example B.1
    assert files.file_digest(str(tmp_path / "a")) == sha
    with pytest.raises(FileError, match="b: cannot be read: No such file"):
        files.file_digest(str(tmp_path / "b"))


def test_ids_count_as_annotated_where_every_label_set_was_looked_at():
    volume = Volume(np.zeros((2, 2, 2, 1), np.int16), np.eye(4))
    for sets, expected in (
        ({"a": None, "b": None}, None),
        ({"a": (3, 1), "b": None}, [1, 3]),
        ({"a": (3, 1), "b": (3, 4)}, [3]),
    ):
        assert files.annotated(Scan(volume, {}, sets)) == expected
