"""Batches as the device prepares them: ids of the two sides exchanged, angles true in mm."""

import jax
import numpy as np
import pytest

from ukbob_jax.data import augment
from ukbob_jax.data.on_device import on_device
from ukbob_jax.errors import ConfigError


def packed(label, annotated):
    """A batch as the pipeline hands it over, of one scan without contrast."""
    b = len(label)
    return {
        "stored": np.zeros((b, 1, *label.shape[1:]), np.int16), "label": label,
        "size": np.full((b, 3), label.shape[1:], np.int32),
        "offset": np.zeros((b, 1), np.float32), "scale": np.ones((b, 1), np.float32), "annotated": annotated,
        "range": np.tile(np.float32([-9, 9]), (b, 1)), "lookup": np.tile(np.arange(256, dtype=np.uint8), (b, 1)),
    }  # fmt: skip


def test_a_flip_swaps_the_ids_the_network_has():
    """Ids of training, not ours: kidneys are 1 and 3 here. A side whose partner was not annotated is left out."""
    classes = {0: "background", 1: "kidney_left", 2: "liver", 3: "kidney_right"}
    label = np.random.default_rng(0).integers(0, 4, (16, 4, 2, 2)).astype(np.uint8)
    known = np.tile([True, True, True, False], (16, 1))
    given = jax.tree.map(jax.numpy.asarray, packed(label, known))
    found = on_device(("flip",), classes, (1, 1, 1))(jax.random.key(0), given)
    turned = np.array([0, 3, 2, 1], np.uint8)[label[:, ::-1]]
    rows = [("turned" if np.array_equal(a, t) else "same") for a, t in zip(found["label"], turned)]
    for kind, row, plain, mirrored in zip(rows, np.asarray(found["label"]), label, turned):
        np.testing.assert_array_equal(row, plain if kind == "same" else mirrored)
    assert set(rows) == {"turned", "same"}
    assert np.asarray(found["annotated"]).tolist() == [[True, False, True, False]] * 16
    weighed = {**given, "weights": jax.numpy.tile(jax.numpy.float32([1, 0.5, 0.2, 0.7]), (16, 1))}
    found = on_device(("flip",), classes, (1, 1, 1))(jax.random.key(0), weighed)
    np.testing.assert_array_equal(found["weights"], np.tile(np.float32([1, 0.5, 0.2, 0.5]), (16, 1)))
    with pytest.raises(ConfigError, match="kidney_left but not kidney_right"):
        on_device(("flip",), {0: "background", 1: "kidney_left"}, (1, 1, 1))


def test_turns_know_the_spacing():
    with pytest.raises(ConfigError, match="2 x 3 mm are not square"):
        on_device(("rot90",), {0: "background"}, (2, 3, 2))
    label = np.zeros((1, 12, 12, 12), np.uint8)
    label[:, 5:7, 2:10, 5:7] = 1
    image = np.zeros((1, 1, *label.shape[1:]), np.int16)
    image[0, 0, 2:10, 5:7, 5:7] = 9  # shows that image and label move together
    given = jax.tree.map(jax.numpy.asarray, {**packed(label, np.ones((1, 2), bool)), "stored": image})
    keys = map(jax.random.key, range(99))
    key = next(
        k for k in keys if jax.random.uniform(jax.random.fold_in(k, 0), (1, augment.DRAWS))[0, 0] < 0.2
    )
    flat, deep = (
        on_device(("affine",), {0: "background"}, spacing)(key, given)["image"]
        for spacing in ((1, 1, 1), (1, 1, 4))
    )
    assert np.abs(flat - deep).max() > 0.1  # the same angle in mm is another one in voxels


def test_without_labels_a_flip_needs_no_names():
    given = jax.tree.map(jax.numpy.asarray, packed(np.zeros((4, 4, 2, 2), np.uint8), np.ones((4, 2), bool)))
    for name in ("label", "lookup", "annotated"):
        del given[name]
    given["stored"] = jax.numpy.arange(64, dtype=jax.numpy.int16).reshape(4, 1, 4, 2, 2) % 8
    found = on_device(("flip",), {}, (1, 1, 1))(jax.random.key(0), given)
    plain = on_device((), {}, (1, 1, 1))(jax.random.key(0), given)
    assert set(found) == {"image"}
    same = [np.array_equal(a, b) for a, b in zip(found["image"], plain["image"])]
    turned = [np.array_equal(a, b[::-1]) for a, b in zip(found["image"], plain["image"])]
    assert all(a or b for a, b in zip(same, turned)) and not all(same)
