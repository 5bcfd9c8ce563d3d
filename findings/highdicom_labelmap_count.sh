#!/usr/bin/env bash
# highdicom 0.28.2: a LABELMAP segmentation counts one segment too few.
# Guessed: `number_of_segments` is the length of `segment_numbers`, and the same for one mask stored as BINARY or as LABELMAP:
# the docstrings of both properties promise segments that are not background. Seen: the two types agree on `segment_numbers`,
# but for LABELMAP the background, which highdicom adds as segment 0, is taken off twice: two organs are counted as 1, one
# organ as 0, and `range(1, number_of_segments + 1)` misses the last organ. len(SegmentSequence) is no way out: it is 3.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q "highdicom==0.28.2" "pydicom==3.0.2" "numpy==2.4.6"
venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import highdicom
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

for tool in ("highdicom", "pydicom"):
    print(tool, version(tool))

study, series, frame = generate_uid(), generate_uid(), generate_uid()
scan = []
for z in range(4):
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID, image.Modality = MRImageStorage, generate_uid(), "MR"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = "Phantom^", "1", "", ""
    image.StudyID, image.StudyDate, image.StudyTime, image.AccessionNumber = "1", "20240101", "120000", ""
    image.ReferringPhysicianName, image.PositionReferenceIndicator, image.Manufacturer = "", "", "none"
    image.ImageType, image.SeriesNumber, image.InstanceNumber = ["ORIGINAL", "PRIMARY"], 1, z + 1
    image.ImageOrientationPatient, image.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 4 * z]
    image.PixelSpacing, image.SliceThickness, image.SpacingBetweenSlices = [1, 1], 4, 4
    image.Rows, image.Columns, image.SamplesPerPixel, image.PhotometricInterpretation = 8, 8, 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.PixelData = np.zeros((8, 8), np.uint16).tobytes()
    scan.append(image)

organs = [
    highdicom.seg.SegmentDescription(
        segment_number=number, segment_label=label, segmented_property_category=codes.SCT.Organ,
        segmented_property_type=kind, algorithm_type="MANUAL",
    )
    for number, label, kind in ((1, "liver", codes.SCT.Liver), (2, "spleen", codes.SCT.Spleen))
]
seen = {}
for amount in (2, 1):
    mask = np.zeros((4, 8, 8), np.uint8)
    for number in range(1, amount + 1):
        mask[:, 2 * number : 2 * number + 2] = number
    for kind in ("BINARY", "LABELMAP"):
        made = highdicom.seg.Segmentation(
            scan, mask, kind, organs[:amount], series_instance_uid=generate_uid(), series_number=2,
            sop_instance_uid=generate_uid(), instance_number=1, manufacturer="none", manufacturer_model_name="none",
            software_versions="1", device_serial_number="1",
        )
        numbers, length = [int(number) for number in made.segment_numbers], len(made.SegmentSequence)
        seen[amount, kind] = (numbers, made.number_of_segments, length)
        print(f"{amount} organs, {kind}: segment_numbers {numbers}, number_of_segments guessed {amount}, "
              f"seen {made.number_of_segments}; items in SegmentSequence {length}")

head = {
    (2, "BINARY"): ([1, 2], 2, 2), (2, "LABELMAP"): ([1, 2], 1, 3),
    (1, "BINARY"): ([1], 1, 1), (1, "LABELMAP"): ([1], 0, 2),
}
sys.exit(0 if seen == head else "no longer as the head of this script says")
PYTHON
