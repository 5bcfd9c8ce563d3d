"""How the files of label maps end that can be written. Imports nothing, since commands list them in their help."""

import pathlib

DICOM = ".dcm"  # a DICOM segmentation
ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".mgz", ".mgh", DICOM)


def ending(path: pathlib.Path) -> str:
    """The ending of a label map's file; "" for others and for folders."""
    return next((one for one in ENDINGS if path.name.lower().endswith(one)), "")


def stem(path: pathlib.Path) -> str:
    """The name of a label map without its ending."""
    return path.name[: -len(found)] if (found := ending(path)) else path.name
