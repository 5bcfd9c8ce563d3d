"""Names and colours of labels as ITK-SNAP reads them: its label description file, "Segmentation > Import"."""

from collections.abc import Mapping

from ukbob_jax.volumes.label_colours import colour

ENDING = ".label.txt"
_HEAD = """################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# IDX: id; R, G, B: 0 to 255; A: opacity, 0 to 1; VIS, MSH: shown in slices and in 3D, 0 or 1; LABEL: name
################################################
"""


def text(names: Mapping[int, str]) -> str:
    """The content of the file; id 0, whatever its name, is ITK-SNAP's "Clear Label"."""
    rows = [_row(0, (0, 0, 0), 0, "Clear Label")]
    rows += [_row(i, colour(i, name), 1, name) for i, name in sorted(names.items()) if i]
    return _HEAD + "".join(rows)


def _row(label: int, rgb: tuple[int, int, int], shown: int, name: str) -> str:
    channels = " ".join(f"{value:4d}" for value in rgb)
    plain = name.replace('"', "'")
    return f'{label:5d}  {channels}  {shown:6d}  {shown}  {shown}    "{plain}"\n'
