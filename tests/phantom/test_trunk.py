import numpy as np
import pytest

from tests.phantom import reference
from ukbob_jax.anatomy import IDS
from ukbob_jax.phantom import trunk
from ukbob_jax.phantom.body import Outline

LOBES = {
    f"lung_{lobe}" for lobe in ("upper_lobe_left", "lower_lobe_left", "upper_lobe_right", "middle_lobe_right",
                                "lower_lobe_right")
}  # fmt: skip


def cavities(**changes):
    canvas, who = reference.canvas("muscle"), reference.person(**changes)
    trunk.draw_cavities(canvas, Outline(canvas, who), who)
    return canvas


def test_the_diaphragm_is_highest_over_the_middle_of_each_side_and_follows_the_breath():
    at = np.zeros(1, np.float32)
    rest, deep = (trunk.diaphragm(reference.person(breath_mm=mm)) for mm in (0.0, 10.0))
    assert rest(at + 55, at, at + 775) == pytest.approx(0) and rest(at - 55, at, at + 760) == pytest.approx(0)
    assert deep(at + 55, at, at + 765) == pytest.approx(0)
    x = np.array([5, 30, 55, 90, 120], np.float32)
    heights = -rest(x, np.zeros(5, np.float32), np.zeros(5, np.float32))
    assert heights.argmax() == 2 and heights[2] - heights[4] == pytest.approx(80 * (65 / 75) ** 3, rel=1e-5)


def test_lungs_lie_above_the_diaphragm_and_fat_on_both_sides_of_it():
    canvas = cavities()
    assert reference.names(canvas.label) == {"muscle", "inner_fat", *LOBES}
    above = trunk.diaphragm(reference.person())(*canvas.fields)
    lung = np.isin(canvas.label, [IDS[name] for name in LOBES])
    assert (above[lung] > 0).all()
    sides = {name: canvas.fields[0][canvas.label == IDS[name]] for name in LOBES}
    assert all((x > 0).all() if name.endswith("right") else (x < 0).all() for name, x in sides.items())


def test_a_deep_breath_makes_larger_lungs():
    lungs = [
        np.isin(cavities(breath_mm=mm).label, [IDS[name] for name in LOBES]).sum() for mm in (-15, 0, 15)
    ]
    assert lungs == sorted(lungs) and lungs[0] < 0.97 * lungs[2]


@pytest.mark.parametrize("sex", ["F", "M"])
def test_the_belly_has_its_organs_below_the_diaphragm(sex):
    canvas, who = reference.canvas("inner_fat"), reference.person(sex)
    trunk.draw_belly(canvas, who)
    expected = {
        "liver",
        "spleen",
        "stomach",
        "intestine",
        "duodenum",
        "pancreas",
        "gallbladder",
        "urinary_bladder",
    }
    expected |= {f"{name}_{side}" for name in ("kidney", "adrenal_gland") for side in ("left", "right")}
    assert reference.names(canvas.label) == {"inner_fat", *expected} | ({"prostate"} if sex == "M" else set())
    above = trunk.diaphragm(who)(*canvas.fields)
    for name in ("liver", "spleen", "stomach"):
        assert (above[canvas.label == IDS[name]] < 0).all()
    assert (
        canvas.fields[0][canvas.label == IDS["liver"]].mean()
        > 0
        > canvas.fields[0][canvas.label == IDS["spleen"]].mean()
    )


def test_a_full_bladder_is_larger_by_the_cube_of_its_radius():
    volumes = []
    for radius in (1.0, 1.4):
        canvas = reference.canvas("inner_fat")
        trunk.draw_belly(canvas, reference.person("F", bladder=radius))
        volumes.append((canvas.label == IDS["urinary_bladder"]).sum())
    assert volumes[1] / volumes[0] == pytest.approx(1.4**3, rel=0.15)  # voxels of 10 mm


def test_the_heart_rests_on_the_diaphragm_towards_the_left():
    canvas = reference.canvas("inner_fat")
    trunk.draw_chest(canvas, reference.person())
    assert reference.names(canvas.label) == {
        "inner_fat", "heart", "atrial_appendage_left", "esophagus", "trachea", "thyroid_gland",
    }  # fmt: skip
    heart = canvas.label == IDS["heart"]
    assert canvas.fields[0][heart].mean() < 0
    assert trunk.diaphragm(reference.person())(*canvas.fields)[heart].min() > -4
