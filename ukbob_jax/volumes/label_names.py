"""Names of label ids inside a NIfTI header: the Caret `LabelTable` extension that TotalSegmentator and viewers read."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping

from nibabel import nifti1

from ukbob_jax.volumes.label_colours import colour


def extension(names: Mapping[int, str]) -> nifti1.Nifti1Extension:
    """The header extension that names each label id; ids are written in ascending order."""
    root = ET.Element("CaretExtension")
    info = ET.SubElement(root, "VolumeInformation", Index="0")
    table = ET.SubElement(info, "LabelTable")
    for key, name in sorted(names.items()):
        rgb = zip(("Red", "Green", "Blue"), colour(key, name))
        parts = {channel: f"{value / 255:.3f}" for channel, value in rgb}
        entry = {"Key": str(key), **parts, "Alpha": "1" if key else "0"}
        ET.SubElement(table, "Label", entry).text = name
    ET.SubElement(info, "VolumeType").text = "Label"
    text = ET.tostring(root, encoding="UTF-8", xml_declaration=True)
    text += b" " * (
        -(len(text) + 8) % 16
    )  # extensions are multiples of 16 bytes; a reader chokes on NUL padding
    return nifti1.Nifti1Extension(0, text)


def parse(extensions: list[nifti1.Nifti1Extension]) -> dict[int, str]:
    """Label id to name from the first extension that holds a label table; empty where none does."""
    for item in extensions:
        try:
            root = ET.fromstring(bytes(item.get_content()).rstrip(b"\0"))
            found = {int(label.attrib["Key"]): label.text or "" for label in root.iter("Label")}
        except (ET.ParseError, KeyError, TypeError, ValueError):
            continue  # another program's extension
        if found:
            return found
    return {}
