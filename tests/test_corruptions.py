"""The corruptions of the robustness suite: what each does, by closed forms and by what must hold for all."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.robustness import corruptions, real, results, sweep
from experiments.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from tests.inference import networks
from ukbob_jax import anatomy, files, phantom
from ukbob_jax.inference.adaptation.methods import Method
from ukbob_jax.inference.adaptation.options import Adaptation
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.volume import Volume

SHAPE = (32, 24, 48)


@pytest.fixture(scope="module")
def scan():
    return phantom.subject(1, SHAPE)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_is_deterministic_stronger_with_severity_and_leaves_its_input(scan, name):
    image, label = scan
    before = image.copy(), label.copy()
    change = []
    for severity in SEVERITIES:
        out, moved = corrupt(image, label, name, severity, seed=3)
        assert (
            out.shape == image.shape and out.dtype == np.float32 and out.min() >= 0 and np.isfinite(out).all()
        )
        assert moved.shape == label.shape and moved.dtype == label.dtype
        again = corrupt(image, label, name, severity, seed=3)
        assert np.array_equal(out, again[0]) and np.array_equal(moved, again[1])
        change.append(np.abs(out - image).mean())
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(label, before[1])
    assert change[0] > 0 and change == sorted(change)
    other = corrupt(image, label, name, 5, seed=4)[0]
    assert np.array_equal(out, other) == (name in ("gibbs", "low_resolution", "fat_water_swap"))  # not random


@pytest.mark.parametrize(
    "name", [n for n in CORRUPTIONS if n not in ("station_misalignment", "missing_station")]
)
def test_anatomy_stays_where_it_is(scan, name):
    assert corrupt(*scan, name, 5, 0)[1] is scan[1]


def test_rician_noise_in_air_has_the_rayleigh_mean():
    image = np.zeros((40, 40, 40, 1))
    image[:10] = 100
    out, _ = corruptions.rician_noise(image, None, 0.05, np.random.default_rng(0))
    assert out[20:].mean() == pytest.approx(5 * np.sqrt(np.pi / 2), rel=0.01)


def test_gibbs_overshoots_an_edge_and_keeps_the_mean():
    image = np.zeros((64, 4, 2, 1))
    image[16:48] = 1
    out, _ = corruptions.gibbs(image, None, 0.5, np.random.default_rng(0))
    assert 1.05 < out.max() < 1.2  # the overshoot of a cut-off Fourier series is 9 % of the step
    assert out.mean() == pytest.approx(image.mean(), abs=0.03)


def test_ghosts_repeat_the_body_and_spikes_make_stripes():
    image = np.zeros((8, 48, 8, 1))
    image[:, 22:26] = 1
    ghost, _ = corruptions.ghosting(image, None, 0.8, np.random.default_rng(0))
    assert ghost[:, :10].max() > 0.02 and ghost[:, 22:26].min() > ghost[:, :10].max()
    out, _ = corruptions.spike(np.ones((16, 16, 16, 1)), None, 0.3, np.random.default_rng(0))
    power = np.abs(np.fft.fftn(out[..., 0] - out.mean()))
    assert (power > 0.5 * power.max()).sum() == 2  # one wave


def test_swap_exchanges_two_channels_in_neighbouring_slices(scan):
    image, label = scan
    out, _ = corrupt(image, label, "fat_water_swap", 3, 0)
    changed = np.flatnonzero((out != image).any((0, 1, 3)))
    assert changed.size <= round(0.25 * SHAPE[2]) and (np.diff(changed) == 1).all()
    np.testing.assert_array_equal(out[..., changed, 0], image[..., changed, 1])
    np.testing.assert_array_equal(out[..., 2:], image[..., 2:])
    np.testing.assert_array_equal(
        corrupt(image, label, "fat_water_swap", 5, 0)[0][..., :2], image[..., 1::-1]
    )


def test_a_missing_station_is_neither_seen_nor_scored(scan):
    out, label = corrupt(*scan, "missing_station", 5, 0)
    gone = (label == 255).all((0, 1))
    assert gone.sum() == 12 and not out[:, :, gone].any() and (label[:, :, ~gone] != 255).all()
    np.testing.assert_array_equal(out[:, :, ~gone], scan[0][:, :, ~gone])


def test_stations_move_with_their_labels():
    body = np.zeros((40, 40, 12, 1))
    body[15:25, 15:25] = 1
    label = body[..., 0].astype(np.uint8)
    out, moved = corruptions.station_misalignment(body, label, 0.1, np.random.default_rng(1))
    for s in range(corruptions.STATIONS):
        rows = corruptions.stations(12) == s
        for axis in (0, 1):
            centre = [
                (part[:, :, rows].sum(tuple(a for a in range(3) if a != axis)) * np.arange(40)).sum()
                / part[:, :, rows].sum()
                for part in (out[..., 0], moved)
            ]
            assert abs(centre[0] - centre[1]) <= 0.5 and abs(centre[0] - 19.5) <= 4
    assert (label != moved).any()


def test_stations_have_one_gain_each():
    out, _ = corruptions.station_intensity_jump(np.ones((2, 2, 12, 1)), None, 0.5, np.random.default_rng(0))
    assert len(np.unique(out.round(12))) == corruptions.STATIONS
    assert np.exp(-0.5) <= out.min() <= out.max() <= np.exp(0.5)


def test_coarse_voxels_keep_a_constant_and_a_slope():
    matrix = corruptions.through_coarse(24, 8)
    np.testing.assert_allclose(matrix @ np.ones(24), 1)
    ramp = np.arange(24.0)
    np.testing.assert_allclose((matrix @ ramp)[3:-3], ramp[3:-3], atol=1e-9)


def rows_of(phase, dice):
    """method -> scans."""
    return [
        {
            "network": "n",
            "phase": phase,
            "corruption": "gibbs",
            "severity": 1 + i,
            "subject": "s",
            "method": method,
            "dice": d,
        }
        for method, values in dice.items()
        for i, d in enumerate(values)
    ]


def test_settings_are_chosen_by_their_change_on_validation_scans(tmp_path):
    candidates = {"off": {"method": "off"}, "a": {"method": "etta", "x": 1}, "b": {"method": "etta", "x": 2}}
    rows = rows_of("validation", {"off": [0.5, 0.6], "a": [0.55, 0.6], "b": [0.7, 0.3]})
    best = {"method": "etta", "x": 1, "max_drift": 0.05}  # no limit took anything back, so the strictest
    assert results.chosen(rows, "n", candidates) == {"off": candidates["off"], "a, drift 0.05": best}
    with pytest.raises(SystemExit, match="run --phase validation first"):
        results.chosen(rows_of("test", {"off": [1.0]}), "n", candidates)
    clean = [row | {"corruption": "none"} for row in rows]
    with pytest.raises(SystemExit, match="run --phase validation first"):
        results.chosen(clean, "n", candidates)
    rows += rows_of("test", {"off": [0.5, 0.6], "a": [0.4, 0.8]})
    found = {(row["phase"], row["method"]): row for row in results.summary(rows)}
    assert found["test", "a"]["change"] == pytest.approx(0.05) and found["test", "a"][
        "worst"
    ] == pytest.approx(-0.1)
    assert found["test", "a"]["share_worse"] == 0.5 and found["test", "off"]["change"] == 0
    results.write(tmp_path, rows)
    assert "| gibbs | 1 | 1 | 0.500 | 0.400 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "robustness.png").read_bytes()[:4] == b"\x89PNG"


def test_a_limit_on_drift_is_chosen_where_it_takes_back_what_harmed():
    candidates = {"off": {"method": "off"}, "a": {"method": "etta"}, "t": {"method": "tent"}}
    rows = rows_of("validation", {"off": [0.5, 0.6, 0.4], "a": [0.58, 0.2, 0.45], "t": [0.6, 0.6, 0.4]})
    for row, drift in zip(rows[3:6], (0.08, 0.3, 0.15)):
        row["drift"] = drift
    # 0.05 takes back everything, 0.1 also what helped, 0.2 what harmed, 0.5 nothing
    chosen = results.chosen(rows, "n", candidates)
    assert list(chosen) == ["off", "a, drift 0.2", "t"]
    assert chosen["a, drift 0.2"] == {"method": "etta", "max_drift": 0.2} and chosen["t"] == {
        "method": "tent"
    }


def test_validation_and_test_share_no_corruption():
    assert not set(sweep.VALIDATION) & set(sweep.TEST)
    assert {*sweep.VALIDATION, *sweep.TEST} == set(CORRUPTIONS)


def test_the_shifted_copy_keeps_its_place_and_scale(tmp_path, capsys):
    image = Volume(
        np.random.default_rng(0).integers(-1000, 800, (12, 10, 8)).astype(np.int16), np.diag([3.0, 3, 3, 1])
    )
    copy = real.shifted(image)
    assert copy.shape == image.shape and (copy.affine == image.affine).all()
    assert (
        copy.array.min() >= -1000 and 0.3 < np.corrcoef(copy.array.ravel(), image.array.ravel())[0, 1] < 0.99
    )
    np.testing.assert_array_equal(copy.array, real.shifted(image).array)
    row = {"image": "the scan", "method": "off", "dice": 0.5, "dice_largest": 0.6, "entropy_before": None}
    for scan in ("mr", "ct", "mr"):  # a scan's rows replace its older ones
        real.write(tmp_path / "real.json", scan, [{**row, "scan": scan}])
    assert "| ct | the scan | off | 0.500 | 0.600 |" in capsys.readouterr().out
    assert [r["scan"] for r in files.read_json(tmp_path / "real.json")["rows"]] == ["ct", "mr"]


def test_the_sweep_runs_etta_with_a_guard_beside_it_without():
    tried = {"off": {"method": "off"}, "etta 3": {"method": "etta", "steps": 3, "max_drift": None}}
    found = sweep.with_guard(tried, "both", "runs/grader")
    assert list(found) == ["etta 3, guard both"]
    options = Method.parse(found["etta 3, guard both"]).options
    assert options == Adaptation(steps=3, max_drift=None, guard="both", grader="runs/grader")
    with pytest.raises(SystemExit):
        sweep.main(["--workdir", "w", "--store", "s", "--phase", "test", "--guard", "both"])


def test_a_scan_of_the_sweep_is_measured_with_every_method(tmp_path):
    image = networks.scan((16, 16, 16))
    with StoreWriter(tmp_path / "store") as writer:
        stored = np.array(
            [0, anatomy.IDS["liver"], 0, anatomy.IDS["spleen"]], np.uint8
        )  # the network's are 1 and 3
        sets = {"manual": stored[networks.bands(image.array)]}
        writer.write("s1", image.array[..., None], image.affine, sets, source="", contrasts=("water",))
    model = networks.Bands()
    params = model.init(jax.random.key(0), np.zeros((1, 8, 8, 8, 1)))["params"]
    scan = {"network": "n", "phase": "test", "corruption": "none", "severity": 0, "subject": "s1"}
    methods = {"off": {"method": "off"}, "etta": {"method": "etta", "learning_rate": 1e-3}}
    grader = SimpleNamespace(grade=lambda *_: SimpleNamespace(dice=np.full(4, 0.5)))
    methods |= sweep.with_guard(methods, "both", grader)
    segmenter = Segmenter(model, params, networks.CARD)
    off, etta, guarded = sweep.measure(segmenter, Store.open(tmp_path / "store"), scan, methods, "manual")
    assert off["dice"] == 1 and off["accepted"] is None and "grade_before" not in etta
    assert (
        guarded["method"] == "etta, guard both" and guarded["grade_before"] == guarded["grade_after"] == 0.5
    )
