"""Structures that lie inside each other: one network channel per region, one label map for the file.

A brain tumour is labelled part by part, but scored as whole tumour, tumour core and enhancing tumour. A network has one
sigmoid channel per region; a label map is painted from them, the inner regions over the outer ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax.anatomy import BRATS_REGIONS, IGNORE, NAMES
from ukbob_jax.errors import ConfigError

# Label that the part of a region outside the next smaller one gets; what a label is called.
_REGION_LABELS = {
    "brats": (2, 1, 3),
    "brats2024": (2, 1, 3, 4),
    "brats_ped": (4, 2, 1, 3),
    "brats_men_rt": (1,),
    "decathlon": (1, 2, 3),
}
_LABELS = {
    "brats": {1: "necrotic_core", 2: "oedema", 3: "enhancing_tumour"},
    "brats2024": {
        1: "non_enhancing_core",
        2: "surrounding_flair_hyperintensity",
        3: "enhancing_tumour",
        4: "resection_cavity",
    },
    "brats_ped": {1: "enhancing_tumour", 2: "non_enhancing_tumour", 3: "cystic_component", 4: "oedema"},
    "brats_men_rt": {1: "gross_tumour_volume"},
    "decathlon": {1: "oedema", 2: "non_enhancing_core", 3: "enhancing_tumour"},
}
DATA_SET = "dataset"  # `config.regions`: those that the data set's own description defines
OLD_ENHANCING = 4  # enhancing tumour in BraTS until 2020


class Regions(NamedTuple):
    """Regions in the order of a network's channels, from the outermost inwards.

    Attributes:
        names: of the regions.
        values: the label values that make up each region.
        region_labels: the label a voxel gets that is in this region and in none after it; later regions overwrite
            earlier ones.
        labels: label value -> name, background included, for label maps that are written.
    """

    names: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    region_labels: tuple[int, ...]
    labels: dict[int, str]

    @classmethod
    def from_json(cls, value: Mapping[str, Any], labels: Mapping[int, str]) -> "Regions":
        """Return the regions of `to_json`, with the names of the labels they are written as.

        Descriptions written before `region_labels` had this name call it "paint".

        Raises:
            ValueError, TypeError, KeyError: not such a value.
        """
        values = tuple(tuple(map(int, ids)) for ids in value["values"])
        written = value["region_labels"] if "region_labels" in value else value["paint"]
        return cls(tuple(map(str, value["names"])), values, tuple(map(int, written)), dict(labels))

    def mask(self, label: np.ndarray, region: int) -> np.ndarray:
        """Return 1 in a region, 0 elsewhere, 255 where the label is ignored.

        Args:
            label: label map of any shape.
            region: number of the region, the network's channel.
        Returns:
            uint8 of the label map's shape.
        """
        found = np.isin(label, self.values[region]).astype(np.uint8)
        found[label == IGNORE] = IGNORE
        return found

    def annotated(self, values: np.ndarray) -> np.ndarray:
        """Return which regions were annotated: those of which every value was. Bool `256` -> bool `k`."""
        return np.array([values[list(region)].all() for region in self.values])

    def to_json(self) -> dict[str, Any]:
        """Return what a checkpoint's description holds."""
        return {
            "names": list(self.names),
            "values": [list(values) for values in self.values],
            "region_labels": list(self.region_labels),
        }


def brats(numbering: str, present: Iterable[int] = ()) -> Regions:
    """Return the regions of a tumour: whole tumour, tumour core, enhancing tumour, and what else is numbered.

    Args:
        numbering: a key of `anatomy.BRATS_REGIONS`.
        present: label values of the data; in the numbering "brats", where 4 is among them, enhancing tumour is written
            as 4 and not as 3.
    Raises:
        ConfigError: the numbering is not known, or the data has values of another one.
    """
    if numbering not in BRATS_REGIONS:
        raise ConfigError(
            f"config.regions: {numbering!r} is unknown; choose one of {', '.join(BRATS_REGIONS)}, or {DATA_SET} for those "
            "that a dataset.json defines."
        )
    values = BRATS_REGIONS[numbering]
    numbered = sorted({value for ids in values.values() for value in ids})
    region_labels, labels = _REGION_LABELS[numbering], dict(_LABELS[numbering])
    present = set(present) - {0, IGNORE}
    if unknown := sorted(present - set(numbered)):
        raise ConfigError(
            f"config.regions: label values {unknown} are no part of a tumour in the numbering {numbering!r}, "
            f"which has {numbered}."
        )
    if numbering == "brats" and {3, OLD_ENHANCING} <= present:
        raise ConfigError(
            "config.regions: the data has label values 3 and 4, which are never both enhancing tumour; say which "
            "release it is: config.regions=brats2024 (3 enhancing tumour, 4 resection cavity) or "
            "config.regions=brats_ped (children: 1 enhancing tumour, 3 cyst, 4 oedema)."
        )
    if numbering == "brats" and OLD_ENHANCING in present:
        region_labels = (*region_labels[:2], OLD_ENHANCING)
        labels[OLD_ENHANCING] = labels.pop(3)
    return Regions(tuple(values), tuple(values.values()), region_labels, {0: "background", **labels})


def of_data_set(
    found: Mapping[str, Mapping[str, Any]], names: Mapping[int, str], present: Iterable[int]
) -> Regions:
    """Return the regions that the data set of a store defines.

    Args:
        found: subject -> its row's regions as `Regions.to_json` writes them; empty where it has none.
        names: label value -> name.
        present: label values of the data.
    Raises:
        ConfigError: subjects without regions or with others, or values that are in none of them.
    """
    first = next(iter(found.values()))
    if not first or any(one != first for one in found.values()):
        odd = next(subject for subject, one in found.items() if not one or one != first)
        raise ConfigError(
            f"config.regions: {DATA_SET!r}, but {odd} has no regions, or others than the first subject. Ingest a data "
            "set whose dataset.json lists ids for its labels, or choose another value."
        )
    values = {int(value) for ids in first["values"] for value in ids}
    if unknown := sorted(set(present) - values - {0, IGNORE}):
        raise ConfigError(
            f"config.regions: label values {unknown} are in none of the regions {', '.join(first['names'])} of the data "
            "set. Add them to its dataset.json and ingest again."
        )
    written = {int(value): names[int(value)] for value in first["region_labels"]}
    return Regions.from_json(first, {0: NAMES[0], **written})


def membership(regions: Sequence[Sequence[int]]) -> np.ndarray:
    """Return which label values belong to which region: bool `256 k`."""
    return np.stack([np.isin(np.arange(256), values) for values in regions], axis=-1)
