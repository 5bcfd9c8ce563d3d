"""Muscles with a class of their own: gluteal, back and hip-flexor muscles."""

from ukbob_jax.phantom.shapes import Canvas, Shape, column, ellipsoid, mirrored, tube


def _right(canvas: Canvas) -> list[tuple[str, list[Shape], tuple[str, ...]]]:
    """Name without side, shapes of the right side, classes they may cover."""
    s = canvas.spacing_mm
    wall = ("muscle",)
    back = [
        (440, 22, -104, 16, 10),
        (500, 30, -90, 24, 16),
        (560, 34, -70, 28, 19),
        (640, 34, -68, 28, 21),
        (720, 30, -78, 24, 18),
        (800, 26, -88, 21, 14),
        (880, 24, -90, 20, 14),
        (960, 22, -80, 20, 16),
        (1020, 21, -62, 18, 17),
        (1120, 20, -54, 16, 16),
    ]
    psoas = [(36, -24, 705), (46, -18, 640), (56, -4, 570), (70, 14, 495), (84, 32, 440), (100, 4, 370)]
    return [
        ("gluteus_maximus", [ellipsoid((86, -88, 428), (66, 34, 84), (12, 25, 18))], wall),
        ("gluteus_medius", [ellipsoid((128, -22, 492), (22, 48, 56), (0, -18, -32))], wall),
        (
            "gluteus_minimus",
            [ellipsoid((116, 0, 466), (17, 34, 38), (0, -18, -32))],
            (*wall, "gluteus_medius_right", "gluteus_medius_left"),
        ),
        ("autochthon", [column(back)], wall),
        ("iliopsoas", tube(psoas, (9, 18, 22, 21, 17, 11), s), ("muscle", "inner_fat", "intestine")),
        (
            "iliopsoas",
            [ellipsoid((80, -4, 498), (11, 48, 44), (0, -18, -34))],
            ("muscle", "inner_fat", "intestine"),
        ),
    ]


def draw_muscles(canvas: Canvas) -> None:
    """Both sides, before the bones they lie on."""
    for name, shapes, over in _right(canvas):
        canvas.draw(f"{name}_right", shapes, over)
        canvas.draw(f"{name}_left", [mirrored(shape) for shape in shapes], over)
