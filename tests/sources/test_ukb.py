"""Names of archives and settings; what is in an archive is tested in tests/jobs/test_ingest_ukb.py."""

import dataclasses

import pytest

from tests.volumes.dicom.dixon_archive import scanned
from tests.volumes.ukb_archive import write_zip
from ukbob_jax.errors import EmptyError
from ukbob_jax.sources import ukb


@pytest.fixture
def folder(tmp_path):
    """Names alone: archives are not opened to be listed."""
    for name in ("1/20_20201_2_0.zip", "1/20_20201_3_0.zip", "2/A1_20201_2_0.zip", "20_20203_2_0.zip",
                 "20_20201_2_1.zip", "20_20201_2_0.zip.part"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return str(tmp_path)


def test_archives_of_the_field_and_instance_are_found_at_any_depth(folder):
    assert sorted(ukb.archives(folder, 2)) == [("20", 2), ("A1", 2)]
    assert sorted(ukb.archives(folder, 3)) == [("20", 3)]
    assert sorted(ukb.archives(folder, -1)) == [("20", 2), ("20", 3), ("A1", 2)]


def test_visits_of_one_person_share_a_split(folder):
    for seed in range(6):
        found = {
            one.subject: one.split
            for one in ukb.list_subjects(folder=folder, instance=-1, splits={"val": 1}, seed=seed)
        }
        assert list(found) == ["20_2", "20_3", "A1_2"] and found["20_2"] == found["20_3"]
        assert sorted({found["20_2"], found["A1_2"]}) == ["train", "val"]


def test_what_is_missing_or_twice_there_is_told(folder, tmp_path):
    with pytest.raises(EmptyError, match="of instance 4; there is instance 2, 3"):
        ukb.archives(folder, 4)
    (tmp_path / "2" / "20_20201_2_0.zip").touch()
    assert [len(paths) for _, paths in sorted(ukb.archives(folder, 2).items())] == [2, 1]
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmptyError, match=r"no archive \*_20201_\*_0\.zip"):
        ukb.archives(str(tmp_path / "empty"), -1)


def test_content_and_settings_make_the_checksum(tmp_path):
    path = write_zip(tmp_path / "1_20201_2_0.zip", list(scanned())[:3])
    (one,) = ukb.list_subjects(folder=str(tmp_path))
    sums = {one.checksum()}
    for changes in ({"split": "val"}, {"contrasts": ("fat",)}, {"spacing_mm": (2.0, 2.0, 3.0)}):
        sums.add(dataclasses.replace(one, **changes).checksum())
    assert len(sums) == 4
    assert dataclasses.replace(one, refuse=("swapped",)).checksum() in sums  # refuses, and changes no result
    write_zip(path, list(scanned())[:2])
    assert one.checksum() not in sums and one.files() == [str(path)]
