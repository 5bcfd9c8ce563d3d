"""A picture of an export: one slice along each axis, its instances in colour, and some of its masks.

python -m tools.draw_export2d EXPORT SUBJECT docs/export2d.png
"""

import argparse
import pathlib

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from ukbob_jax import anatomy, files
from ukbob_jax.export2d import naming
from ukbob_jax.export2d.manifest import CLASSES, IMAGES_TO_MASKS

MASKS = 3  # that are shown of a slice, the largest ones of different classes


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export")
    parser.add_argument("subject")
    parser.add_argument("picture")
    options = parser.parse_args(argv)
    folder = pathlib.Path(options.export)
    table = files.read_json(folder / IMAGES_TO_MASKS)
    names = {four: name for name, four in files.read_json(folder / CLASSES).items()}
    shown = [fullest(table, options.subject, axis) for axis in "xyz"]
    shown = [image for image in shown if image]
    figure, places = plt.subplots(len(shown), 2 + MASKS, figsize=(11, 2.6 * len(shown)), squeeze=False)
    for row, image in zip(places, shown):
        draw(row, folder, image, table[image], names)
    figure.tight_layout()
    figure.savefig(options.picture, dpi=90)


def fullest(table: dict[str, list[str]], subject: str, axis: str) -> str:
    """The image of a subject along an axis that has most masks; "" where there is none."""
    found = {path: naming.parse_image(path.removeprefix("images/")) for path in table}
    mine = [path for path, name in found.items() if name and (name.case, name.axis) == (subject, axis)]
    return max(mine, key=lambda path: len(table[path]), default="")


def draw(row: np.ndarray, folder: pathlib.Path, image: str, masks: list[str], names: dict[str, str]) -> None:
    """The image, all instances over it, and the largest masks."""
    grey = np.array(Image.open(folder / image))
    pixels = {mask: np.array(Image.open(folder / mask)) > 0 for mask in masks}
    colours = np.repeat(grey[..., None], 3, 2).astype(float)
    largest: dict[str, str] = {}
    for mask, inside in sorted(pixels.items(), key=lambda item: -item[1].sum()):
        name = names[mask[-12:-8]]
        largest.setdefault(name, mask)
        colours[inside] = 0.45 * colours[inside] + 0.55 * anatomy.COLORS[anatomy.IDS[name]]
    stem = image.removeprefix("images/").removesuffix(".png")
    row[0].imshow(grey, cmap="gray", vmin=0, vmax=255)
    row[0].set_title(stem, fontsize=7)
    row[1].imshow(colours.astype(np.uint8))
    row[1].set_title(f"{len(masks)} masks of {len(largest)} classes", fontsize=7)
    for place, (name, mask) in zip(row[2:], list(largest.items())):
        place.imshow(pixels[mask], cmap="gray")
        place.set_title(f"{mask[-14:-4]}  {name}", fontsize=7)
    for place in row:
        place.axis("off")


if __name__ == "__main__":
    main()
