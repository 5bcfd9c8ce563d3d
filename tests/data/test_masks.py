"""Crops of tissue, and what was anonymised in them: the four faults of the benchmark's masks do not occur here."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.data.conftest import AFFINE, SHAPE, image_of, take
from tests.data.test_training_data import recipe
from ukbob_jax.anatomy import IGNORE
from ukbob_jax.data import augment
from ukbob_jax.data.options import Crops
from ukbob_jax.data.source import ScanSource
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.data.transforms import PlaceCrops, ReadBatch
from ukbob_jax.errors import FileError
from ukbob_jax.store.reader import Store
from ukbob_jax.store.schema import ANATOMY, ANONYMISATION
from ukbob_jax.store.writer import StoreWriter

CROP = (8, 24, 6)  # longer than the scan along y


def masks_of(number: int) -> dict[str, np.ndarray]:
    """Scan 0 has both masks, at the far corner; 1 anatomy, 2 anonymisation, 3 none."""
    anatomy, anonymised = np.zeros((2, *SHAPE), np.uint8)
    anatomy[16:, 14:, 18:], anonymised[20:] = 1, 1
    masks = {ANATOMY: anatomy, ANONYMISATION: anonymised}
    return [masks, {ANATOMY: anatomy}, {ANONYMISATION: anonymised}, {}][number]


@pytest.fixture(scope="module")
def masked(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("masks") / "store"
    with StoreWriter(path) as writer:
        for number in range(4):
            labels = {"auto": (image_of(0)[..., 1] > 9).astype(np.uint8) * 3, **masks_of(number)}
            writer.write(f"s{number}", image_of(number), AFFINE, labels, source="", split="train")
    return Store.open(path)


def places(store, number, count=200):
    sample = ScanSource(store, store.subjects, None, masks=True)[number]
    step = PlaceCrops(store, ANATOMY, Crops(CROP, 1.0), batch_size=1)
    return [step.random_map(sample, np.random.default_rng(seed))[0] for seed in range(count)]


def test_crops_lie_around_tissue_that_was_not_altered_and_inside_the_scan(masked):
    allowed = (masks_of(0)[ANATOMY] == 1) & (masks_of(0)[ANONYMISATION] == 0)
    for place in places(masked, 0):
        assert (place.start >= 0).all() and (place.start + place.size <= SHAPE).all()
        centres = np.minimum(place.start + place.size // 2, np.array(SHAPE) - 1)
        near = tuple(
            slice(c, s + n) for c, s, n in zip(centres, place.start, place.size)
        )  # clamped at the far ends
        assert allowed[near].any()
        assert 16 <= place.start[0] + 4 < 20  # far from the ends along x: the centre itself


def test_nnunets_sampling_takes_tissue_too(masked):
    sample = ScanSource(masked, masked.subjects, None, masks=True)[0]
    step = PlaceCrops(masked, ANATOMY, Crops((4, 4, 4), 1.0, sampling="nnunet"), batch_size=1)
    allowed = np.argwhere((masks_of(0)[ANATOMY] == 1) & (masks_of(0)[ANONYMISATION] == 0))
    for seed in range(50):
        [place] = step.random_map(sample, np.random.default_rng(seed))
        assert (allowed == place.start + 2).all(1).any()


def test_without_a_mask_of_anatomy_crops_lie_anywhere(masked):
    for number in (2, 3):
        starts = np.array([place.start for place in places(masked, number)])
        assert starts[:, 0].min() == 0 and starts[:, 0].max() == SHAPE[0] - CROP[0]


def test_a_batch_says_which_of_its_voxels_were_altered(masked):
    seen = set()
    for batch in take(masked, 8, label=None, subjects=masked.subjects, crop=CROP, masks=True, foreground=0.5):
        assert batch["anonymised"].dtype == bool and batch["anonymised"].shape == batch["image"].shape[:4]
        for number, altered in zip(batch["subject"], batch["anonymised"]):
            assert not altered[:, :2].any() and not altered[:, 22:].any()  # beyond the scan
            assert altered.any() <= (number in (0, 2))
            seen |= {int(number)} if altered.any() and not altered.all() else set()
    assert seen == {0, 2}
    for place in places(masked, 0, 20):
        step = ReadBatch(masked, None, CROP, "zscore", masks=True)
        [altered] = step.map([place])["anonymised"]
        window = tuple(slice(low, low + n) for low, n in zip(place.start, place.size))
        np.testing.assert_array_equal(altered[:, 2:22], masks_of(0)[ANONYMISATION][window] == 1)


def test_loss_weights_are_0_or_1(masked):
    """The benchmark's become -254 or 2 where a mask was cropped."""
    [batch] = take(masked, 1, label=None, subjects=masked.subjects, crop=SHAPE, masks=True)
    assert set(np.unique(1.0 - batch["anonymised"])) == {0.0, 1.0}


def test_labels_and_masks_go_together(masked):
    [batch] = take(masked, 1, label="auto", subjects=masked.subjects, crop=SHAPE, masks=True)
    rows = np.argsort(batch["subject"])
    assert batch["anonymised"][rows].sum(axis=(1, 2, 3)).tolist() == [4 * 20 * 28, 0, 4 * 20 * 28, 0]
    assert batch["label"].max() == 3
    [plain] = take(masked, 1, label="auto", subjects=masked.subjects, crop=SHAPE)
    assert "anonymised" not in plain


def test_nothing_is_learnt_from_a_crop_that_cannot_be_read(masked, monkeypatch):
    [place] = places(masked, 3, 1)

    def broken(*_):
        raise FileError("damaged.")

    monkeypatch.setattr(masked, "fetch", broken)
    with pytest.warns(UserWarning, match="damaged"):
        batch = ReadBatch(masked, None, CROP, "zscore", "skip", masks=True).map([place])
    assert batch["anonymised"].all()


def test_batches_of_a_training_without_labels_have_masks(masked, tmp_path):
    config = recipe(masked, label="", **{"data.val_split": "", "data.crop": CROP, "data.batch_size": 4})
    data = TrainingData.open(config, str(tmp_path))
    stream = data.batches(config, 0)
    assert next(stream)["anonymised"].shape == (4, *CROP)
    stream.close()


@pytest.mark.parametrize("name", augment.SPATIAL)
def test_a_mask_moves_with_its_image(name):
    """As the label map does whose ids 0 and 255 are the mask; what comes from outside counts as anonymised."""
    rng = np.random.default_rng(0)
    altered = jnp.asarray(rng.random((2, 24, 24, 4)) < 0.3)
    image = jnp.asarray(rng.normal(size=(2, 24, 24, 4, 1)), jnp.float32)
    label = jnp.where(altered, IGNORE, 0).astype(jnp.uint8)
    change = jax.jit(augment.compose(functools.partial(augment.AUGMENTATIONS[name], probability=1.0)))
    both = change(jax.random.key(3), {"image": image, "anonymised": altered, "label": label})
    alone = change(jax.random.key(3), {"image": image, "anonymised": altered})
    assert both["anonymised"].dtype == bool and not np.array_equal(both["anonymised"], altered)
    np.testing.assert_array_equal(both["anonymised"], both["label"] != 0)
    np.testing.assert_array_equal(alone["anonymised"], both["anonymised"])
    np.testing.assert_allclose(alone["image"], both["image"], atol=1e-6)
    assert set(alone) == {"image", "anonymised"}


@pytest.mark.parametrize("seed", range(3))
def test_mirroring_an_image_of_its_mask(seed):
    altered = jnp.zeros((1, 6, 6, 6), bool).at[0, 0, 1, 2].set(True)
    batch = {"image": altered[..., None].astype(jnp.float32), "anonymised": altered}
    found = augment.compose("mirror")(jax.random.key(seed), batch)
    np.testing.assert_array_equal(found["image"][..., 0] != 0, found["anonymised"])
