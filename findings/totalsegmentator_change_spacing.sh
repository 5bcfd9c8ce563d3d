#!/usr/bin/env bash
# TotalSegmentator 2.18.0: an image resampled by its change_spacing has another extent than its affine says, by up to the
# difference of the two spacings: 3 mm at the last of 40 slices of 5 mm.
# Guessed: a voxel of the result holds the value of the place that its affine names, as in nibabel.processing.resample_to_output
# (its docstring: "Resample the nifti image to the new spacing"). Seen: the first and the last voxel keep the first and last
# values, as scipy.ndimage.zoom does by default, while the affine is scaled by the ratio of the spacings. The error grows
# evenly along an axis. On the way back to the scan's own shape it cancels, so labels are not moved; whoever keeps the
# resampled image, or labels made on it, has them stretched, and the network sees 1.48 mm where 1.5 is written.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q "nibabel==5.4.2" "numpy==2.4.6" "scipy==1.17.1" "psutil==7.2.1" "joblib==1.5.3"
venv/bin/pip install -q --no-deps "TotalSegmentator==2.18.0"  # resampling.py imports the packages above alone
venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import nibabel
import numpy as np
from nibabel.processing import resample_to_output
from totalsegmentator.resampling import change_spacing

for tool in ("TotalSegmentator", "nibabel", "scipy"):
    print(tool, version(tool))

SPACING = (2.0, 3.0, 5.0)  # mm
shape = (50, 40, 40)
places = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, SPACING)), indexing="ij"))  # mm
affine = np.diag([*SPACING, 1])

seen = []
for axis in range(3):
    image = nibabel.Nifti1Image(places[axis], affine)  # each voxel holds where it lies, in mm
    theirs = change_spacing(image, [1.5, 1.5, 1.5], order=1)
    other = resample_to_output(image, [1.5, 1.5, 1.5], order=1)
    inside = tuple(slice(0, n - 4) for n in other.shape)  # the last voxels may lie beyond the scan
    written = (np.indices(theirs.shape) * theirs.header.get_zooms()[axis])[axis]
    error = theirs.get_fdata() - written
    errors_nibabel = (other.get_fdata() - (np.indices(other.shape)[axis] * 1.5 + other.affine[axis, 3]))[inside]
    last = float(error[-1, -1, -1])
    seen.append(round(last, 3))
    print(
        f"axis of {SPACING[axis]:g} mm: affine says the last voxel lies at {written[-1, -1, -1]:g} mm; it holds the value of "
        f"{written[-1, -1, -1] + last:g} mm; guessed 0 mm of error, seen {last:.3f} (nibabel {abs(errors_nibabel).max():.3f})"
    )
sys.exit(0 if seen == [-1.0, -1.5, -3.0] else "no longer as the head of this script says")
PYTHON
