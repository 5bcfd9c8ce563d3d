"""The console command on a folder of DICOM files, with a stored checkpoint: nothing in between is replaced."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.inference.networks import CARD, Bands, bands, card_of, scan
from ukbob_jax import cli
from ukbob_jax.errors import FileError
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.training import optimizer, state
from ukbob_jax.training.checkpoints import Checkpoints
from ukbob_jax.volumes.nifti import read_label_names, read_pair, read_volume, write_volume
from ukbob_jax.volumes.volume import Volume

pytest.importorskip("pydicom")

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROI = (32, 32, 32)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run with a checkpoint of a small network whose random weights tell four classes apart."""
    folder = tmp_path_factory.mktemp("run")
    model = SwinUNETR(1, 4, feature_size=12, depths=(1, 1, 1, 1), window_size=(4, 4, 4))
    params = model.init(jax.random.key(0), jnp.zeros((1, *ROI, 1)))["params"]
    checkpoints = Checkpoints(folder / "checkpoints")
    start = state.start(params, {}, optimizer.build(learning_rate=1e-3, steps=1))
    checkpoints.save(start, card_of(model, window=tuple(ROI), normalize="zscore"))
    checkpoints.close()
    return folder


@pytest.fixture
def truth():
    """Blobs, in sagittal slices: no axis of the series is one of the network's."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([(0, 0, 2.5), (1.25, 0, 0), (0, 1.5, 0)])
    affine[:3, 3] = (-30.5, 12.25, 140.75)
    coarse = np.random.default_rng(0).integers(0, 2000, (5, 4, 3))
    return Volume(np.kron(coarse, np.ones((6, 7, 8))).astype(np.int16), affine)


def test_a_dicom_series_is_labelled_from_end_to_end(workdir, truth, tmp_path, capsys, monkeypatch):
    from tests.volumes.dicom.series_files import images, write

    monkeypatch.setenv("UKBOB_CACHE", "off")
    series = write(tmp_path / "series", images(truth))
    out = tmp_path / "labels.nii.gz"
    words = ["segment", series, out, "--model", workdir, "--batch", "1"]
    assert cli.main([str(word) for word in words]) == 0
    assert "segment: bucket" in capsys.readouterr().err
    found = read_volume(out)
    write_volume(tmp_path / "scan.nii.gz", truth)  # the same scan, as another program would have stored it
    expected = Segmenter.load(workdir).predict(tmp_path / "scan.nii.gz", batch=1).volume
    assert expected.shape == truth.shape and found.shape == truth.to_ras().shape
    np.testing.assert_allclose(found.affine, expected.to_ras().affine, atol=1e-4)  # mm; float32 in the file
    np.testing.assert_array_equal(found.array, expected.to_ras().array)
    assert len(np.unique(found.array)) == 3  # class 2 is unused
    report = json.loads((tmp_path / "labels.json").read_text())
    volumes = sum(row["volume_ml"] for row in report["structures"].values())
    assert volumes == pytest.approx((found.array > 0).sum() * 1.25 * 1.5 * 2.5 / 1000, rel=1e-3)


def test_a_dicom_series_becomes_a_dicom_segmentation(workdir, truth, tmp_path, capsys, monkeypatch):
    pytest.importorskip("highdicom")
    from tests.volumes.dicom.series_files import images, write

    monkeypatch.setenv("UKBOB_CACHE", "off")
    series = write(tmp_path / "series", images(truth, FrameOfReferenceUID="1.2.3.4"))
    out = tmp_path / "labels.dcm"
    words = [
        "segment",
        series,
        out,
        "--model",
        workdir,
        "--batch",
        "1",
        "--statistics",
        "--preview",
        "--masks",
    ]
    assert cli.main([str(word) for word in words]) == 0
    scan, found = read_pair(series, out)
    assert scan.array.shape == found.array.shape
    numbers = {name: number for number, name in read_label_names(out).items()}
    for name, one in json.loads((tmp_path / "labels.statistics.json").read_text()).items():
        inside = found.array == numbers.get(name, -1)
        assert inside.sum() == one["n_voxels"]
        assert one["intensity"] is None or one["intensity"] == pytest.approx(
            scan.array[inside].mean(), rel=1e-6
        )
        mask = read_volume(tmp_path / "labels_masks" / f"{name}.nii.gz").to_ras()
        np.testing.assert_array_equal(mask.array, inside)
    assert numbers and (tmp_path / "labels.preview.png").stat().st_size > 1000


def test_a_network_takes_the_contrasts_of_a_dixon_scan_in_its_own_order(tmp_path):
    from tests.volumes.dicom.series_files import images, write

    shown = {"WATER": scan(seed=1), "FAT": scan(seed=2)}
    for token, volume in shown.items():
        tags = {"ImageType": ["DERIVED", "PRIMARY", "DIXON", token], "SeriesInstanceUID": "1.2.3"}
        write(tmp_path / token, images(volume, SeriesDescription="LAVA", **tags))
    model = Bands()  # looks at its first contrast
    params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"]
    for contrasts in (("fat", "water"), ("W", "F"), ("water",)):
        found = Segmenter(model, params, dataclasses.replace(CARD, contrasts=contrasts))(tmp_path)
        first = shown["FAT" if contrasts[0] == "fat" else "WATER"]
        np.testing.assert_array_equal(found.array, bands(first.array))
    for contrasts, message in ((("t1",), "2 images: "), (("in", "W"), "no in_phase among 2 images: ")):
        with pytest.raises(FileError, match=message):
            Segmenter(model, params, dataclasses.replace(CARD, contrasts=contrasts))(tmp_path)
