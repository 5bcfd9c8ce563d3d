#!/usr/bin/env bash
# connected-components-3d 4.1.1: what number 1 means in the result of largest_k depends on how many components there are.
# Guessed: components come back numbered by size, in one fixed order, because with more components than k they do: the largest
# is k, the smallest that was kept is 1. Seen: with k components or fewer they keep the numbers of the plain labelling, by
# position, and the largest can be number 1. So `result == k` or `result == result.max()` finds the largest lesion in one
# patient and the smallest in the next; both results hold the same components. With k = 1 the type changes too:
# bool if something was dropped, an integer if not. The docstring speaks of numbering only for the package fastremap.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q "connected-components-3d==4.1.1" "numpy==2.4.6"
venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import cc3d
import numpy as np

print("connected-components-3d", version("connected-components-3d"))


def sizes(mask: np.ndarray, k: int) -> tuple[str, list[int]]:
    """type of the result, and voxels of number 1, 2, ..."""
    result = cc3d.largest_k(mask, k=k)
    return str(result.dtype), [int((result == number).sum()) for number in range(1, int(result.max()) + 1)]


three = np.zeros((20, 3, 3), bool)  # lesions of 36, 18 and 9 voxels
three[1:5] = three[7:9] = three[12] = True
four = three.copy()
four[16, 1, 1] = True  # and a speck of one voxel, which k = 3 drops
one = np.zeros_like(three)
one[1:5] = True

seen = {
    "four components, k=3": sizes(four, 3),
    "three components, k=3": sizes(three, 3),
    "three components, k=1": sizes(three, 1),
    "one component, k=1": sizes(one, 1),
}
guessed = {
    "four components, k=3": "9, 18, 36", "three components, k=3": "9, 18, 36",
    "three components, k=1": "bool, 36", "one component, k=1": "bool, 36",
}
for case, (kind, voxels) in seen.items():
    print(f"{case}: voxels of number 1, 2, ...: guessed {guessed[case]}; seen {voxels}, {kind}")

head = {
    "four components, k=3": ("uint16", [9, 18, 36]), "three components, k=3": ("uint16", [36, 18, 9]),
    "three components, k=1": ("bool", [36]), "one component, k=1": ("uint16", [36]),
}
sys.exit(0 if seen == head else "no longer as the head of this script says")
PYTHON
