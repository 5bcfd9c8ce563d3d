import cc3d
import numpy as np
import pytest

from tests.phantom import reference
from ukbob_jax import anatomy
from ukbob_jax.anatomy import IDS
from ukbob_jax.phantom import vessels


@pytest.fixture(scope="module")
def drawn():
    canvas = reference.canvas()
    vessels.draw_vessels(canvas)
    return canvas


def test_every_vessel_and_nothing_else_is_drawn(drawn):
    assert set(np.unique(drawn.label)) == {0, *anatomy.GROUPS["vessels"]}


@pytest.mark.parametrize("organ", [anatomy.NAMES[i] for i in anatomy.GROUPS["vessels"]])
def test_a_vessel_alone_is_in_one_piece(monkeypatch, organ):
    monkeypatch.setattr(vessels, "_VESSELS", [vessel for vessel in vessels._VESSELS if vessel[0] == organ])
    canvas = reference.canvas(shape=(100, 60, 220))  # 5 mm, the radius of the thinnest
    vessels.draw_vessels(canvas)
    pieces = cc3d.connected_components(canvas.label == IDS[organ], connectivity=26)
    assert pieces.max() == (2 if organ == "pulmonary_vein" else 1)  # a pair under one name


def test_sides_are_those_of_the_subject(drawn):
    for name in (
        "iliac_artery",
        "iliac_vena",
        "subclavian_artery",
        "common_carotid_artery",
        "brachiocephalic_vein",
    ):
        left, right = (
            drawn.fields[0][drawn.label == IDS[f"{name}_{side}"]].mean() for side in ("left", "right")
        )
        assert left < 0 < right
    assert drawn.fields[0][drawn.label == IDS["inferior_vena_cava"]].mean() > 0
