"""The console command: what it prints, what it writes, and which exit code a mistake gets."""

import csv
import json
import subprocess
import sys
import tomllib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import ROOT
from tests.inference.networks import CARD, Bands, bands, scan
from ukbob_jax import anatomy, cli
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.volumes.nifti import read_volume, write_volume
from ukbob_jax.volumes.volume import Volume


def call(capsys, *argv) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in argv])
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.fixture
def network(monkeypatch):
    """Every workdir holds the network of intensity bands."""
    model = Bands()
    params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"]
    loaded = []

    def load(workdirs, which, *, dtype, announce):
        loaded.append((tuple(workdirs), which, dtype))
        others = [Segmenter(model, params, CARD) for _ in workdirs[1:]]
        return Segmenter(model, params, CARD, others=others, announce=announce)

    monkeypatch.setattr(Segmenter, "load", load)
    monkeypatch.setenv("UKBOB_CACHE", "off")
    return loaded


@pytest.fixture
def scans(tmp_path):
    """Three files, one of them damaged, of two buckets of shapes."""
    folder = tmp_path / "scans"
    for name, shape in (("a", (11, 9, 10)), ("b", (12, 10, 9)), ("c", (20, 9, 10))):
        write_volume(folder / f"{name}.nii.gz", scan(shape))
    return folder


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ["dream"],
            "'dream' is no command; there are segment, check, labels, radiomics, frd, info, compare, card, export2d, ",
        ),
        (["segment", "a.nii", "b.nii"], "no network is named: give --model WORKDIR"),
        (["segment", "a.nii"], "the following arguments are required: OUT. See ukbob segment --help"),
        (["segment", "SCAN", "OUT", "--model", "m"], "its name must end in .nii.gz, .nii, .seg.nrrd"),
        (["segment", "SCAN", "o.nii", "--model", "m", "--adapt", "magic"], "invalid choice: 'magic'"),
        (
            ["segment", "SCAN", "o.nii", "--model", "m", "--steps", "3"],
            "--steps goes with --method etta or tent",
        ),
        (["segment", "FOLDER", "o.nii", "--model", "m"], "is a folder of scans, so OUT must be a folder"),
        (
            ["segment", "SCAN", "FOLDER", "o.nii", "--model", "m"],
            "several inputs are the contrasts of one scan",
        ),
        (["labels", "--dataset", "flare"], "invalid choice: 'flare'"),
        (["check", "DATA", "--layout", "pile"], "invalid choice: 'pile'"),
        (["labels", "--jsn"], "unrecognized arguments: --jsn"),
    ],
)
def test_a_mistake_in_the_call_is_one_line_and_exit_code_2(capsys, scans, words, said):
    given = {"SCAN": scans / "a.nii.gz", "FOLDER": scans, "OUT": scans / "somewhere"}
    code, out, error = call(capsys, *(given.get(word, word) for word in words))
    assert code == 2 and said in error and error.count("\n") == 1 and not out


def test_help_names_the_commands_without_loading_jax(capsys):
    code = "import sys; from ukbob_jax import cli; assert cli.main(['labels', '--help']) == 0; "
    code += "assert 'jax' not in sys.modules"
    assert (
        "SystemExit"
        not in subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    )
    for words in ([], ["--help"], ["help"]):
        returned, out, _ = call(capsys, *words)
        assert returned == 0 and all(f"ukbob {name}" in out for name in cli.COMMANDS)
    assert call(capsys, "--version")[1].startswith("ukbob-jax 0.")


def test_the_installed_command_is_this_one():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"ukbob": f"{cli.__name__}:{cli.main.__name__}"}


def test_labels_lists_every_id_with_its_counterparts(capsys):
    code, out, _ = call(capsys, "labels")
    assert code == 0 and len(out.splitlines()) == anatomy.NUM_CLASSES + 1
    rows = {row["id"]: row for row in json.loads(call(capsys, "labels", "--json")[1])}
    assert rows[5] == {
        "id": 5, "name": "liver", "group": "organs",
        "btcv": "6", "amos": "6", "totalsegmentator_ct": "5", "totalsegmentator_mr": "5",
        "vibesegmentator_ct": "5",
    }  # fmt: skip
    assert rows[69]["btcv"] == "-" and rows[69]["totalsegmentator_ct"] == "*"
    theirs = {row["id"]: row for row in json.loads(call(capsys, "labels", "--dataset", "btcv", "--json")[1])}
    assert theirs[6] == {"id": 6, "name": "liver", "ours": "5", "our name": "liver"} and len(theirs) == 14


def test_check_tells_what_is_wrong_with_each_scan(capsys, scans, tmp_path):
    code, out, error = call(capsys, "check", scans)
    assert code == 0 and out.count("ok ") == 3 and not error
    assert "ok   a: 11 x 9 x 10 voxels, 2 x 2 x 2 mm, RAS, 1 channels, int16" in out
    (scans / "bad.nii.gz").write_bytes((scans / "a.nii.gz").read_bytes()[:200])
    write_volume(scans / "flat.nii.gz", Volume(np.full((4, 4, 4), 7, np.int16), np.eye(4)))
    code, out, error = call(capsys, "check", scans)
    assert code == 4 and "2 of 5 scans cannot be used" in error and error.count("\n") == 1
    assert "BAD  bad: " in out and "truncated" in out
    assert "flat.nii.gz: channel 0 is 7 in every voxel. Export it again, or take it all the same" in out
    code, out, error = call(capsys, "check", scans, "--constant", "accept")  # as the message says
    assert code == 4 and "1 of 5 scans cannot be used" in error and "channels [0] show nothing" in out
    assert "     flat: warning: its affine is exactly the identity" in out
    code, out, error = call(capsys, "check", scans / "bad.nii.gz")
    assert code == 3 and "truncated" in out and "no scan of 1 can be used" in error
    assert call(capsys, "check", tmp_path / "nowhere")[0] == 3


def test_check_compares_labels_with_their_images(capsys, scans):
    labels = scans.parent / "labels"
    for name, shape in (("a", (11, 9, 10)), ("b", (12, 10, 9)), ("c", (20, 9, 11))):
        write_volume(labels / f"{name}.nii.gz", Volume(np.ones(shape, np.uint8), np.diag([2.0, 2, 2, 1])))
    code, out, _ = call(capsys, "check", scans, "--labels", labels)
    assert code == 4 and out.count("ok ") == 2 and "BAD  c: " in out and "(20, 9, 11)" in out


def test_info_tells_versions_devices_and_caches(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("UKBOB_CACHE", str(tmp_path))
    code, out, _ = call(capsys, "info", "--json")
    found = json.loads(out)
    assert code == 0 and found["packages"]["jax"] == jax.__version__ and found["platform"] == "cpu"
    assert found["compile cache"] == {"folder": str(tmp_path), "programs": 0}
    assert f"folder: {tmp_path}" in call(capsys, "info")[1]
    code, _, error = call(capsys, "info", tmp_path)
    assert code == 3 and "no folder checkpoints" in error


def test_one_scan_goes_to_a_file(capsys, scans, tmp_path, network):
    out = tmp_path / "labels.nii.gz"
    code, _, error = call(capsys, "segment", scans / "a.nii.gz", out, "--model", "m", "--batch", "2")
    assert code == 0 and "bucket" in error and "about" in error and network == [(("m",), "best", "")]
    np.testing.assert_array_equal(read_volume(out).array, bands(scan((11, 9, 10)).array))
    assert json.loads((tmp_path / "labels.json").read_text())["structures"]["liver"]["fragments"] > 0
    code, _, error = call(capsys, "segment", scans / "a.nii.gz", out, "--model", "m")
    assert code == 2 and "labels.nii.gz exists" in error
    assert call(capsys, "segment", scans / "a.nii.gz", out, "--model", "m", "--existing", "overwrite")[0] == 0


def test_everyday_outputs_lie_beside_the_label_map(capsys, scans, tmp_path, network):
    out = tmp_path / "out" / "labels.nii"
    words = (
        "segment",
        scans / "a.nii.gz",
        out,
        "--model",
        "m",
        "--fast",
        "--statistics",
        "--masks",
        "--preview",
    )
    assert call(capsys, *words, "--itksnap", "--roi-subset", "spleen")[0] == 0
    assert sorted(path.name for path in out.parent.rglob("*")) == [
        "labels.json", "labels.label.txt", "labels.nii", "labels.preview.png", "labels.statistics.csv",
        "labels.statistics.json", "labels_masks", "spleen.nii",
    ]  # fmt: skip
    assert set(np.unique(read_volume(out).array)) == {0, 3}
    folder = tmp_path / "many"
    words = ("segment", scans, folder, "--model", "m", "--format", "mgz", "--statistics")
    assert call(capsys, *words)[0] == 0
    assert len(list(folder.glob("*.mgz"))) == 3 and (folder / "statistics.csv").exists()


def test_a_scan_becomes_a_bids_derivative(capsys, scans, tmp_path, network):
    assert call(capsys, "segment", scans, tmp_path / "out", "--model", "m", "--bids")[0] == 0
    assert (tmp_path / "out" / "sub-a" / "anat" / "sub-a_seg-ukbob_dseg.nii.gz").exists()
    raw = tmp_path / "raw"
    for ending in ("T1w", "T2w"):
        write_volume(raw / "sub-1" / "anat" / f"sub-1_{ending}.nii.gz", scan())
    words = ("segment", raw, tmp_path / "of_raw", "--model", "m", "--bids", "--path")
    assert call(capsys, *words, "contrasts=T2w")[0] == 0
    side = json.loads((tmp_path / "of_raw/sub-1/anat/sub-1_seg-ukbob_dseg.json").read_text())
    assert side["Sources"] == ["sub-1_T2w.nii.gz"]
    code, _, error = call(capsys, *words, "contrast=T2w")
    assert code == 2 and "--path contrast: a BIDS data set takes contrasts, " in error
    code, _, error = call(capsys, "segment", raw, tmp_path / "x.nii.gz", "--model", "m", "--bids")
    assert code == 2 and "OUT is the folder of a BIDS derivative" in error


@pytest.mark.parametrize(
    "words, said",
    [
        (["OUT.nii", "--roi-subset", "livr"], "no 'livr' (did you mean liver?)"),
        (["OUT.nii", "--fast", "--mirror"], "--mirror: --fast sets it"),
        (["OUT.nii", "--fast", "--adapt"], "--method: --fast sets it"),
        (["OUT.dcm"], "a.nii.gz is none of their folders"),
        (["OUT.jpg"], "its name must end in .nii.gz, .nii, .seg.nrrd"),
        (["OUT.nii", "--path", "session=1"], "--path goes with --bids and a BIDS data set"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_the_scan_is_read(
    capsys, scans, tmp_path, network, words, said
):
    if words[0] == "OUT.dcm":
        pytest.importorskip("highdicom")
    out = tmp_path / words[0]
    (scans / "a.nii.gz").write_bytes(b"nothing that can be read")
    code, _, error = call(capsys, "segment", scans / "a.nii.gz", out, "--model", "m", *words[1:])
    assert code == 2 and said in error and error.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize("existing", ["refuse", "skip", "overwrite"])
def test_labels_never_replace_the_scan(capsys, scans, network, existing):
    before = {path: path.read_bytes() for path in scans.iterdir()}
    for place in ((scans / "a.nii.gz", scans / "a.nii.gz"), (scans, scans)):
        code, _, error = call(capsys, "segment", *place, "--model", "m", "--existing", existing)
        assert code == 2 and "a.nii.gz is the scan itself" in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in scans.iterdir()} == before


def test_a_place_that_cannot_be_written_is_told_before_any_work(capsys, scans, tmp_path, network):
    (tmp_path / "file").write_text("no folder")
    for source, place in ((scans / "a.nii.gz", "file/labels.nii.gz"), (scans, "file"), (scans, "file/deep")):
        code, _, error = call(capsys, "segment", source, tmp_path / place, "--model", "m")
        assert code == 3 and "file is not a folder that can be written" in error and error.count("\n") == 1


def test_an_empty_folder_is_told(capsys, tmp_path, network):
    (tmp_path / "empty").mkdir()
    code, _, error = call(capsys, "segment", tmp_path / "empty", tmp_path / "out", "--model", "m")
    assert code == 3 and "empty: an empty folder" in error and error.count("\n") == 1


def test_a_folder_gets_a_summary_and_goes_on_where_it_stopped(capsys, scans, tmp_path, network):
    out = tmp_path / "out"
    (scans / "bad.nii.gz").write_bytes((scans / "a.nii.gz").read_bytes()[:200])
    words = (
        "segment",
        scans,
        out,
        "--model",
        "m",
        "--model",
        "n",
        "--adapt",
        "--steps",
        "1",
        "--existing",
        "skip",
    )
    code, _, error = call(capsys, *words)
    assert code == 4 and "1 of 4 scans failed" in error and network[0][0] == ("m", "n")
    assert "3 of 4 scans labelled, 2 programs compiled" in error and error.count("segment: bucket") == 2
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["scans"]) == {"a", "b", "c"} and summary["failed"] == ["bad"]
    assert len(summary["programs"]) == 2 and len(summary["scans"]["a"]["adaptation"]) == 2
    rows = list(csv.DictReader((out / "summary.csv").read_text().splitlines()))
    assert [(row["scan"], row["structure"]) for row in rows] == [
        (s, o) for s in "abc" for o in ("liver", "spleen")
    ]
    assert (
        float(rows[0]["volume_ml"]) > 0
        and json.loads((out / "failures.jsonl").read_text())["subject"] == "bad"
    )
    (scans / "bad.nii.gz").unlink()
    stamp = (out / "a.nii.gz").stat().st_mtime_ns
    assert call(capsys, *words)[0] == 0
    assert (out / "a.nii.gz").stat().st_mtime_ns == stamp and not (out / "failures.jsonl").exists()
    assert len(list(csv.DictReader((out / "summary.csv").read_text().splitlines()))) == 6


def test_a_dicom_series_is_a_scan(capsys, tmp_path, network, monkeypatch):
    from ukbob_jax.volumes import dicom

    monkeypatch.setattr(dicom, "read_series", lambda folder, series, channels: scan((9, 9, 9)))
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "IM0001").write_bytes(b"DICM")
    assert call(capsys, "segment", tmp_path / "series", tmp_path / "o.nii.gz", "--model", "m")[0] == 0
    np.testing.assert_array_equal(read_volume(tmp_path / "o.nii.gz").array, bands(scan((9, 9, 9)).array))
