"""UK Biobank's archives into a store through the command line: what arrives, what is refused, and what never leaks."""

import functools
import gzip
import pathlib
import re
import shutil

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.volumes import ukb_archive as ukb
from ukbob_jax import files, main
from ukbob_jax.errors import ConfigError, EmptyError, FileError, MismatchError, ValuesError
from ukbob_jax.phantom import CONTRASTS
from ukbob_jax.sources import ukb as source
from ukbob_jax.store import schema
from ukbob_jax.store.reader import Store

SHAPE = (40, 30, 72)


@functools.cache
def scanned(seed: int) -> tuple[ukb.Image, ...]:
    return tuple(ukb.images(ukb.cut(ukb.subject(seed, SHAPE))))


def ingest(zips: pathlib.Path, workdir: pathlib.Path, *more: str) -> int:
    return main.main(
        [
            f"--config={ROOT / 'configs/ingest_ukb.py'}",
            f"--workdir={workdir}",
            f"--config.source.folder={zips}",
            "--config.workers=1",
            *more,
        ]
    )


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> pathlib.Path:
    """Three visits of two people, below folders as on UK Biobank's platform, and an archive of another field."""
    folder = tmp_path_factory.mktemp("bulk")
    ukb.write_zip(folder / "10" / "1000001_20201_2_0.zip", scanned(1))
    ukb.write_zip(folder / "10" / "1000001_20201_3_0.zip", ukb.swapped(list(scanned(1)), 2))
    ukb.write_zip(folder / "20" / "2000002_20201_2_0.zip", scanned(2))
    (folder / "20" / "2000002_20203_2_0.zip").write_bytes(b"another field")
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


def test_archives_arrive_stitched_with_body_stations_and_quality(archives, tmp_path):
    assert ingest(archives, tmp_path / "w", "--config.source.splits.val=1") == 0
    store = Store.open(tmp_path / "w/store")
    assert store.subjects == ("1000001_2", "2000002_2")
    assert len(store.split("val")) == len(store.split("train")) == 1
    for number, subject in enumerate(store.subjects, 1):
        row, truth = store.rows[subject], ukb.subject(number, SHAPE)
        image = store.read(subject, "image")
        np.testing.assert_array_equal(image, truth.array)
        assert image.dtype == np.int16 and row.contrasts == tuple(CONTRASTS)
        np.testing.assert_allclose(row.affine, truth.affine, atol=1e-5)
        assert row.labels == ("body", "station") and row.annotated is None
        assert set(np.unique(store.read(subject, "label/body"))) == {0, 1}
        assert set(np.unique(store.read(subject, "label/station"))) == set(range(1, 7))
        assert row.quality["stations"] == 6 and row.quality["swapped"] == []
        assert set(row.attributes) <= set(schema.ATTRIBUTES) and row.attributes["sex"] == "F"


def test_running_again_reads_no_archive_again(archives, tmp_path, monkeypatch):
    assert ingest(archives, tmp_path / "w") == 0
    monkeypatch.setattr(source.Archive, "read", lambda self: pytest.fail("read again"))
    assert ingest(archives, tmp_path / "w") == 0


def test_changed_archive_and_changed_setting_replace_the_subject(archives, tmp_path):
    folder = tmp_path / "zips"
    folder.mkdir()
    path = folder / "1000001_20201_2_0.zip"
    shutil.copy(archives / "10/1000001_20201_2_0.zip", path)
    sums = [origin.checksum() for origin in source.list_subjects(folder=str(folder))]
    sums += [origin.checksum() for origin in source.list_subjects(folder=str(folder), contrasts=("water",))]
    assert ingest(folder, tmp_path / "w") == 0
    path.chmod(0o644)
    ukb.write_zip(path, ukb.swapped(list(scanned(1)), 2))
    sums += [origin.checksum() for origin in source.list_subjects(folder=str(folder))]
    assert len(set(sums)) == 3
    assert ingest(folder, tmp_path / "w") == 0
    assert Store.open(tmp_path / "w/store").rows["1000001_2"].quality["swapped"] == [2]


def test_instance_is_chosen_and_visits_of_one_person_stay_together(archives, tmp_path):
    [repeat] = source.list_subjects(folder=str(archives), instance=3)
    assert repeat.subject == "1000001_3"
    every = source.list_subjects(folder=str(archives), instance=-1, splits={"test": 1})
    assert [origin.subject for origin in every] == ["1000001_2", "1000001_3", "2000002_2"]
    assert every[0].split == every[1].split != every[2].split
    with pytest.raises(EmptyError, match=r"of instance 5; there is instance 2, 3\. Correct"):
        source.list_subjects(folder=str(archives), instance=5)


def test_broken_archives_are_listed_and_the_others_arrive(tmp_path, capsys):
    zips = tmp_path / "zips"
    ukb.write_zip(zips / "1000001_20201_2_0.zip", scanned(1))
    ukb.write_zip(zips / "1000002_20201_2_0.zip", ukb.missing_slice(list(scanned(1))))
    ukb.write_zip(zips / "1000003_20201_2_0.zip", ukb.missing_contrast(list(scanned(1))))
    (zips / "1000004_20201_2_0.zip").write_bytes(b"<html>quota exceeded</html>")
    assert ingest(zips, tmp_path / "w") == 4
    failures = {row["subject"]: row for row in files.read_jsonl(tmp_path / "w/failures.jsonl")}
    assert {name: row["stage"] for name, row in failures.items()} == {
        "1000002_2": "read", "1000003_2": "read", "1000004_2": "checksum",
    }  # fmt: skip
    assert "1 slice missing" in failures["1000002_2"]["reason"]
    assert "no opposed_phase at station 5" in failures["1000003_2"]["reason"]
    assert "not a zip archive" in failures["1000004_2"]["reason"]
    assert Store.open(tmp_path / "w/store").subjects == ("1000001_2",)
    assert "3 of 4 subjects failed" in capsys.readouterr().err


def test_nothing_that_names_or_dates_a_person_leaves_the_archive(tmp_path, capfd):
    """Sound and broken archives, names and notes in every tag; the whole workdir and the terminal are searched."""
    zips, work = tmp_path / "zips", tmp_path / "w"
    noted = list(scanned(1))
    described = [
        ukb.altered(one, SeriesDescription=f"{ukb.SERIES_NOTE}_F", ProtocolName=ukb.SERIES_NOTE)
        for one in ukb.of(noted, 3, "fat")
    ]
    ukb.write_zip(zips / "1000001_20201_2_0.zip", ukb.without(noted, ukb.of(noted, 3, "fat")) + described)
    for number, damage in enumerate(
        (ukb.missing_slice, ukb.missing_contrast, ukb.mixed_series, ukb.uneven_gap, ukb.missing_last_slice), 2
    ):
        ukb.write_zip(zips / f"100000{number}_20201_2_0.zip", damage(list(noted)))
    bad = [ukb.altered(noted[0], PixelSpacing=["2.5", "-2"]), *noted[1:]]
    ukb.write_zip(zips / "1000008_20201_2_0.zip", bad)
    assert ingest(zips, work, "--debug") == 4
    secrets = [*ukb.SECRETS.values(), ukb.PRIVATE, ukb.SERIES_NOTE, "Ottoline", "Quillfeather"]
    secrets += [
        noted[0].dataset.SeriesTime,
        noted[0].dataset.AcquisitionTime,
        noted[0].dataset.StudyInstanceUID,
    ]
    text = "".join(capfd.readouterr())
    searched = 0
    for path in work.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            data += gzip.decompress(data) if path.suffix == ".gz" else b""
            searched += 1
            for secret in secrets:
                assert not re.search(re.escape(str(secret)).encode(), data), (path, secret)
    assert searched > 8 and len(Store.open(work / "store").subjects) == 1
    for secret in secrets:
        assert str(secret) not in text, secret
    row = Store.open(work / "store").rows["1000001_2"]
    assert "UID" not in str(row) and "1.2.826" not in str(row)


@pytest.mark.parametrize(
    "changes, kind, message",
    [
        ({"contrasts": ("fat", "water", "silicone")}, ConfigError, "contrasts"),
        ({"refuse": ("ugly",)}, ConfigError, "expected some of swapped"),
        ({"contrasts": ()}, ConfigError, "expected some of fat, water"),
        ({"contrasts": ("fat", "fat")}, ConfigError, "contrasts"),
        ({"spacing_mm": (2.0, 2.0)}, ConfigError, "three positive numbers"),
        ({"spacing_mm": (2.0, 2.0, 0.0)}, ConfigError, "three positive numbers"),
        ({"spacing_mm": (2.0, 2.0, float("nan"))}, ConfigError, "three positive numbers"),
        ({"folder": ""}, FileError, "no such folder"),
        ({"folder": "nowhere"}, FileError, "no such folder"),
        ({"splits": {"val": 3}}, ConfigError, "more than the 2 persons"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_read(changes, kind, message, archives):
    with pytest.raises(kind, match=message):
        source.list_subjects(**({"folder": str(archives)} | changes))


def test_findings_can_be_refused(archives):
    [origin] = source.list_subjects(folder=str(archives), instance=3, refuse=("missing_stations", "swapped"))
    with pytest.raises(
        ValuesError, match=r"1000001_20201_3_0\.zip: swapped is \[2\], which config\.source\.refuse"
    ):
        origin.convert(origin.read())


def test_two_archives_of_one_visit_fail_and_the_others_do_not(tmp_path):
    for folder in ("a", "b"):
        ukb.write_zip(tmp_path / folder / "1000001_20201_2_0.zip", scanned(1)[:2])
    ukb.write_zip(tmp_path / "a" / "1000002_20201_2_0.zip", scanned(1)[:2])
    twice, once = source.list_subjects(folder=str(tmp_path))
    with pytest.raises(MismatchError, match="2 archives of one visit; keep one"):
        twice.checksum()
    assert len(twice.files()) == 2 and once.checksum()


def test_grid_can_be_chosen(archives, tmp_path):
    [origin] = source.list_subjects(
        folder=str(archives), instance=3, spacing_mm=(15.0, 15.0, 20.0), contrasts=("water", "fat")
    )
    found = origin.convert(origin.read())
    np.testing.assert_allclose(np.linalg.norm(found["affine"][:3, :3], axis=0), (15.0, 15.0, 20.0))
    assert found["image"].shape[3] == 2 and found["image"][..., 1].mean() > 0
    assert found["quality"]["swapped"] == [2]  # the indicator follows the names, whatever their order


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["", "local"])
def test_many_workers_write_what_one_writes(tmp_path, cluster):
    """Sound and broken archives; every byte of the stores and the list of failures."""
    if cluster:
        pytest.importorskip("distributed")
    zips = tmp_path / "zips"
    for number in (1, 2):
        ukb.write_zip(zips / f"100000{number}_20201_2_0.zip", scanned(number))
    ukb.write_zip(zips / "1000003_20201_2_0.zip", ukb.missing_slice(list(scanned(1))))
    one, two = tmp_path / "one", tmp_path / "two"
    assert ingest(zips, one) == 4
    assert ingest(zips, two, "--config.workers=2", f"--config.cluster={cluster}") == 4
    assert (one / "failures.jsonl").read_bytes() == (two / "failures.jsonl").read_bytes()
    written = [
        {path.relative_to(work): path.read_bytes() for path in (work / "store").rglob("*") if path.is_file()}
        for work in (one, two)
    ]
    assert written[0] == written[1] and len(written[0]) > 20
