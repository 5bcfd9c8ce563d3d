"""Packed batches: finished on the device they are what the host makes of them, and what `normalize` says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.data import conftest
from tests.data.conftest import AFFINE, SHAPE, label_of
from ukbob_jax.data import unpack as module
from ukbob_jax.data.unpack import unpack
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes import intensity

METHODS = ("zscore", "percentile", "window:0:300")
CROP = (32, 12, 30)  # x and z larger than the scans


def take(store: Store, number: int = 2, **changes) -> list[dict[str, np.ndarray]]:
    given = {"subjects": store.subjects, "crop": CROP, "batch_size": 6, "seed": 1}
    return conftest.take(store, number, **{**given, **changes})


@pytest.fixture(scope="module")
def scaled(tmp_path_factory) -> tuple[Store, dict[str, np.ndarray]]:
    """Two scans that the store keeps with a slope, as it must for values that are no integers."""
    path = tmp_path_factory.mktemp("scaled") / "store"
    images = {f"f{n}": np.random.default_rng(n).gamma(2.0, 0.1 * 30**n, (*SHAPE, 2)) for n in range(2)}
    with StoreWriter(path) as writer:
        for name, image in images.items():
            writer.write(name, image, AFFINE, {"auto": label_of(0)}, source=name)
    return Store.open(path), images


@pytest.mark.parametrize("sampling", ["balanced", "nnunet"])
@pytest.mark.parametrize("method", METHODS)
def test_device_and_host_agree(store, method, sampling):
    lookup = np.arange(256, dtype=np.uint8)
    lookup[[7, 9]] = 3, 255
    options = {"normalize": method, "lookup": lookup, "num_classes": 10, "flagged": {"s1": {5}}}
    options["sampling"] = sampling
    for packed, plain in zip(take(store, packed=True, **options), take(store, **options), strict=True):
        assert packed["stored"].dtype == np.int16
        found = jax.jit(unpack)({name: jnp.asarray(value) for name, value in packed.items()})
        assert {k: (v.shape, v.dtype) for k, v in found.items()} == {
            k: (v.shape, v.dtype) for k, v in plain.items()
        }
        # 1e-6: XLA may turn the division into a product with the reciprocal
        np.testing.assert_allclose(found["image"], plain["image"], rtol=1e-6, atol=1e-6)
        for name in ("label", "subject", "annotated"):
            np.testing.assert_array_equal(found[name], plain[name])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("contrasts", [None, ("1",)])
def test_values_are_those_of_normalize_on_the_scan_itself(scaled, method, contrasts):
    store, images = scaled
    channels = [0, 1] if contrasts is None else [1]
    batch = take(store, 1, crop=SHAPE, batch_size=2, normalize=method, contrasts=contrasts)[0]
    for image, subject in zip(batch["image"], batch["subject"]):
        exact = images[store.subjects[subject]]
        stats = intensity.statistics(exact)
        chosen = intensity.Statistics(*([values[c] for c in channels] for values in stats))
        expected = intensity.normalize(exact[..., channels], chosen, method)
        step = exact.max() / 32767 / np.min(intensity.mapping(chosen, method).scale)
        # half a step of the stored int16, and float32 rounding
        np.testing.assert_allclose(image, expected, atol=0.51 * step + 1e-6)


def test_blocks_do_not_show(store, monkeypatch):
    packed = take(store, 1, packed=True)[0]
    whole = unpack(packed)
    monkeypatch.setattr(module, "BLOCK", 1)  # a plane at a time
    for name, value in unpack(packed).items():
        np.testing.assert_array_equal(value, whole[name])


def test_beyond_the_scan_stays_ignored_whatever_the_lookup_says(store):
    batch = take(store, 1, lookup=np.zeros(256, np.uint8))[0]
    inside = np.zeros(CROP, bool)
    inside[4:28, :, 1:29] = True
    assert (batch["label"][:, ~inside] == 255).all() and (batch["label"][:, inside] == 0).all()
    assert (batch["image"][:, ~inside] == 0).all() and (batch["image"][:, inside] != 0).any()


def test_without_labels_device_and_host_agree(store):
    packed, plain = (take(store, 1, label=None, packed=packed)[0] for packed in (True, False))
    assert "lookup" not in packed and "label" not in plain
    found = jax.jit(unpack)({name: jnp.asarray(value) for name, value in packed.items()})
    assert found.keys() == plain.keys()
    np.testing.assert_allclose(found["image"], plain["image"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("contrasts", [None, ("1",)])
def test_an_image_stored_as_float32_reaches_the_device_exactly(tmp_path, contrasts):
    hot = np.random.default_rng(0).normal(25, 3, (*SHAPE, 2)).astype(np.float32)
    hot[5, 5, 5, 1] = 1e6
    native = np.random.default_rng(1).integers(1, 900, (*SHAPE, 2)).astype(np.int16)
    with StoreWriter(tmp_path / "store") as writer:
        for name, image in (("hot", hot), ("native", native)):
            writer.write(name, image, AFFINE, {"auto": label_of(0)}, source=name)
    store = Store.open(tmp_path / "store")
    assert [store.rows[name].dtype for name in store.subjects] == ["float32", "int16"]
    assert "float32" in store.rows["hot"].quality["stored"] and "dtype" not in store.rows["native"].to_json()
    np.testing.assert_array_equal(store.read("hot", "image"), hot)
    np.testing.assert_array_equal(store.crop("hot", "image", (3, 4, 5), (6, 5, 4)), hot[3:9, 4:9, 5:9])
    store.verify("hot")
    options = {"crop": SHAPE, "batch_size": 2, "normalize": "window:0:50", "contrasts": contrasts}
    packed, plain = (take(store, 1, packed=packed, **options)[0] for packed in (True, False))
    assert packed["stored"].dtype == np.float32
    found = jax.jit(unpack)({name: jnp.asarray(value) for name, value in packed.items()})
    for row, number in enumerate(plain["subject"]):
        exact = (hot, native)[number][..., [0, 1] if contrasts is None else [1]]
        expected = (exact.astype(np.float32) / 50).clip(0, 1)
        np.testing.assert_allclose(found["image"][row], expected, atol=1e-6)
        np.testing.assert_allclose(plain["image"][row], expected, atol=1e-6)
