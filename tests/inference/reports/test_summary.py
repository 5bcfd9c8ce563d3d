"""The report of a label map, by hand."""

import numpy as np
import pytest

from ukbob_jax.inference.adaptation.etta import AdaptResult
from ukbob_jax.inference.reports import summary
from ukbob_jax.inference.windows.slabs import Segmentation
from ukbob_jax.volumes.volume import Volume

NAMES = {0: "background", 1: "liver", 2: "spleen"}


def result(**changes):
    values = dict(
        params={}, entropy_before=1.0, entropy_after=np.nan, accepted=False, reason="entropy is not finite",
        entropies=(1.0, np.nan), drift=0.5, skipped=1, selected=("norm/scale",),
        class_fractions_before=np.array([0.5, 0.5, 0.0]), class_fractions_after=np.array([0.75, 0.25, 0.0]),
    )  # fmt: skip
    return AdaptResult(**values | changes)


def test_sizes_are_of_the_scan_and_certainty_of_the_network():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1, 1, 1] = labels[2, 2, 3] = 1
    coarse = np.array([[[0, 1]]], np.uint8)
    found = Segmentation(coarse, np.array([[[0.2, 0.6]]]), np.array([[[0.9, 0.7]]]))
    report = summary.describe(Volume(labels, np.diag([2.0, 2, 5, 1])), found, NAMES)
    liver = report["structures"]["liver"]
    assert liver["voxels"] == 2 and liver["volume_ml"] == pytest.approx(0.04) and liver["touches_border"]
    assert (liver["mean_entropy"], liver["mean_confidence"], liver["fragments"]) == (0.6, 0.7, 2)
    spleen = report["structures"]["spleen"]
    assert spleen["voxels"] == 0 and spleen["mean_entropy"] is None and spleen["largest_share"] is None
    assert report["mean_entropy"] == pytest.approx(0.4) and set(report["structures"]) == {"liver", "spleen"}


def test_adaptations_are_listed_with_what_moved_and_no_infinities():
    assert summary.adaptations([None, None], "off", NAMES) is None
    one = summary.adaptations([result()], "etta", NAMES)
    assert one["method"] == "etta" and one["entropy_after"] is None and one["entropies"] == [1.0, None]
    assert one["share_change"] == {"background": 0.25, "liver": -0.25}
    assert len(summary.adaptations([result(), result()], "etta", NAMES)) == 2
