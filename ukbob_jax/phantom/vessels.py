"""Great vessels as tubes: aorta and its branches, caval, portal, iliac and lung veins."""

from ukbob_jax.phantom.shapes import Canvas, tube

# organ, points (mm, reference body), radii (mm)
_VESSELS = (
    ("pulmonary_vein", [(20, -8, 842), (60, -16, 836)], (9, 7)),
    ("pulmonary_vein", [(-32, -12, 846), (-66, -18, 842)], (9, 7)),
    ("superior_vena_cava", [(25, 14, 912), (27, 12, 870), (24, 14, 836)], (10, 10, 10)),
    (
        "inferior_vena_cava",
        [(20, -2, 580), (24, 2, 650), (24, 0, 715), (20, 4, 765), (17, 10, 790)],
        (11, 12, 13, 13, 12),
    ),
    (
        "aorta",
        [(-4, 16, 842), (12, 24, 880), (2, 8, 914), (-16, -18, 908), (-22, -30, 880)],
        (15, 15, 14, 13, 12),
    ),
    (
        "aorta",
        [(-22, -30, 880), (-22, -29, 800), (-14, -16, 740), (-9, -2, 680), (-6, 3, 625), (-3, 2, 580)],
        (12, 12, 12, 11, 10, 10),
    ),
    ("portal_vein_and_splenic_vein", [(14, 18, 652), (30, 14, 682), (52, 12, 706)], (8, 8, 7)),
    (
        "portal_vein_and_splenic_vein",
        [(20, 18, 664), (-14, 22, 680), (-42, 4, 694), (-82, -30, 710)],
        (7, 6, 6, 6),
    ),
    (
        "iliac_artery_right",
        [(4, 3, 580), (32, -2, 545), (52, 6, 500), (62, 36, 455), (70, 60, 405)],
        (8, 7, 7, 6, 6),
    ),
    (
        "iliac_artery_left",
        [(-8, 3, 580), (-34, -2, 545), (-52, 6, 500), (-62, 36, 455), (-70, 60, 405)],
        (8, 7, 7, 6, 6),
    ),
    (
        "iliac_vena_right",
        [(21, -6, 576), (38, -16, 540), (52, -8, 500), (54, 26, 455), (58, 54, 405)],
        (9, 8, 8, 7, 7),
    ),
    (
        "iliac_vena_left",
        [(14, -8, 574), (-30, -18, 545), (-52, -8, 500), (-54, 26, 455), (-58, 54, 405)],
        (9, 8, 8, 7, 7),
    ),
    ("brachiocephalic_vein_right", [(36, 16, 956), (26, 14, 915)], (8, 9)),
    ("brachiocephalic_vein_left", [(-44, 18, 956), (-4, 30, 932), (24, 20, 914)], (7, 7, 8)),
    ("brachiocephalic_trunk", [(6, 10, 918), (18, 8, 952)], (8, 7)),
    ("subclavian_artery_right", [(22, 6, 956), (56, 2, 974), (100, 6, 966), (140, -6, 938)], (6, 6, 6, 5)),
    ("common_carotid_artery_right", [(22, 8, 958), (30, 8, 1000), (32, 4, 1110)], (5, 5, 5)),
    ("common_carotid_artery_left", [(-5, 0, 922), (-24, 6, 975), (-32, 4, 1110)], (6, 5, 5)),
    (
        "subclavian_artery_left",
        [(-17, -14, 914), (-30, -8, 958), (-60, 0, 974), (-100, 6, 966), (-140, -6, 938)],
        (6, 6, 6, 6, 5),
    ),
)


def draw_vessels(canvas: Canvas) -> None:
    """All sixteen vessel classes, large trunks first so that thin branches stay whole."""
    for organ, points, radii in _VESSELS:
        canvas.draw(organ, tube(points, radii, canvas.spacing_mm))
