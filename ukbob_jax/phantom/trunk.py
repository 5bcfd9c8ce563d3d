"""Chest and belly: diaphragm, lungs with their lobes, heart, airways, digestive and urinary organs."""

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.phantom.body import Outline
from ukbob_jax.phantom.person import Person
from ukbob_jax.phantom.shapes import Canvas, Inside, Shape, clipped, column, ellipsoid, tube

_GAP_MM = 4.0  # half the thickness of the diaphragm


def diaphragm(person: Person) -> Inside:
    """Height of the diaphragm over (x, y), as `z - height`: positive in the chest, negative in the belly."""
    low = person.breath_mm

    def above(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        right = x > 0
        across = np.abs(np.abs(x) - 55) * np.float32(1 / 75)
        fall = across * across * across * 80
        depth = y * np.float32(1 / 85)
        fall += depth * depth * np.where(y < 0, np.float32(75), np.float32(35))
        return z - (np.where(right, np.float32(775 - low), np.float32(760 - low)) - fall)

    return above


def draw_cavities(canvas: Canvas, outline: Outline, person: Person) -> None:
    """Fat that fills chest and belly, the diaphragm between them, and the five lobes of the lungs."""
    where, depth = outline.cavity(372, 1000)
    x, y, z = (field[where] for field in canvas.fields)
    view = canvas.label[where]
    view[depth > 0] = anatomy.IDS["inner_fat"]
    above = diaphragm(person)(x, y, z)
    view[(np.abs(above) < _GAP_MM) & (depth > 0)] = anatomy.IDS["muscle"]
    middle = 20 + np.clip(y + 10, 0, None) * 0.15 + np.clip(900 - z, 0, None) * 0.06
    lung = (above > _GAP_MM) & (depth > 2) & (np.abs(x) > middle)
    oblique = (z - 822) + (y - 0) * 1.05  # the fissure falls from behind to the front
    left, right = lung & (x < 0), lung & (x > 0)
    view[left] = np.where(
        oblique > -18, anatomy.IDS["lung_upper_lobe_left"], anatomy.IDS["lung_lower_lobe_left"]
    )[left]
    front = np.where(
        z > 848 - 0.15 * y, anatomy.IDS["lung_upper_lobe_right"], anatomy.IDS["lung_middle_lobe_right"]
    )
    view[right] = np.where(oblique > 0, front, anatomy.IDS["lung_lower_lobe_right"])[right]


def _below(above: Inside) -> Inside:
    return lambda x, y, z: above(x, y, z) < -_GAP_MM


def _over(above: Inside) -> Inside:
    return lambda x, y, z: above(x, y, z) > -_GAP_MM


def _liver(above: Inside) -> Shape:
    """Everything under the diaphragm and over a lower face that rises towards the left."""

    def inside(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        left = np.clip(112 - x, 0, None)
        floor = 618 + 0.36 * left + 0.0016 * left * left - 0.12 * y
        floor += (
            np.clip(10 - x, 0, None) * np.clip(25 - y, 0, None) * np.float32(0.03)
        )  # leaves room for the stomach
        return (z > floor) & (above(x, y, z) < -_GAP_MM) & (y > -75)

    return Shape(np.array([-80.0, -90.0, 590.0]), np.array([135.0, 130.0, 785.0]), inside)


def _bowel() -> Shape:
    """Loops of small bowel: a rounded mass cut by a gyroid, a surface that leaves one connected winding body."""
    mass = ellipsoid((0, 44, 540), (84, 46, 84))

    def inside(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        u, v, w = x / 11, y / 11 + 1, z / 13 + 2
        gyroid = np.sin(u) * np.cos(v) + np.sin(v) * np.cos(w) + np.sin(w) * np.cos(u)
        return mass.inside(x, y, z) & (gyroid > -0.75)

    return Shape(mass.low, mass.high, inside)


def draw_belly(canvas: Canvas, person: Person) -> None:
    """Digestive and urinary organs, from the large to the small ones that touch them."""
    s = canvas.spacing_mm
    above = diaphragm(person)
    under = _below(above)
    fat = ("inner_fat",)
    belly_shift = 0.25 * person.visceral_mm
    canvas.draw("liver", _liver(above), over=fat)
    canvas.draw("spleen", clipped(ellipsoid((-95, -32, 710), (26, 44, 60), (20, -12, -18)), under), over=fat)
    canvas.draw("intestine", _bowel(), over=fat)
    colon = [(90, 12, 500), (96, 6, 560), (92, 20, 615), (55, 56, 600), (0, 66, 585), (-50, 58, 605)]
    colon += [(-88, 30, 645), (-100, 2, 610), (-98, 2, 520), (-70, 18, 485), (-30, 22, 470)]
    colon += [(-4, -22, 478), (0, -46, 445), (0, -46, 402)]
    colon = [(x, y + belly_shift * (y > 15), z) for x, y, z in colon]
    canvas.draw("intestine", tube(colon, [19] * 4 + [17] * 5 + [14] * 5, s), over=fat)
    stomach = [(-58, -12, 738), (-62, 14, 705), (-36, 44, 675), (6, 48, 668)]
    canvas.draw("stomach", [clipped(piece, under) for piece in tube(stomach, (34, 32, 24, 14), s)], over=fat)
    duodenum = [(10, 46, 672), (44, 32, 670), (50, 14, 642), (42, 8, 606), (4, 20, 606), (-20, 28, 624)]
    canvas.draw("duodenum", tube(duodenum, [12] * 6, s))
    canvas.draw(
        "pancreas", tube([(30, 22, 645), (6, 26, 668), (-40, 8, 682), (-78, -20, 702)], (15, 11, 10, 8), s)
    )
    canvas.draw("gallbladder", tube([(62, 46, 672), (68, 66, 636)], (9, 15), s))
    for side, x, z in (("right", 62.0, 648.0), ("left", -62.0, 664.0)):
        kidney = ellipsoid((x, -32, z), (27, 23, 52), (8, np.sign(x) * 12, np.sign(x) * -25))
        canvas.draw(f"kidney_{side}", kidney)
        canvas.draw("inner_fat", ellipsoid((x * 0.74, -24, z), (11, 9, 17)), over=(f"kidney_{side}",))
    canvas.draw("adrenal_gland_right", tube([(36, -24, 716), (44, -30, 696)], (8, 7), s))
    canvas.draw("adrenal_gland_left", tube([(-30, -22, 722), (-42, -24, 704)], (8, 7), s))
    radius = person.bladder
    bladder = ellipsoid((0, 26, 404 + 26 * radius), (36 * radius, 29 * radius, 27 * radius))
    canvas.draw("urinary_bladder", bladder)
    if person.sex == "M":
        canvas.draw("prostate", ellipsoid((0, 14, 392), (23, 17, 18)))


def draw_chest(canvas: Canvas, person: Person) -> None:
    """Heart, its appendage, airways, gullet and thyroid."""
    s = canvas.spacing_mm
    above = diaphragm(person)
    heart = ellipsoid((-20, 28, 806), (50, 40, 62), (0, 35, 20))
    canvas.draw("heart", clipped(heart, _over(above)))
    canvas.draw("atrial_appendage_left", ellipsoid((-46, 22, 856), (14, 11, 14)))
    gullet = [
        (-3, -12, 1100),
        (-3, -14, 1040),
        (-4, -22, 960),
        (-3, -30, 900),
        (-6, -26, 830),
        (-14, -12, 770),
    ]
    canvas.draw("esophagus", tube([*gullet, (-34, 0, 742)], (8, 8, 8, 8, 8, 8, 9), s))
    windpipe = [(0, 10, 1100), (0, 8, 1040), (0, -4, 960), (2, -14, 905)]
    canvas.draw("trachea", tube(windpipe, (10, 10, 10, 10), s))
    for x, z in ((32.0, 872.0), (-34.0, 868.0)):
        canvas.draw("trachea", tube([(2, -14, 905), (x, -20, z)], (8, 7), s))
    for x in (19.0, -19.0):
        canvas.draw(
            "thyroid_gland", column([(985, x, 4, 6, 6), (1003, x, 6, 9, 12), (1032, x * 0.9, 8, 5, 7)])
        )
