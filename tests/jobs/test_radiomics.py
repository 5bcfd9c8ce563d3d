"""Features of a store: computed once, by shares, the same table bit for bit; and by the command for one scan."""

import csv

import numpy as np
import pytest

from configs import radiomics as recipe
from ukbob_jax import anatomy, cli, files, radiomics
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.jobs import radiomics as job
from ukbob_jax.quality import verdicts
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.volume import Volume

SHAPE, AFFINE = (14, 12, 10), np.diag([2.0, 2.0, 3.0, 1.0])
SUBJECTS = 4


def scan(number):
    rng = np.random.default_rng(number)
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:7, 2:9, 1:8] = anatomy.IDS["liver"]
    labels[8:12, 2:9, 1:8] = anatomy.IDS["heart"]
    if number == 2:
        labels[0, 0, 0] = anatomy.IDS["spleen"]  # a single voxel
    return rng.integers(0, 300, (*SHAPE, 2)).astype(np.int16), labels


@pytest.fixture
def store(tmp_path):
    with StoreWriter(tmp_path / "store") as writer:
        for number in range(SUBJECTS):
            image, labels = scan(number)
            writer.write(f"s{number}", image, AFFINE, {"auto": labels}, source=str(number))
    return tmp_path / "store"


@pytest.fixture
def counted(monkeypatch):
    calls = []

    def features(*args, **options):
        calls.append(1)
        return radiomics.features(*args, **options)

    monkeypatch.setattr(job, "features", features)
    return calls


def run(store, tmp_path, **changes):
    config = recipe.get_config()
    config.store = str(store)
    contrast = tuple(Store.open(store).rows["s0"].contrasts)[1]
    config.radiomics.update({"contrast": contrast, "families": ("firstorder", "glrlm")} | changes)
    job.run(config.copy_and_resolve_references(), str(tmp_path / "work"))
    return verdicts.folder(store, "auto") / job.TABLE


def test_a_row_per_subject_and_organ_computed_once(store, tmp_path, counted):
    path = run(store, tmp_path)
    assert len(counted) == SUBJECTS
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 2 * SUBJECTS + 1 and list(rows[0])[:3] == ["subject", "organ", "name"]
    image, labels = scan(1)
    liver = anatomy.IDS["liver"]
    direct = radiomics.features(image[..., 1], labels, (2, 2, 3), families=("firstorder", "glrlm"))
    [row] = [row for row in rows if row["subject"] == "s1" and row["organ"] == str(liver)]
    assert row["name"] == "liver" and set(direct) == set(row) - {"subject", "organ", "name"}
    assert all(float(row[name]) == values[liver] for name, values in direct.items())  # every digit
    [single] = [row for row in rows if row["name"] == "spleen"]
    assert not any(single[name] for name in direct)
    before = path.read_bytes()
    run(store, tmp_path)
    assert len(counted) == SUBJECTS and path.read_bytes() == before
    run(store, tmp_path, bin_width=10.0)
    assert len(counted) == 2 * SUBJECTS and path.read_bytes() != before
    assert files.read_json(path.with_suffix(".json"))["options"]["bin_width"] == 10.0


def test_shares_and_a_cut_off_run_make_the_table_of_one_process(store, tmp_path, counted):
    whole = run(store, tmp_path).read_bytes()
    folder = verdicts.folder(store, "auto")
    for path in folder.iterdir():
        path.unlink()
    counted.clear()
    for process in range(2):
        run(store, tmp_path, process=process, processes=2)
        assert not (folder / job.TABLE).exists()
    cut = folder / f"{job.CACHE}.1-of-2.jsonl"
    cut.write_text(cut.read_text()[:-30])  # a machine that was lost while it wrote
    assert run(store, tmp_path).read_bytes() == whole and len(counted) == SUBJECTS + 1


def test_what_a_store_cannot_give_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match=r"radiomics\.contrast"):
        run(store, tmp_path, contrast="")
    with pytest.raises(ConfigError, match=r"radiomics\.families"):
        run(store, tmp_path, families=("texture",))
    with pytest.raises(ConfigError, match=r"radiomics\.bin_width"):
        run(store, tmp_path, bin_width=-1.0)
    with pytest.raises(ConfigError, match=r"radiomics\.weighting"):
        run(store, tmp_path, weighting="far")
    for name, value in (
        ("alpha", -1),
        ("normalise_scale", -1.0),
        ("resample_mm", float("nan")),
        ("bin_count", -2),
    ):
        with pytest.raises(
            ConfigError, match=rf"config\.radiomics\.{name}={value}"
        ):  # before any scan is read
            run(store, tmp_path, **{name: value})
    with pytest.raises(FileError, match="grey levels"):  # each label map fails, and says why
        run(store, tmp_path, bin_width=1e-6)


def test_the_command_writes_a_row_per_structure(tmp_path, capsys):
    image, labels = scan(2)
    names = {anatomy.IDS["heart"]: "Herz", anatomy.IDS["liver"]: "Leber"}
    write_volume(tmp_path / "image.nii.gz", Volume(image[..., 0], AFFINE))
    write_volume(tmp_path / "labels.nii.gz", Volume(labels, AFFINE), names)
    paths = [str(tmp_path / name) for name in ("image.nii.gz", "labels.nii.gz", "out.csv")]
    assert cli.main(["radiomics", *paths, "--families", "firstorder"]) == 0
    assert "NaN: 1" in capsys.readouterr().err
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["class 1", "Leber", "Herz"]
    inside = image[..., 0][labels == anatomy.IDS["liver"]]
    assert float(rows[1]["original_firstorder_Mean"]) == pytest.approx(inside.mean(), rel=1e-12)
    assert cli.main(["radiomics", *paths[:2], str(tmp_path / "out.txt")]) != 0
    write_volume(tmp_path / "labels.nii.gz", Volume(np.zeros_like(labels), AFFINE))
    assert cli.main(["radiomics", *paths]) != 0
    assert "no structure" in capsys.readouterr().err
