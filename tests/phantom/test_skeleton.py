import numpy as np
import pytest

from tests.phantom import reference
from ukbob_jax.anatomy import IDS
from ukbob_jax.phantom import skeleton
from ukbob_jax.phantom.body import Outline


def test_the_spine_is_symmetric_and_in_order_from_front_to_back():
    canvas = reference.canvas()
    skeleton.draw_spine(canvas)
    found = {"sacrum", "spinal_cord", "IVD", "vertebra_body", "vertebra_posterior_elements", "spinal_channel"}
    assert reference.names(canvas.label) == {"background", *found}
    np.testing.assert_array_equal(canvas.label, canvas.label[::-1])
    order = ("vertebra_body", "spinal_channel", "vertebra_posterior_elements")
    high = canvas.fields[2] > 720  # above the sacrum, in one height for all
    depths = [canvas.fields[1][high & (canvas.label == IDS[name])].mean() for name in order]
    assert depths == sorted(depths, reverse=True)
    assert canvas.fields[2][canvas.label == IDS["spinal_cord"]].min() > 700


def test_vertebrae_and_discs_take_turns():
    canvas = reference.canvas()
    skeleton.draw_spine(canvas)
    front = (canvas.label == IDS["IVD"]) | (canvas.label == IDS["vertebra_body"])
    assert front[:, :, (canvas.rigid[2] > 535) & (canvas.rigid[2] < 1085)].any((0, 1)).all()  # no gap
    assert (np.diff(skeleton._LEVELS) >= 16).all() and len(skeleton._LEVELS) == 25  # 24 vertebrae, L5 to C1


@pytest.mark.parametrize("sex", ["F", "M"])
def test_bones_of_both_sides_mirror_each_other(sex):
    canvas = reference.canvas("muscle")
    skeleton.draw_bones(canvas, Outline(canvas, reference.person(sex)))
    np.testing.assert_array_equal(reference.mirror(canvas.label), canvas.label)
    paired = {
        f"{name}_{side}"
        for name in ("hip", "femur", "scapula", "humerus", "clavicula")
        for side in ("left", "right")
    }
    assert reference.names(canvas.label) == {"muscle", "bone_other", "costal_cartilages", "sternum", *paired}


def test_ribs_lie_in_the_wall_and_cover_no_organ():
    canvas = reference.canvas("liver")
    skeleton.draw_bones(canvas, Outline(canvas, reference.person()))
    # the shins, which may cover anything, lie below the field of view
    assert not reference.names(canvas.label) & {"costal_cartilages", "bone_other"}
    assert "sternum" in reference.names(canvas.label)
