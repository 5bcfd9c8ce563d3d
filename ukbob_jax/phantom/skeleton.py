"""Bones: spine with discs and canal, pelvis, limbs, shoulder girdle, ribs and breastbone."""

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.phantom.body import Outline
from ukbob_jax.phantom.shapes import Canvas, Shape, clipped, column, ellipsoid, mirrored, tube

# Spine: z, y of the vertebral centres, half width, half depth of a body
_SPINE = np.array(
    [
        (520, -40, 25, 18),
        (580, -29, 25, 18),
        (630, -23, 24, 17),
        (680, -26, 23, 17),
        (720, -34, 21, 16),
        (780, -46, 18, 15),
        (840, -53, 16, 14),
        (900, -52, 15, 13),
        (950, -44, 15, 11),
        (1000, -32, 15, 10),
        (1050, -26, 14, 9),
        (1130, -22, 13, 9),
    ]
)
# Heights of the lower end of each vertebra from L5 up to C1, and of the top
_LEVELS = np.cumsum([530.0] + [36.0] * 5 + [26, 25, 24, 23, 23, 22, 22, 21, 21, 20, 20, 19] + [16.0] * 7)


def draw_spine(canvas: Canvas) -> None:
    """Vertebral bodies and discs in turn, arches behind them, canal and cord, and the sacrum."""
    where = canvas.box(np.array([-48.0, -115.0, 525.0]), np.array([48.0, 20.0, 1130.0]))
    x, y, z = (field[where] for field in canvas.fields)
    view = canvas.label[where]
    heights = np.arange(500.0, 1150.0)
    cy, rx, ry = (np.interp(heights, _SPINE[:, 0], _SPINE[:, i]).astype(np.float32) for i in (1, 2, 3))
    level = np.interp(heights, _LEVELS, np.arange(len(_LEVELS)))
    share = np.abs(level - np.round(level)).astype(np.float32)  # 0 at a disc's middle, 0.5 at a vertebra's
    half_disc = np.where(heights < 715, 0.14, np.where(heights < 980, 0.12, 0.16)).astype(np.float32)
    i = np.clip((z - 500).astype(np.int32), 0, len(heights) - 1)
    inside = (z > 530) & (z < _LEVELS[-1])
    behind = y - cy[i]  # mm in front of the body's middle
    body = ((x / rx[i]) ** 2 + (behind / ry[i]) ** 2 < 1) & inside
    canal_y = behind + ry[i] + 9
    cord_radius = max(5.0, 0.6 * max(canvas.spacing_mm[:2]))
    grow = cord_radius - 5.0  # on a coarse grid cord and canal stay in one piece
    canal = (x / np.float32(10.5 + grow)) ** 2 + (canal_y / np.float32(9.0 + grow)) ** 2
    ring = x * x * np.float32(1 / 19.0**2) + canal_y * canal_y * np.float32(1 / 17.0**2) < 1
    thick = max(4.5, 0.55 * canvas.spacing_mm[0])
    spine = (np.abs(x) < thick) & (canal_y < 0) & (canal_y > -34) & (share[i] > 0.14)
    wings = (np.abs(x) < 38) & (np.abs(canal_y) < 6) & (share[i] > 0.27)
    arch = (ring | spine | wings) & inside & (behind < -0.6 * ry[i])
    view[arch] = anatomy.IDS["vertebra_posterior_elements"]
    view[body] = np.where(share[i] < half_disc[i], anatomy.IDS["IVD"], anatomy.IDS["vertebra_body"])[body]
    view[(canal < 1) & inside] = anatomy.IDS["spinal_channel"]
    cord = (x * x + canal_y * canal_y < cord_radius**2) & (z > 700) & (z < _LEVELS[-1])
    view[cord] = anatomy.IDS["spinal_cord"]
    sacrum = [(388, 0, -66, 9, 7), (420, 0, -80, 22, 10), (460, 0, -76, 38, 15), (500, 0, -60, 47, 20)]
    canvas.draw("sacrum", column([*sacrum, (531, 0, -44, 40, 21)]))


def _hip(s: tuple[float, float, float]) -> list[Shape]:
    wing = ellipsoid((93, -16, 496), (9, 66, 58), (0, -18, -36))
    socket = ellipsoid((80, 0, 436), (34, 30, 34))
    neck = ellipsoid((78, -14, 462), (20, 32, 32))
    seat = tube([(72, -28, 420), (60, -34, 376)], (17, 16), s)
    front = tube([(66, 24, 420), (38, 46, 408), (9, 52, 396)], (11, 10, 11), s)
    arch = tube([(10, 48, 392), (36, 8, 374), (58, -30, 374)], (9, 8, 9), s)
    return [wing, socket, neck, *seat, *front, *arch]


def _right(s: tuple[float, float, float]) -> list[tuple[str, list[Shape]]]:
    """Bones of the right side; the left one is their mirror image."""
    femur = tube([(90, 2, 424), (128, -8, 396)], (18, 16), s)
    femur += tube(
        [(134, -8, 392), (116, 6, 300), (99, 8, 170), (88, 4, 40), (86, 0, 5)], (18, 15, 14, 15, 22), s
    )
    femur += [ellipsoid((89, 2, 425), (24, 24, 24)), ellipsoid((138, -14, 402), (15, 19, 25))]
    femur += [ellipsoid((85, 0, -8), (40, 30, 26))]
    scapula = [
        ellipsoid((106, -68, 890), (48, 8, 66), (0, 12, 24)),
        *tube([(78, -84, 924), (156, -50, 966)], (9, 9), s),
    ]
    scapula += [ellipsoid((150, -34, 942), (15, 13, 18))]
    humerus = tube([(180, -18, 935), (204, -16, 800), (214, -10, 690)], (14, 12, 12), s)
    humerus += [ellipsoid((172, -18, 946), (23, 23, 23)), ellipsoid((214, -8, 678), (27, 15, 15))]
    clavicle = tube([(16, 44, 948), (62, 46, 962), (112, 22, 974), (156, -14, 982)], (8, 7, 7, 7), s)
    shin = tube([(82, -5, -48), (76, -8, -200)], (32, 18), s)
    return [
        ("hip", _hip(s)),
        ("femur", femur),
        ("scapula", scapula),
        ("humerus", humerus),
        ("clavicula", clavicle),
        ("bone_other", shin),
    ]


def _ribs(outline: Outline, s: tuple[float, float, float]) -> tuple[list[Shape], list[Shape]]:
    """Ribs 1 to 12 and the cartilages of 1 to 7, right side, lying on the outside of the chest cavity."""
    bones, cartilages = [], []
    for rib in range(12):
        back = _LEVELS[16 - rib] + 8
        drop = (22, 40, 52, 60, 66, 70, 74, 76, 70, 60, 40, 26)[rib]
        end = (118, 128, 132, 134, 134, 132, 128, 118, 106, 96, 62, 38)[rib]  # degrees from the spine
        angles = np.radians(np.linspace(14, end, 8))
        heights = back - drop * (1 - np.cos(angles)) / 2 * 2 / (1 - np.cos(angles[-1]))
        points = [outline.ring(h, a, 7.0) for h, a in zip(heights, angles)]
        bones += tube(points, [5.0] * 8, s)
        if rib < 7:
            join = (942, 920, 896, 872, 848, 826, 806)[rib]
            middle = (np.array(points[-1]) + (20, 0, join)) / 2
            middle[1] = outline.wall(middle[2], middle[0], 7.0)
            start = (20.0, float(outline.wall(join, 20.0, 7.0)), float(join))
            cartilages += tube([points[-1], tuple(middle), start], (6.0, 6.0, 6.0), s)
    return bones, cartilages


def draw_bones(canvas: Canvas, outline: Outline) -> None:
    """The whole skeleton but the spine."""
    s = canvas.spacing_mm
    ribs, cartilages = _ribs(outline, s)
    for shapes, organ in ((ribs, "bone_other"), (cartilages, "costal_cartilages")):
        canvas.draw(organ, [*shapes, *(mirrored(shape) for shape in shapes)], over=("muscle", "inner_fat"))
    for name, shapes in _right(s):
        other = [mirrored(shape) for shape in shapes]
        sides = (
            (("", shapes), ("", other)) if name == "bone_other" else (("_right", shapes), ("_left", other))
        )
        for side, pieces in sides:
            canvas.draw(name + side, pieces)
    for side in (1, -1):  # the head of the femur sits in the socket
        head = ellipsoid((side * 89, 2, 425), (24, 24, 24))
        canvas.draw("femur_right" if side > 0 else "femur_left", clipped(head, lambda x, y, z: z < 449))
    plate = [(770, 5), (790, 13), (850, 17), (905, 16), (925, 22), (950, 28), (962, 20)]
    thick = max(7.0, 0.6 * s[1])
    front = [(z, 0.0, float(outline.wall(z, 0.0, 8.0)), half, thick) for z, half in plate]
    canvas.draw("sternum", column(front))
