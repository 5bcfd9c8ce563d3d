import numpy as np
import pytest

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError, ValuesError
from ukbob_jax.sources import steps
from ukbob_jax.volumes.label_table import LabelTable
from ukbob_jax.volumes.scan import Scan
from ukbob_jax.volumes.volume import Volume


def scan(label, annotated=None):
    image = np.arange(4 * 4 * 4 * 1, dtype=np.float32).reshape(4, 4, 4, 1)
    return Scan(Volume(image, np.eye(4)), {"manual": Volume(label, np.eye(4))}, {"manual": annotated})


def test_labels_are_resampled_to_their_nearest_and_images_linearly():
    label = np.zeros((4, 4, 4), np.uint8)
    label[2:] = 7
    found = steps.resample((1.5, 1.0, 1.0))(scan(label))
    assert set(np.unique(found.labels["manual"].array)) == {0, 7}
    np.testing.assert_allclose(found.image.array[:, 0, 0, 0], [0.0, 24.0, 48.0])
    np.testing.assert_allclose(found.labels["manual"].affine, found.image.affine)


def test_a_crop_keeps_what_is_not_0_where_it_was():
    label = np.arange(64, dtype=np.uint8).reshape(4, 4, 4)
    whole = scan(label)
    whole.image.array[0], whole.image.array[..., 3, :] = 0, 0
    cut = steps.crop_to_content()(whole)
    assert cut.image.shape == (3, 4, 3) and cut.image.affine[:3, 3].tolist() == [1, 0, 0]
    np.testing.assert_array_equal(cut.labels["manual"].array, label[1:, :, :3])
    np.testing.assert_array_equal(cut.image.array, whole.image.array[1:, :, :3])
    whole.image.array[:] = 0
    assert steps.crop_to_content()(whole) is whole


def test_a_mask_of_another_value_is_0_and_1():
    mask = np.array([0, 255], np.uint8).reshape(2, 1, 1)
    assert steps.binary(Volume(mask, np.eye(4)), "m.nii").array.ravel().tolist() == [0, 1]
    empty = steps.binary(Volume(mask[:1], np.eye(4)), "m.nii").array
    assert empty.dtype == np.uint8 and not empty.any()


def test_ids_become_ours_also_those_that_were_annotated():
    mapping = anatomy.from_dataset("btcv")
    label = np.arange(64).reshape(4, 4, 4) % 14
    found = steps.relabel("btcv")(scan(label, (1, 3)))
    np.testing.assert_array_equal(found.labels["manual"].array, mapping.lut[label])
    assert found.annotated["manual"] == tuple(sorted({mapping.mapped[1], mapping.mapped[3]}))
    everything = steps.relabel("btcv")(scan(label)).annotated["manual"]
    assert everything == tuple(sorted(set(mapping.mapped.values())))


def test_masks_keep_their_ids():
    mask = Volume(np.ones((4, 4, 4), np.uint8), np.eye(4))
    given = scan(np.full((4, 4, 4), 5))
    given = given._replace(
        labels={**given.labels, "mask/anatomy": mask}, annotated={**given.annotated, "mask/anatomy": None}
    )
    table = LabelTable("t.csv", {0: 0, 5: 2}, {2: "five"})
    for step in (steps.relabel("btcv"), steps.map_ids(table)):
        found = step(given)
        assert found.labels["mask/anatomy"] is mask and found.annotated["mask/anatomy"] is None
        assert found.labels["manual"].array.max() in (15, 2)


def test_an_id_that_two_become_counts_only_where_both_were_annotated():
    dataset = next(
        name
        for name in anatomy.DATASETS
        if len(set(anatomy.from_dataset(name).mapped.values())) < len(anatomy.from_dataset(name).mapped)
    )
    mapped = anatomy.from_dataset(dataset).mapped
    ours = next(i for i in mapped.values() if list(mapped.values()).count(i) > 1)
    sources = [source for source, target in mapped.items() if target == ours]
    assert ours not in steps.reached(anatomy.from_dataset(dataset), sources[:1])
    assert ours in steps.reached(anatomy.from_dataset(dataset), sources)


def test_ids_that_no_store_holds_are_refused():
    label = np.full((4, 4, 4), 256, np.uint16)
    with pytest.raises(ValuesError, match="label 'manual' has ids up to 256"):
        steps.relabel("btcv")(scan(label))
    with pytest.raises(ConfigError, match="somewhere"):
        steps.relabel("somewhere")
