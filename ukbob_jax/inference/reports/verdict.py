"""SOLF's verdict on a predicted label map, by limits that were fitted on a cohort before."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError
from ukbob_jax.quality import solf
from ukbob_jax.quality.cohort import check_body
from ukbob_jax.quality.limits import Limits
from ukbob_jax.quality.measures import FEATURES, measure, stack
from ukbob_jax.volumes.volume import Volume


def judge(
    labels: Volume, names: Mapping[int, str], limits: Limits, attributes: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Which measures of each structure leave their range, and whether the label is flagged for it.

    Args:
        labels: classes of the network.
        names: class -> name as in `anatomy`.
        limits: as the solf job stores them, by our ids.
        attributes: `sex` ("F" or "M") and `height_mm`, where the limits have strata.

    Returns:
        name -> `outside` (measures) and `flagged`, for the structures that are there and that limits exist for.

    Raises:
        ConfigError: the limits judge structures that the network does not label. Volumes are compared as shares of
            the labelled body, which would be another body. Or they were fitted with body masks.
        MismatchError: the person's group is not among the limits'.
    """
    check_body(limits, "", "limits")
    count = limits.low.shape[1]
    ours = np.zeros(256, np.uint8)
    ours[anatomy.IGNORE] = anatomy.IGNORE
    for label, name in names.items():
        ours[label] = anatomy.IDS.get(name, 0)
    fitted = np.flatnonzero(limits.count.max(0) > 0)
    unknown = [int(i) for i in fitted if i and i not in ours[list(names)]]
    if unknown:
        raise ConfigError(
            f"the limits judge {len(unknown)} structures that this network does not label, such as "
            f"{anatomy.NAMES[unknown[0]]}: volumes as shares of the body would not compare. Fit limits on its labels."
        )
    turned = labels.to_ras()
    found = stack([measure(ours[turned.array], turned.spacing_mm, count)])
    out, flagged = (array[0] for array in solf.apply_limits(found, limits, limits.groups_of([attributes])))
    present = [i for i in fitted if i and np.asarray(found.voxels)[0, i] > 0]
    return {
        anatomy.NAMES[int(i)]: {
            "outside": [name for name, is_out in zip(FEATURES, out[i]) if is_out],
            "flagged": bool(flagged[i]),
        }
        for i in present
    }
