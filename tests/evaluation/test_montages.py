"""Slices under labels: their colours, and that every figure is a picture of what it was given."""

import io

import numpy as np
import pytest
from PIL import Image

from ukbob_jax.anatomy import COLORS
from ukbob_jax.evaluation import montages

SPACING = (2.0, 2.0, 3.0)


def scan() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    label = np.zeros((10, 8, 12), np.uint8)
    label[2:8, 2:6, 3:9] = 5
    return rng.normal(size=label.shape).astype(np.float32), label


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_an_overlay_tints_labels_only_and_ignored_voxels_are_whitened():
    grey, label = np.full((1, 3), 0.5), np.array([[0, 1, 255]], np.uint8)
    shown = montages.overlay(grey, label, np.array([(0, 0, 0), (255, 0, 0)], np.uint8), 0.5)
    np.testing.assert_allclose(shown[0], [(0.5, 0.5, 0.5), (0.75, 0.25, 0.25), (0.75, 0.75, 0.75)])


@pytest.mark.parametrize("name", ["montage", "three_planes", "comparison", "contact_sheet"])
def test_figures_show_the_label_in_its_colour_and_are_the_same_twice(name):
    def draw(label: np.ndarray) -> bytes:
        if name == "montage":
            return montages.montage([image], [label], ["s"], SPACING, COLORS)
        if name == "three_planes":
            return montages.three_planes([("s", image, label)], [(5, 4, 6)], SPACING, COLORS)
        if name == "comparison":
            return montages.comparison(image, [("truth", label)], SPACING, COLORS)
        row = montages.sheet_row("s", image[..., None], ["water"], label, SPACING, COLORS)
        return montages.contact_sheet([row])

    image, label = scan()
    with_label, without = draw(label), draw(np.zeros_like(label))
    assert with_label == draw(label)
    coloured = [
        (np.ptp(pixels(png), axis=-1) > 20).mean() for png in (with_label, without)
    ]  # text is bluish, 20
    assert coloured[0] > 0.01 and coloured[1] == 0


def test_a_row_of_the_contact_sheet_has_every_channel_and_three_planes():
    image, label = scan()
    channels = np.stack([image, 2 * image], axis=-1)
    row = montages.sheet_row("s", channels, ["water", "fat"], label, SPACING, COLORS)
    assert [name for name, _, _ in row.panels] == [
        "water",
        "fat",
        "coronal, labels",
        "axial, labels",
        "sagittal, labels",
    ]
    assert [picture.shape[:2] for _, _, picture in row.panels[2:]] == [(12, 10), (8, 10), (12, 8)]
    assert len(montages.sheet_row("s", channels, ["water", "fat"], None, SPACING, COLORS).panels) == 2
