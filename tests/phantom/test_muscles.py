import numpy as np

from tests.phantom import reference
from ukbob_jax.anatomy import IDS
from ukbob_jax.phantom import muscles

NAMES = ("gluteus_maximus", "gluteus_medius", "gluteus_minimus", "autochthon", "iliopsoas")


def test_both_sides_have_every_muscle_and_mirror_each_other():
    canvas = reference.canvas("muscle")
    muscles.draw_muscles(canvas)
    expected = {f"{name}_{side}" for name in NAMES for side in ("left", "right")}
    assert reference.names(canvas.label) == {"muscle", *expected}
    np.testing.assert_array_equal(reference.mirror(canvas.label), canvas.label)
    assert (canvas.fields[0][canvas.label == IDS["iliopsoas_right"]] > 0).all()


def test_muscles_are_drawn_on_the_wall_only_and_the_hip_flexors_also_in_the_belly():
    canvas = reference.canvas("liver")
    muscles.draw_muscles(canvas)
    assert reference.names(canvas.label) == {"liver"}
    canvas = reference.canvas("intestine")
    muscles.draw_muscles(canvas)
    assert reference.names(canvas.label) == {"intestine", "iliopsoas_left", "iliopsoas_right"}
