"""Which organs cannot be in a scan, and that nothing possible is lost."""

import numpy as np

from ukbob_jax import anatomy, phantom
from ukbob_jax.inference.reports import body_parts


def test_a_whole_body_loses_nothing():
    shape = (64, 40, 128)
    label = phantom.label_map(3, shape)
    voxel_ml = float(np.prod(phantom.spacing_mm(shape))) / 1000
    found = body_parts.remove_out_of_view(label, voxel_ml, anatomy.NAMES)
    assert not found.removed and found.labels is label and set(found.present) == set(body_parts.ANCHORS)


def test_false_findings_outside_the_field_of_view_are_removed():
    shape = (64, 40, 128)
    label = phantom.label_map(3, shape)
    hips = np.argwhere(np.isin(label, [anatomy.IDS["hip_left"], anatomy.IDS["hip_right"]]))[:, 2]
    pelvis = label[:, :, hips.min() : hips.min() + 12].copy()
    before = np.bincount(pelvis.ravel(), minlength=73)
    pelvis[1, 1, 1], pelvis[2, 1, 1] = anatomy.IDS["heart"], anatomy.IDS["thyroid_gland"]
    voxel_ml = float(np.prod(phantom.spacing_mm(shape))) / 1000
    found = body_parts.remove_out_of_view(pelvis, voxel_ml, anatomy.NAMES)
    assert {"heart", "thyroid_gland"} <= set(found.removed) and "pelvis" in found.present
    after = np.bincount(found.labels.ravel(), minlength=73)
    for name in ("hip_left", "urinary_bladder", "femur_right", "muscle", "subcutaneous_fat"):
        assert after[anatomy.IDS[name]] == before[anatomy.IDS[name]]


def test_nothing_is_judged_where_no_part_is_recognised_and_sex_is_known():
    label = np.zeros((4, 4, 4), np.uint8)
    label[0, 0, 0], label[1, 1, 1] = anatomy.IDS["heart"], anatomy.IDS["prostate"]
    assert not body_parts.remove_out_of_view(label, 0.001, anatomy.NAMES).removed
    assert body_parts.remove_out_of_view(label, 0.001, anatomy.NAMES, "F").removed == {"prostate": 1}
    assert not body_parts.remove_out_of_view(label, 0.001, anatomy.NAMES, "M").removed


def test_every_anchor_and_place_is_a_structure():
    named = {name for anchors in body_parts.ANCHORS.values() for name in anchors} | set(body_parts._PLACES)
    assert named <= set(anatomy.IDS)
    for part, anchors in body_parts.ANCHORS.items():
        assert all(
            part in body_parts._PLACES[name] for name in anchors
        )  # what shows a part is possible there
