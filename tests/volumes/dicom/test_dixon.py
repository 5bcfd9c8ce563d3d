"""Neck-to-knee archives made of phantoms: what comes out is the phantom, and every planted defect is told."""

import itertools
import zipfile

import numpy as np
import pytest

from tests.volumes import ukb_archive as ukb
from tests.volumes.dicom.dixon_archive import SHAPE, join, read, scanned, truth
from ukbob_jax import phantom
from ukbob_jax.errors import EmptyError, FileError, MismatchError, ValuesError
from ukbob_jax.phantom import CONTRASTS
from ukbob_jax.volumes.dicom import dixon

GAINS = (1.0, 1.25, 0.8, 1.1, 0.9, 1.2)


def test_archive_gives_back_the_phantom_exactly(sound):
    # stations take the phantom's own slices, so that interpolation has nothing to do
    np.testing.assert_allclose(sound.image.affine, truth().affine, atol=1e-5)  # mm; headers have 9 digits
    np.testing.assert_array_equal(sound.image.array, truth().array)
    assert sound.image.array.dtype == np.int16
    assert sound.quality["seam_costs"] == [0.0] * 5
    assert sound.attributes == {
        "body_part": "ABDOMEN", "flip_angle_deg": 10.0, "field_strength_t": 1.5, "manufacturer": "SIEMENS",
        "scanner": "Aera", "modality": "MR", "sex": "F", "height_mm": 1680.0, "repetition_time_ms": 6.67,
    }  # fmt: skip


def test_sound_scan_has_nothing_to_report(sound):
    quality = dict(sound.quality)
    halves, volume = quality.pop("swap"), quality.pop("body_ml")
    assert quality == {
        "stations": 6, "missing_stations": 0, "gaps_mm": [], "seam_costs": [0.0] * 5, "swapped": [],
        "repeated_series": 0, "other_series": 0, "broken_series": 0, "contradicted_series": 0,
    }  # fmt: skip
    assert len(halves) == 6 and all(half is None or half < -0.1 for pair in halves for half in pair)
    assert sum(half is None for pair in halves for half in pair) <= 2
    label = phantom.label_map(1, SHAPE)
    assert volume == pytest.approx((label > 0).sum() * np.prod(truth().spacing_mm) / 1000, rel=0.04)


@pytest.mark.parametrize("data, told", [(b"", "is empty"), (bytes(900), "holds nothing but zeros")])
def test_a_member_without_content_is_told_instead_of_shortening_a_series(data, told, tmp_path):
    path = ukb.write_zip(tmp_path / "a.zip", scanned())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("last.dcm", data)
    with pytest.raises(FileError, match=rf"a\.zip: member \d+: {told}\. Fetch the archive again"):
        dixon.read_archive(path)


def test_rescaled_values_that_are_not_whole_are_kept(tmp_path):
    found = join(read(tmp_path, [ukb.altered(one, RescaleSlope="0.001") for one in scanned()]))
    assert found.image.array.dtype == np.float32
    np.testing.assert_allclose(found.image.array, truth().array * 0.001, atol=1e-6)


def test_values_beyond_int16_stay_whole(tmp_path):
    found = join(read(tmp_path, [ukb.altered(one, RescaleSlope="90") for one in scanned()]))
    assert found.image.array.dtype == np.float32 and found.image.array.max() > 32767
    np.testing.assert_array_equal(found.image.array, truth().array * 90)


def test_station_map_counts_from_the_head(sound):
    heights = sound.station.array.max((0, 1))
    np.testing.assert_array_equal(sound.station.array, np.broadcast_to(heights, SHAPE))
    assert set(heights) == set(range(1, 7)) and (np.diff(heights.astype(int)) <= 0).all()
    share = np.bincount(heights)[1:] / SHAPE[2]
    assert share.min() > 0.1 and share.max() < 0.25  # seams lie in the middle of the overlaps


def test_order_of_files_does_not_matter(tmp_path, sound):
    other = join(read(tmp_path, scanned(), shuffle=99))
    np.testing.assert_array_equal(other.image.array, sound.image.array)
    assert other.quality == sound.quality


def test_gains_between_stations_stay_within_their_neighbours_and_are_told(tmp_path, sound):
    found = join(read(tmp_path, scanned(*GAINS)))
    station, reference = found.station.array, truth().array
    strong = reference[..., 2] > 100  # in-phase, in the body: rounding stays below 1 %
    ratio = found.image.array[..., 2][strong] / reference[..., 2][strong]
    assert min(GAINS) - 0.02 < ratio.min() and ratio.max() < max(GAINS) + 0.02
    for number, gain in enumerate(GAINS, 1):  # away from the seams the station's own gain, to rounding
        heights = np.flatnonzero((station == number).all((0, 1)))[2:-2]
        inside = found.image.array[:, :, heights], reference[:, :, heights]
        assert np.abs(inside[0] - gain * inside[1]).max() <= 1.0
    for cost, (upper, lower) in zip(found.quality["seam_costs"], itertools.pairwise(GAINS), strict=True):
        assert cost == pytest.approx(abs(upper - lower) / ((upper + lower) / 2), abs=0.01)
    assert found.quality["swapped"] == []  # a gain is no swap
    overlap = (
        2 * (found.body.array & sound.body.array).sum() / (found.body.array.sum() + sound.body.array.sum())
    )
    assert overlap > 0.99


def test_protocol_of_unlike_stations_is_resampled(tmp_path):
    # slices of 3 to 4.5 mm and fields of view of unlike depth, from a phantom of 6 mm
    fine = ukb.subject(2, (30, 58, 184))
    stations = ukb.cut(fine, ukb.Protocol())
    found = join(
        read(tmp_path, ukb.images(stations[:3], CONTRASTS))
    )  # three stations; coarse in the plane, for speed
    low, high = (found.image.affine @ [0, 0, end, 1] for end in (0, found.image.shape[2] - 1))
    assert found.image.spacing_mm == pytest.approx((500 / 30, 300 / 58, 3.0))
    at = np.linalg.solve(fine.affine, found.image.affine)
    expected = fine.resample_like(found.image, 1).array
    body_ = found.body.array > 0
    error = np.abs(found.image.array - expected)[body_].mean() / expected[body_].mean()
    assert error < 0.03  # twice interpolated, the phantom's noise is blurred
    assert low[2] >= stations[2].affine[2, 3] - 0.03 and high[2] <= (fine.affine @ [0, 0, 183, 1])[2] + 0.03
    np.testing.assert_allclose(at[:2, 3], np.rint(at[:2, 3]), atol=1e-4)  # on the phantom's rows and columns
    assert found.quality["missing_stations"] == 3 and found.quality["gaps_mm"] == []


@pytest.mark.parametrize("station", [1, 6])
def test_missing_end_station_is_flagged(station, tmp_path):
    found = join(read(tmp_path, ukb.missing_station(list(scanned()), station)))
    assert found.quality["missing_stations"] == 1 and found.quality["gaps_mm"] == []
    rest = found.image.resample_like(truth(), 1).array
    assert found.image.shape[2] < SHAPE[2]
    covered = slice(16, None) if station == 6 else slice(0, 56)
    np.testing.assert_allclose(
        rest[:, :, covered], truth().array[:, :, covered], atol=1e-3
    )  # float32 positions


def test_missing_middle_station_leaves_a_gap_that_nobody_fills(tmp_path):
    found = join(read(tmp_path, ukb.missing_station(list(scanned()), 3)))
    assert found.image.shape == SHAPE and found.quality["missing_stations"] == 1
    [(low, high)] = found.quality["gaps_mm"]
    z = found.image.affine[2, 3] + found.image.spacing_mm[2] * np.arange(SHAPE[2])
    inside = (z > low + 0.1) & (z < high - 0.1)
    assert inside.sum() >= 7 and found.quality["seam_costs"][1] is None
    assert not found.image.array[:, :, inside].any() and not found.body.array[:, :, inside].any()
    assert (found.station.array[:, :, inside] == 0).all()
    np.testing.assert_array_equal(found.image.array[:, :, ~inside], truth().array[:, :, ~inside])


def test_other_series_are_counted_and_left_out(tmp_path, sound):
    scout = [ukb.altered(one, SeriesInstanceUID="1.2.3", SeriesDescription="localizer", ImageType=["ORIGINAL"])
             for one in ukb.of(scanned(), 1, "fat")]  # fmt: skip
    found = join(read(tmp_path, [*scanned(), *scout]))
    assert found.quality["other_series"] == 1
    np.testing.assert_array_equal(found.image.array, sound.image.array)


def test_image_type_that_contradicts_the_description_is_counted(tmp_path):
    fat = ukb.of(scanned(), 4, "fat")
    changed = [ukb.altered(one, ImageType=["DERIVED", "DIXON", "WATER"]) for one in fat]
    assert join(read(tmp_path, ukb.without(scanned(), fat) + changed)).quality["contradicted_series"] == 1


def test_contrast_that_shows_nothing_is_refused(tmp_path):
    blank = [one._replace(pixels=one.pixels * 0) if one.contrast == "water" else one for one in scanned()]
    with pytest.raises(ValuesError, match="water is 0 in every voxel"):
        join(read(tmp_path, blank))


def test_archive_of_something_else_is_told(tmp_path):
    with pytest.raises(EmptyError, match=r"no DICOM image in it.*20201"):
        read(tmp_path, [])
    other = [
        ukb.altered(one, SeriesDescription="T1_pancreas", ImageType=["M"])
        for one in ukb.of(scanned(), 1, "fat")
    ]
    with pytest.raises(MismatchError, match=r"none of its 1 series shows fat.*_in, _opp, _F, _W"):
        read(tmp_path, other)


def test_flipped_bit_in_an_image_is_an_error(tmp_path):
    path = ukb.write_zip(tmp_path / "1_20201_2_0.zip", list(scanned()))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(FileError, match=r"member \d+ is damaged"):
        dixon.read_archive(path)
