"""What a labeller gives for a subject."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A label map, and what is known of how this one came about.

    Attributes:
        array: ids as in `anatomy`, `x y z`, on the image's grid.
        facts: JSON values for the label set's provenance, beside those of the labeller.
    """

    array: np.ndarray
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
