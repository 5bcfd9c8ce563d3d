#!/usr/bin/env bash
# dcm2niix 1.0.20260724: water and fat images of one MR series become one 4-D file that looks like a run over time.
# Guessed: two files, one per contrast, since ImageType says WATER or FAT in every image (as in GE's LAVA-Flex) and dcm2niix
# splits a series whose echo times differ. Seen, without any private elements: with one echo time it writes one file of two
# volumes, a "time step" of TR, and a sidecar whose ImageType names only one of the contrasts. Where both contrasts count their
# images from 1 (the standard asks for no unique InstanceNumber), each volume is a mixture of water slices and fat slices,
# which slice goes where changes with the UIDs alone, the exit status is 0, and no warning is about contrasts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q "dcm2niix==1.0.20260724" "pydicom==3.0.2" "nibabel==5.4.2" "numpy==2.4.6"
venv/bin/python - <<'PYTHON'
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

for tool in ("dcm2niix", "pydicom", "nibabel"):
    print(tool, version(tool))

SLICES = 6
LEVELS = {"WATER": 1000, "FAT": 100}  # water voxels are 1000 + slice, fat voxels 100 + slice


def write_series(folder: Path, number: int, restart: bool) -> None:
    folder.mkdir()
    root = f"1.2.826.0.1.3680043.8.498.{number}"
    for count, (contrast, z) in enumerate([(c, z) for c in LEVELS for z in range(SLICES)], start=1):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = MRImageStorage
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = f"{root}.4.{count}"
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = (f"{root}.{i}" for i in (1, 2, 3))
        image.ImageType = ["DERIVED", "PRIMARY", "DIXON", contrast]
        image.Modality, image.Manufacturer, image.PatientPosition = "MR", "GE MEDICAL SYSTEMS", "HFS"
        image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = "Phantom^", "1", "", ""
        image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = "20240101"
        image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = "120000"
        image.StudyID, image.AccessionNumber, image.ReferringPhysicianName = "1", "", ""
        image.PositionReferenceIndicator, image.SeriesDescription = "", "LAVA Flex"
        image.SeriesNumber, image.AcquisitionNumber = number, 1
        image.InstanceNumber = z + 1 if restart else count
        image.ScanningSequence, image.SequenceVariant, image.ScanOptions, image.MRAcquisitionType = "GR", "NONE", "", "3D"
        image.EchoTime, image.RepetitionTime, image.FlipAngle, image.EchoTrainLength = 2.3, 5, 10, 1
        image.EchoNumbers, image.MagneticFieldStrength = 1, 1.5
        image.SliceThickness = image.SpacingBetweenSlices = 4
        image.ImageOrientationPatient, image.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-16, -16, 4 * z]
        image.PixelSpacing, image.Rows, image.Columns = [2, 2], 16, 16
        image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 0
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
        image.PixelData = np.full((16, 16), LEVELS[contrast] + z, np.uint16).tobytes()
        image.save_as(folder / f"{count:03}.dcm", enforce_file_format=True)


as_the_head_says = True
for number, restart in ((1, False), (2, True)):
    source, target = Path(f"series{number}"), Path(f"nifti{number}")
    write_series(source, number, restart)
    target.mkdir()
    run = subprocess.run(["venv/bin/dcm2niix", "-z", "n", "-f", "%s_%d", "-o", target, source], capture_output=True, text=True)
    print("\nInstanceNumber", "1-6 in each contrast" if restart else "1-12 over both contrasts")
    print("guessed: 2 files of 16 x 16 x 6, one per contrast")
    files = sorted(target.glob("*.nii"))
    print("seen:    exit status", run.returncode, [(file.name, nibabel.load(file).shape) for file in files])
    print("         warnings:", [line for line in (run.stdout + run.stderr).splitlines() if "warning" in line.lower()])
    if len(files) != 1 or nibabel.load(files[0]).shape != (16, 16, SLICES, 2):
        sys.exit("no longer as the head of this script says: not one 4-D file")
    image = nibabel.load(files[0])
    print("         fourth step:", image.header.get_zooms()[3], *image.header.get_xyzt_units())
    print("         ImageType in the sidecar:", json.loads(files[0].with_suffix(".json").read_text())["ImageType"])
    column = image.get_fdata()[8, 8]
    mixed = [len(set(column[:, volume] > 500)) > 1 for volume in (0, 1)]
    for volume in (0, 1):
        print(f"         volume {volume}, slice by slice:", ["water" if v > 500 else "fat" for v in column[:, volume]])
    print("         contrasts mixed within a volume:", any(mixed))
    as_the_head_says &= run.returncode == 0 and any(mixed) == restart
sys.exit(0 if as_the_head_says else "no longer as the head of this script says")
PYTHON
