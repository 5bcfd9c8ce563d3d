"""A Dixon scan in one folder: its contrasts as channels, in one series or in several."""

import numpy as np
import pytest

from tests.volumes.dicom.enhanced_files import encode, frames, shared
from tests.volumes.dicom.enhanced_files import write as write_frames
from tests.volumes.dicom.series_files import images, volume, write
from ukbob_jax import phantom
from ukbob_jax.errors import ConfigError, FileError, SomeFailed
from ukbob_jax.volumes import dicom

UID = "1.2.3.4"
CONTRASTS = phantom.CONTRASTS
TYPES = {
    "GE": ("WATER", "FAT", "IN_PHASE", "OUT_PHASE"),
    "Siemens": ("WATER", "FAT", "IN_PHASE", "OPP_PHASE"),
    "Philips": ("W", "F", "IP", "OP"),
}
ORDER = ("water", "fat", "in_phase", "opposed_phase")  # of TYPES


def truths():
    return {name: volume(seed=seed) for seed, name in enumerate(ORDER)}


def stacked(names):
    return np.stack([truths()[name].to_ras().array for name in names], -1)


def scan(folder, vendor="GE", one_series=True, names=ORDER):
    """A Dixon scan; its descriptions say nothing."""
    for number, name in enumerate(names):
        token = TYPES[vendor][ORDER.index(name)]
        kind = [token, token] if vendor == "Philips" else ["DIXON", token]
        uid = UID if one_series else f"{UID}.{number}"
        tags = {
            "ImageType": ["DERIVED", "PRIMARY", *kind],
            "SeriesDescription": "LAVA",
            "SeriesInstanceUID": uid,
        }
        write(folder / str(number), images(truths()[name], **tags))
    return folder


@pytest.mark.parametrize("vendor", TYPES)
@pytest.mark.parametrize("one_series", [True, False], ids=["one series", "a series each"])
def test_contrasts_become_channels_in_the_order_asked_for(vendor, one_series, tmp_path):
    scan(tmp_path, vendor, one_series)
    np.testing.assert_array_equal(dicom.read_series(tmp_path, channels=True).array, stacked(CONTRASTS))
    for names in (("in_phase", "water"), ("fat",), ORDER):
        found = dicom.read_series(tmp_path, channels=names)
        np.testing.assert_array_equal(found.array, stacked(names))
        np.testing.assert_allclose(found.affine, volume().to_ras().affine, atol=1e-6)
    found = dicom.read_series(tmp_path, channels=("Out-phase", "W"))
    np.testing.assert_array_equal(found.array, stacked(("opposed_phase", "water")))


def test_frames_of_one_object_become_channels(tmp_path):
    one = []
    for name, token in zip(ORDER, TYPES["Siemens"]):
        kind = {"MRImageFrameTypeSequence": {"FrameType": ["ORIGINAL", "PRIMARY", "DIXON", token]}}
        one += frames(truths()[name], **kind)
    write_frames(tmp_path, encode(one, shared(volume())))
    found = dicom.read_series(tmp_path, channels=("fat", "opposed_phase"))
    np.testing.assert_array_equal(found.array, stacked(("fat", "opposed_phase")))


def test_without_names_the_contrasts_are_listed(tmp_path):
    scan(tmp_path, names=("water", "fat"))
    with pytest.raises(
        FileError, match=f"2 images: {UID}:1 .LAVA, contrast water.*{UID}:2 .LAVA, contrast fat"
    ):
        dicom.read_series(tmp_path)
    with pytest.raises(FileError, match="no in_phase among 2 images: "):
        dicom.read_series(tmp_path, channels=("in_phase", "water"))
    np.testing.assert_array_equal(dicom.read_series(tmp_path, f"{UID}:2").array, stacked(["fat"])[..., 0])


def test_a_contrast_that_is_there_twice_is_not_chosen(tmp_path):
    scan(tmp_path / "one", names=("water", "fat"))
    write(tmp_path / "two", images(volume(seed=7), SeriesInstanceUID="1.2.9"))  # water by its description
    with pytest.raises(FileError, match=r"3 images: .*1\.2\.9 \(Dixon_noBH_W"):
        dicom.read_series(tmp_path, channels=("water", "fat"))
    found = dicom.read_series(tmp_path, UID, channels=("water", "fat"))
    np.testing.assert_array_equal(found.array, stacked(("water", "fat")))


def test_one_image_is_read_whatever_it_is_called(tmp_path):
    truth = volume()
    write(tmp_path, images(truth, SeriesDescription="t1", ImageType=["ORIGINAL", "PRIMARY"]))
    found = dicom.read_series(tmp_path, channels=("water", "fat"))
    np.testing.assert_array_equal(found.array, truth.to_ras().array[..., None])


def test_names_of_other_networks_are_no_dixon_contrasts():
    assert dicom.dixon_names(("in", "Opp", "F", "water")) == ("in_phase", "opposed_phase", "fat", "water")
    assert dicom.dixon_names(("t1", "water")) == dicom.dixon_names(()) == ()


def test_check_takes_the_contrasts_named(tmp_path, capsys):
    from tests.commands.test_check import parse
    from ukbob_jax.commands import check

    scan(tmp_path, names=("water", "fat"))
    check.run(parse(tmp_path, "--contrasts", "fat", "water"))
    assert "2 channels, int16" in capsys.readouterr().out
    with pytest.raises((FileError, SomeFailed)):
        check.run(parse(tmp_path))
    assert "contrast water" in capsys.readouterr().out
    with pytest.raises(
        ConfigError, match="--contrasts t1: expected some of fat water in_phase opposed_phase"
    ):
        check.run(parse(tmp_path, "--contrasts", "t1"))
