import numpy as np

from tests.store.conftest import AFFINE, SHAPE, volume
from ukbob_jax.store import schema
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter


def test_samples_are_voxels_of_their_class(store):
    _, label = volume(0)
    samples = store.samples("sub-0", "auto")
    assert sorted(samples) == [1, 2, 3, 4]
    for organ, voxels in samples.items():
        assert voxels.shape == (schema.SAMPLES, 3) and voxels.dtype == np.int32
        assert len(np.unique(voxels, axis=0)) == schema.SAMPLES
        assert (label[tuple(voxels.T)] == organ).all()
        np.testing.assert_array_equal(store.sample("sub-0", "auto", organ), voxels)


def test_few_voxels_are_all_sampled_and_ignore_is_not(tmp_path):
    image, _ = volume(0)
    label = np.zeros(SHAPE, np.uint8)
    label[3, 4, 5] = label[30, 20, 10] = 9
    label[0] = 255
    StoreWriter(tmp_path).write("a", image, AFFINE, {"auto": label, "empty": label * 0}, source="")
    samples = Store.open(tmp_path).samples("a", "auto")
    assert {organ: voxels.tolist() for organ, voxels in samples.items()} == {9: [[3, 4, 5], [30, 20, 10]]}
    assert Store.open(tmp_path).samples("a", "empty") == {}
