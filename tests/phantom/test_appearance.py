import numpy as np
import pytest

from ukbob_jax import anatomy, phantom
from ukbob_jax.anatomy import IDS
from ukbob_jax.phantom import appearance, grid

FAT, WATER, IN, OPPOSED = range(4)


def mean(man, name, channel):
    image, label = man
    return float(image[label == IDS[name], channel].mean())


def test_contrasts_are_named_in_their_order():
    assert phantom.CONTRASTS == ("fat", "water", "in_phase", "opposed_phase")


def test_values_are_magnitudes_a_scanner_would_store(man):
    image = man[0]
    assert np.isfinite(image).all() and image.min() >= 0 and image.max() < 32767
    assert np.array_equal(image, np.rint(image))


@pytest.mark.parametrize("channel, expected", [(IN, lambda w, f: w + f), (OPPOSED, lambda w, f: abs(w - f))])
def test_phases_follow_from_water_and_fat_within_the_noise(man, channel, expected):
    image, label = man
    w, f, seen = (image[label > 0][:, c].astype(float) for c in (WATER, FAT, channel))
    clear = np.abs(w - f) > 40  # where Rician bias is small
    difference = (seen - expected(w, f))[clear]
    assert abs(difference.mean()) < 6  # the magnitude of noise in the dark one of the two channels
    assert difference.std() < 3 * appearance._NOISE  # three independent noises


def test_air_shows_only_noise(man):
    image, label = man
    corner = image[:8, :8][label[:8, :8] == 0]
    assert corner.size > 1000
    rayleigh = appearance._NOISE * np.sqrt(np.pi / 2)
    assert rayleigh * 0.8 < corner[:, WATER].mean() < rayleigh * 2


def test_tissues_look_as_in_a_dixon_scan(man):
    assert mean(man, "subcutaneous_fat", FAT) > 4 * mean(man, "muscle", FAT)
    assert mean(man, "muscle", WATER) > 3 * mean(man, "subcutaneous_fat", WATER)
    assert mean(man, "lung_upper_lobe_left", WATER) < 0.4 * mean(man, "liver", WATER)
    assert mean(man, "aorta", WATER) > mean(man, "muscle", WATER)
    assert mean(man, "femur_left", FAT) > mean(man, "vertebra_body", FAT)


def test_neighbouring_organs_overlap_in_intensity(man):
    image, label = man
    liver, kidney = (image[label == IDS[n], WATER] for n in ("liver", "kidney_right"))
    threshold = (np.median(liver) + np.median(kidney)) / 2
    wrong = min(np.mean(liver > threshold), np.mean(liver < threshold))
    assert wrong > 0.05  # one voxel's brightness does not tell them apart


def test_stations_differ_in_gain():
    axes, steps = grid.axes_mm((20, 20, 120)), []
    for seed in range(6):
        profile = np.log(appearance._shading(np.random.default_rng(seed), axes)).mean(axis=(0, 1))
        jumps = np.sort(np.abs(np.diff(profile)))[::-1]
        steps.append(jumps[: appearance.STATIONS - 1].mean() / np.median(jumps))
    assert np.mean(steps) > 4  # the seams stand out from the smooth shading


def test_every_class_has_a_signal_or_is_muscle():
    assert set(appearance._SIGNAL) <= set(anatomy.IDS)
