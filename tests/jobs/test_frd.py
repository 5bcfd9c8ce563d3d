"""Two sets of a store's scans compared in radiomic features: measured once, by shares, the same result."""

import csv

import numpy as np
import pytest

from configs import frd as recipe
from ukbob_jax import anatomy, cli, errors, files, radiomics
from ukbob_jax.jobs import frd as job
from ukbob_jax.quality import verdicts
from ukbob_jax.radiomics import store_vectors
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter

SHAPE, AFFINE = (12, 11, 10), np.diag([2.0, 2.0, 3.0, 1.0])
LIVER = anatomy.IDS["liver"]


def scan(number, site):
    """Noise; the second site's varies from voxel to voxel three times as much."""
    rng = np.random.default_rng(number)
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:9, 2:9, 1:8] = LIVER
    image = (
        500
        + (60 if site == 2 else 20) * rng.normal(size=(*SHAPE, 2))
        + 4 * np.arange(12)[:, None, None, None]
    )
    return image.astype(np.int16), labels


@pytest.fixture
def store(tmp_path):
    with StoreWriter(tmp_path / "store") as writer:
        for number in range(9):
            site = 1 + number // 5
            image, labels = scan(number, site)
            smaller = labels.copy()
            smaller[:3] = 0
            writer.write(
                f"s{number}", image, AFFINE, {"auto": labels, "manual": smaller},
                source=str(number), split="val" if number % 2 else "train", attributes={"site": str(site)},
            )  # fmt: skip
    return tmp_path / "store"


@pytest.fixture
def counted(monkeypatch):
    calls = []
    vector = store_vectors.frd_vectors.vector

    def counting(*args, **options):
        calls.append(1)
        return vector(*args, **options)

    monkeypatch.setattr(store_vectors.frd_vectors, "vector", counting)
    return calls


def run(store, work, **changes):
    config = recipe.get_config()
    config.store = str(store)
    contrast = tuple(Store.open(store).rows["s0"].contrasts)[1]
    chosen = {"contrast": contrast, "version": "v0", "draws": 20, "where": "site=1", "other_where": "site=2"}
    config.frd.update(chosen | changes)
    job.run(config.copy_and_resolve_references(), str(work))
    return work / "frd"


def test_sites_are_apart_and_say_in_what(store, tmp_path, counted):
    folder = run(store, tmp_path / "work")
    facts = files.read_json(folder / "frd.json")
    assert facts["scans"] == [5, 4] and len(counted) == 9
    assert facts["value"] == facts["d2"] > facts["by_chance"] and facts["p"] < 0.1
    assert 0 < facts["low"] < facts["high"]
    tables = [
        np.array([list(radiomics.frd_vector(image[..., 1], labels > 0, (2, 2, 3), version="v0").values())
                  for image, labels in (scan(n, site) for n in numbers)])
        for site, numbers in ((1, range(5)), (2, range(5, 9)))
    ]  # fmt: skip
    assert facts["value"] == pytest.approx(radiomics.frd(*tables, version="v0"))
    rows = {
        row["feature"]: float(row["shift"] or "nan")
        for row in csv.DictReader((folder / "shifts.csv").read_text().splitlines())
    }
    assert rows["firstorder_Variance"] > 5 > abs(rows["firstorder_Median"])
    scores = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
    assert [row["subject"] for row in scores] == ["s5", "s6", "s7", "s8"]
    assert facts["outside"] == 4 == sum(row["outside"] == "True" for row in scores)
    html = (folder / "index.html").read_text()
    assert "site=1" in html and all(
        (folder / f"frd_{name}.png").exists() for name in ("families", "features", "scores")
    )
    run(store, tmp_path / "again")
    assert len(counted) == 9
    assert (tmp_path / "again" / "frd" / "frd.json").read_bytes() == (folder / "frd.json").read_bytes()


def test_shares_and_a_cut_off_run_give_what_one_process_gives(store, tmp_path, counted):
    whole = (run(store, tmp_path / "one") / "frd.json").read_bytes()
    quality = verdicts.folder(store, "auto")
    for path in quality.iterdir():
        path.unlink()
    counted.clear()
    for process in range(2):
        folder = run(store, tmp_path / "work", process=process, processes=2)
        assert not folder.exists()
    cut = quality / f"{store_vectors.CACHE}.1-of-2.jsonl"
    cut.write_text(cut.read_text()[:-30])  # a machine that was lost while it wrote
    run(store, tmp_path / "work", process=1, processes=2)
    assert len(counted) == 10
    assert (run(store, tmp_path / "work") / "frd.json").read_bytes() == whole and len(counted) == 10


def test_label_sets_and_a_single_scan(store, tmp_path):
    same = {"where": "", "other_where": "", "other_label": "manual", "organ": "liver"}
    facts = files.read_json(run(store, tmp_path / "labels", **same) / "frd.json")
    assert facts["scans"] == [9, 9] and facts["value"] > 0
    folder = run(store, tmp_path / "one", other_where="subject=s7")
    facts = files.read_json(folder / "frd.json")
    assert "value" not in facts and facts["outside"] == 1 and not (folder / "shifts.csv").exists()
    assert "Single scans" in (folder / "index.html").read_text()


@pytest.mark.slow
def test_v1_of_a_store(store, tmp_path):
    pytest.importorskip("SimpleITK")
    pytest.importorskip("pywt")
    two = {"where": "site=1 split=val", "other_where": "site=2 split=val", "version": "v1", "draws": 2}
    facts = files.read_json(run(store, tmp_path, **two) / "frd.json")
    assert facts["features"] == 1001 and facts["value"] == pytest.approx(np.log(facts["d2"]))


def test_the_command_writes_what_the_recipe_writes(store, tmp_path, capsys):
    wanted = run(store, tmp_path / "work") / "frd.json"
    contrast = tuple(Store.open(store).rows["s0"].contrasts)[1]
    out = tmp_path / "out"
    words = ["frd", store, store, "--out", out, "--version", "v0", "--draws", "20", "--where", "site=1"]
    code = cli.main([*map(str, words), "--contrast", contrast, "--other-where", "site=2"])
    assert code == 0 and capsys.readouterr().out == f"{out / 'index.html'}\n"
    assert (out / "frd.json").read_bytes() == wanted.read_bytes()
    for extra, message in (
        (["--other-where", "site=1", "--contrast", contrast], "--other-where: both sets are the same"),
        (["--other-where", "site=2"], "--contrast: features are of one contrast"),
        (["--organ", "tail"], "--organ='tail': no such structure"),
        (
            ["--other-label", "none", "--contrast", contrast],
            "no subject has a label set 'none'. Choose one of auto, manual.",
        ),
    ):
        assert cli.main([*map(str, words), *extra]) == 2
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1
    assert cli.main(["frd", str(store), str(tmp_path)]) == 3
    assert capsys.readouterr().err.endswith(
        f"{tmp_path}: no store; give two folders that an ingest job has written.\n"
    )


def test_what_cannot_be_compared_is_refused(store, tmp_path):
    for changes, message in (
        ({"other_where": "site=1"}, "both sets are the same"),
        ({"where": "site=7"}, r"config\.frd\.where: .* no subject with labels 'auto' and site=7"),
        ({"other_where": "hospital=1"}, r"config\.frd\.other_where: 'hospital=1' is no NAME=VALUE"),
        ({"contrast": ""}, r"config\.frd\.contrast"),
        ({"organ": "tail"}, r"frd\.organ='tail'"),
        ({"version": "v3"}, r"frd\.version='v3'"),
    ):
        with pytest.raises(errors.ConfigError, match=message):
            run(store, tmp_path, **changes)
