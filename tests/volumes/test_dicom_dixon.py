"""Neck-to-knee archives made of phantoms: what comes out is the phantom, and every planted defect is told."""

import functools
import itertools
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.volumes import ukb_archive as ukb
from ukbob_jax import phantom
from ukbob_jax.errors import EmptyError, FileError, GeometryError, MismatchError, ValuesError
from ukbob_jax.phantom import CONTRASTS
from ukbob_jax.volumes.dicom import body, dixon, stitch, swap
from ukbob_jax.volumes.dicom import contrast as contrasts_of
from ukbob_jax.volumes.dicom.stations import Stations
from ukbob_jax.volumes.volume import Volume

SHAPE = (40, 30, 72)  # voxels of 12.5 x 10 x 15.3 mm: the coarsest on which stations overlap by two slices
GAINS = (1.0, 1.25, 0.8, 1.1, 0.9, 1.2)


@functools.cache
def truth(seed: int = 1) -> Volume:
    return ukb.subject(seed, SHAPE)


@functools.cache
def scanned(*gains: float) -> tuple[ukb.Image, ...]:
    return tuple(ukb.images(ukb.cut(truth(), gains=gains)))


def read(path: pathlib.Path, found, contrasts=CONTRASTS, **options) -> Stations:
    return dixon.read_archive(ukb.write_zip(path / "1_20201_2_0.zip", list(found), **options), contrasts)


def join(stations: Stations, contrasts=CONTRASTS) -> dixon.Dixon:
    return dixon.join(stations, contrasts, (), "archive")


def test_names_and_order_are_the_phantoms():
    assert contrasts_of.CONTRASTS == CONTRASTS


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dixon.Dixon:
    return join(read(tmp_path_factory.mktemp("sound"), scanned()))


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


# -- defects ------------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("station", [1, 3, 6])
def test_swapped_station_is_flagged(station, tmp_path):
    found = join(read(tmp_path, ukb.swapped(list(scanned()), station)))
    assert found.quality["swapped"] == [station]


def test_swapped_leg_is_flagged(tmp_path):
    found = join(read(tmp_path, ukb.swapped(list(scanned()), 5, half=True)))
    left, right = found.quality["swap"][4]
    assert found.quality["swapped"] == [5] and left > 0 > right


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


def test_turned_station_is_refused():
    stations = ukb.cut(truth())
    angle = np.deg2rad(2)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    stations[2] = Volume(stations[2].array, turn @ stations[2].affine)
    with pytest.raises(GeometryError, match="turned against the others"):
        stitch.stitch(stations)


# -- parts --------------------------------------------------------------------------------------------------------


def stack(draws: list[tuple[float, int]], step: float, value: float = 1.0) -> list[Volume]:
    """Stations from head to knee: (lowest slice, slices) each, constant."""
    made = []
    for low, n in draws:
        affine = np.diag([2.0, 2.0, step, 1.0])
        affine[2, 3] = low
        made.append(Volume(np.full((4, 5, n, 2), value, np.float32), affine))
    return made


@settings(max_examples=30, deadline=None)
@given(
    lows=st.lists(st.floats(20, 45), min_size=1, max_size=4),
    step=st.sampled_from([2.5, 3.0, 4.5]),
    grid=st.sampled_from([2.0, 3.0, 3.7]),
)
def test_weights_sum_to_one_and_nothing_is_extrapolated(lows, step, grid):
    heights = np.cumsum([0.0, *lows])[
        ::-1
    ]  # slices of 12 each reach 27 to 50 mm: overlaps and gaps both occur
    found = stitch.stitch(stack([(low, 12) for low in heights], step, 7.0), (2.0, 2.0, grid))
    z = found.image.affine[2, 3] + grid * np.arange(found.image.shape[2])
    tall, profile, map_ = 11 * step, found.image.array[1, 2, :, 0], found.station.array[1, 2]
    outside = np.maximum(heights - z[:, None], z[:, None] - heights - tall).min(
        1
    )  # mm beyond the nearest station
    assert (map_[outside < 0.02] > 0).all() and (map_[outside > 0.05] == 0).all()  # 0.01 voxel is rounding
    np.testing.assert_allclose(profile, np.where(map_ > 0, 7.0, 0.0), rtol=2e-6)  # float32 sums
    assert len(found.gaps_mm) == int((heights[:-1] - heights[1:] > tall + 1e-9).sum())


def test_blend_is_half_a_cosine():
    upper, lower = stack([(27.0, 12), (0.0, 12)], 3.0)
    upper = Volume(upper.array * 5, upper.affine)
    found = stitch.stitch([upper, lower])
    shares = (found.image.array[0, 0, :, 0] - 1) / 4  # of the upper station, at every 3 mm from 0
    expected = 0.5 - 0.5 * np.cos(np.pi * (np.arange(3) + 0.5) / 3)  # overlap 27 to 33 mm: three slices
    np.testing.assert_allclose(shares, [0] * 9 + expected.tolist() + [1] * 9, atol=1e-6)
    assert found.seam_costs == (round(4 / 3, 4),)  # |5 - 1| / ((5 + 1) / 2)


def test_smaller_field_of_view_leaves_no_hole():
    upper, lower = stack([(27.0, 12), (0.0, 12)], 3.0, 9.0)
    affine = lower.affine.copy()
    affine[1, 3] = 2.0
    found = stitch.stitch([upper, Volume(lower.array[:, 1:4], affine)])
    assert (found.image.array[:, 1:4] == 9).all()
    assert (found.image.array[:, 0, 9:] == 9).all() and not found.image.array[:, 0, :9].any()


@pytest.mark.parametrize("seed", [0, 3, 7])
def test_body_is_the_phantoms(seed):
    shape = (80, 58, 120)  # 6.25 x 5.2 x 9.2 mm
    image, label = phantom.subject(seed, shape)
    station = np.repeat(np.arange(6, 0, -1), 20).astype(np.uint8) * np.ones(shape, np.uint8)
    found = body.body_mask(image[..., 2], phantom.spacing_mm(shape), station)
    assert 2 * (found & (label > 0)).sum() / (found.sum() + (label > 0).sum()) > 0.985
    assert found[label > 0].mean() > 0.97


@pytest.mark.parametrize("seed", range(4))
def test_swap_indicator_is_negative_for_sound_scans_and_changes_sign(seed):
    shape = (80, 58, 120)
    image, label = phantom.subject(seed, shape)
    station = np.repeat(np.arange(6, 0, -1), 20).astype(np.uint8) * np.ones(shape, np.uint8)
    fat, water = image[..., 0], image[..., 1]
    sound = swap.indicators(fat, water, label > 0, station, phantom.spacing_mm(shape))
    exchanged = swap.indicators(water, fat, label > 0, station, phantom.spacing_mm(shape))
    values = [half for pair in sound for half in pair if half is not None]
    assert len(values) >= 11 and max(values) < -0.1
    np.testing.assert_allclose(
        [half for pair in exchanged for half in pair if half is not None], -np.array(values)
    )
    assert swap.suspected(sound) == [] and swap.suspected(exchanged) == [1, 2, 3, 4, 5, 6]


def test_otsu_is_skimages():
    skimage = pytest.importorskip("skimage.filters")
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(20, 6, 4000), rng.normal(120, 25, 3000)])
    top = np.percentile(values, body.BRIGHT)
    expected = skimage.threshold_otsu(np.minimum(values, top), nbins=body.BINS)
    assert body.otsu(values) == pytest.approx(
        expected, abs=1.5 * np.ptp(values) / body.BINS
    )  # bin edge against centre
    assert body.otsu(np.full(10, 3.0)) == 3.0


@pytest.mark.parametrize("radii", [(1, 1), (2, 5), (9, 1)])
def test_the_core_is_what_a_box_fits_into(radii):
    mask = np.random.default_rng(0).uniform(size=(12, 30, 4)) < 0.97
    mask[2:9, 2:26] = True
    box = np.ones((2 * radii[0] + 1, 2 * radii[1] + 1, 1))
    found = swap.erode_in_plane(mask, list(radii))
    np.testing.assert_array_equal(found, ndimage.binary_erosion(mask, box))
    assert found.dtype == bool and found.any() == (radii[0] < 5)
