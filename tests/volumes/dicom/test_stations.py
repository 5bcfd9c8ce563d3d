"""Series to stations: of repeats the right one is taken, and what is missing or broken is named."""

import numpy as np
import pytest

from tests.volumes import ukb_archive as ukb
from tests.volumes.dicom.dixon_archive import join, read, scanned, truth
from ukbob_jax.errors import GeometryError, MismatchError
from ukbob_jax.phantom import CONTRASTS

REFUSED = {
    "missing slice": (ukb.missing_slice, GeometryError, r"1 slice missing between [-\d.]+ and [-\d.]+ \(gap", (3, "water")),
    "missing last slice": (ukb.missing_last_slice, GeometryError, "slices are missing at an end", (2, "fat")),
    "uneven gap": (ukb.uneven_gap, GeometryError, "unevenly spaced", (4, "fat")),
    "mixed contrasts": (ukb.mixed_series, GeometryError, r"different contrasts \(fat, water\)", (2, "water")),
    "mixed stations": (ukb.mixed_stations, GeometryError, "missing between|two slices|unevenly", (2, "water")),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_broken_series_is_refused_with_its_uid(name, tmp_path):
    damage, kind, message, series = REFUSED[name]
    found = list(scanned())
    uid = ukb.of(found, *series)[0].dataset.SeriesInstanceUID
    with pytest.raises(kind, match=message) as caught:
        read(tmp_path, damage(found))
    assert uid in str(caught.value) and "1_20201_2_0.zip" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_contrast_is_named(tmp_path):
    found = ukb.missing_contrast(list(scanned()))
    with pytest.raises(MismatchError, match="no opposed_phase at station 5 of 6") as caught:
        read(tmp_path, found)
    assert "fat, in_phase, water" in str(caught.value)
    two = join(read(tmp_path, found, ("fat", "water")), ("fat", "water"))  # not asked for, not missed
    np.testing.assert_array_equal(two.image.array, truth().array[..., :2])
    assert two.quality["other_series"] == 11


@pytest.mark.parametrize("later, factor", [(True, 1.0), (False, 0.5)])
def test_of_repeated_series_the_latest_counts(later, factor, tmp_path):
    repeated = ukb.repeated(list(scanned()), 2, 0.5, CONTRASTS, later)
    stations = read(tmp_path, repeated)
    assert stations.repeats == 4 and len(stations.volumes) == 6
    expected = ukb.cut(truth())[1].array * 0.5 / factor
    np.testing.assert_allclose(
        stations.volumes[1].array, expected, atol=0.5
    )  # halves are cut off to whole numbers


def test_repeat_that_was_broken_off_does_not_mix_breath_holds(tmp_path):
    stations = read(tmp_path, ukb.repeated(list(scanned()), 2, 0.5, ("fat", "water"), True))
    assert stations.repeats == 2
    np.testing.assert_array_equal(stations.volumes[1].array, ukb.cut(truth())[1].array)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("contrasts", [CONTRASTS, ("fat", "water")])
def test_repeat_with_some_of_its_slices_replaces_nothing(share, contrasts, tmp_path):
    sound = list(scanned())
    added = ukb.repeated(sound, 3, 0.5, contrasts, True)[len(sound) :]
    last = max(one.position for one in added)
    stations = read(tmp_path, [*sound, *(one for one in added if one.position < share * (last + 1))])
    assert stations.repeats == len(contrasts) and len(stations.volumes) == 6
    (tmp_path / "sound").mkdir()
    for volume, expected in zip(stations.volumes, read(tmp_path / "sound", sound).volumes):
        np.testing.assert_array_equal(volume.array, expected.array)


def test_broken_repeat_of_a_sound_station_is_no_loss(tmp_path):
    found = ukb.repeated(list(scanned()), 3, 0.5, ("water",), False)
    early = {image.dataset.SeriesInstanceUID for image in ukb.of(found, 3, "water")} - {
        ukb.of(list(scanned()), 3, "water")[0].dataset.SeriesInstanceUID
    }
    aborted = [image for image in found if image.dataset.SeriesInstanceUID in early]
    stations = read(tmp_path, ukb.without(found, aborted[3:5]))
    assert (stations.broken, stations.repeats) == (1, 0)
    np.testing.assert_array_equal(stations.volumes[2].array, ukb.cut(truth())[2].array)
