#!/usr/bin/env bash
# SimpleITK 2.5.7 and nibabel 5.4.2 put one valid NIfTI file at two places, 5 mm apart, and neither warns.
# Guessed: both take the sform where sform_code > 0, as nibabel documents for itself, or SimpleITK takes the first valid form in
# one fixed order. Seen: SimpleITK takes the sform if sform_code is 1 (scanner) or there is no qform; at codes 2, 3 and 4
# (aligned, Talairach, MNI) with any qform it takes the qform. An image that was moved by registration, which is what code 2
# is for, goes back to where the scanner put it; so does a label map drawn on it in ITK, and a copy written by SimpleITK has
# lost the sform for good. Changing sform_code from 2 to 1, no number of the matrix, moves the image in ITK alone.
# ITK's rule was meant: https://github.com/InsightSoftwareConsortium/ITK/pull/1868
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q "SimpleITK==2.5.7" "nibabel==5.4.2" "numpy==2.4.6"
venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import nibabel
import numpy as np
import SimpleITK

for tool in ("SimpleITK", "nibabel"):
    print(tool, version(tool))

scanner = np.array([[1.0, 0, 0, 10], [0, 2, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]])
aligned = scanner.copy()
aligned[0, 3] += 5  # a rigid shift, so that ITK could hold either form
LPS_TO_RAS = np.array([-1, -1, 1])


def place(file: str) -> tuple[float, float]:
    """x of the first voxel in RAS+, in mm: as nibabel has it, and as SimpleITK has it"""
    itk = LPS_TO_RAS * SimpleITK.ReadImage(file).GetOrigin()
    return float(nibabel.load(file).affine[0, 3]), float(itk[0])


print("x of the first voxel; the qform says 10, the sform 15")
seen = {}
for sform_code in (1, 2, 3, 4):
    for qform_code in (0, 1, 2):
        image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), None)
        image.set_qform(scanner, code=qform_code)
        image.set_sform(aligned, code=sform_code)
        nibabel.save(image, "image.nii.gz")
        seen[sform_code, qform_code] = place("image.nii.gz")
        print(f"sform_code {sform_code}, qform_code {qform_code}: nibabel %g, SimpleITK %g" % seen[sform_code, qform_code])
        if (sform_code, qform_code) == (2, 1):
            SimpleITK.WriteImage(SimpleITK.ReadImage("image.nii.gz"), "copy.nii.gz")
copied = place("copy.nii.gz")
print("copy that SimpleITK wrote of codes 2 and 1: guessed 15 in nibabel, as the original; seen %g" % copied[0])

head = {(s, q): (15.0, 15.0 if s == 1 or q == 0 else 10.0) for s in (1, 2, 3, 4) for q in (0, 1, 2)}
sys.exit(0 if seen == head and copied == (10.0, 10.0) else "no longer as the head of this script says")
PYTHON
