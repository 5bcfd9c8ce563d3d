"""Images and masks in SA-Med2D-20M's layout become subjects of one slice, with the pixels and classes they had."""

import json

import ml_collections
import numpy as np
import pytest
from PIL import Image

from configs import export2d as recipe
from ukbob_jax import files, settings
from ukbob_jax.errors import ConfigError, EmptyError, SomeFailed
from ukbob_jax.jobs import export2d, ingest
from ukbob_jax.sources import sa_med2d
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter

SHAPE = (20, 16, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export of two subjects along z."""
    root = tmp_path_factory.mktemp("sa_med2d")
    rng = np.random.default_rng(0)
    with StoreWriter(root / "first") as writer:
        for seed in range(2):
            labels = np.zeros(SHAPE, np.uint8)
            labels[2:9, 3:9], labels[12:17, 4:13] = 5, 1
            image = rng.integers(0, 400, (*SHAPE, 1)).astype(np.int16)
            image[0, 0], image[0, 1] = 0, 255  # grey values are those of the scan
            image = image.clip(0, 255)
            writer.write(
                f"s{seed}", image, np.eye(4), {"manual": labels}, source=str(seed), contrasts=("t1",)
            )
    fields = {"store": str(root / "first"), "label": "manual", "workers": 1, "export2d.axes": ("z",)}
    config = settings.resolve(settings.with_fields(recipe.get_config(), fields), root)
    export2d.run(config, str(root))
    return root


def ingested(root, store, workdir, **changes):
    workdir.mkdir(exist_ok=True)
    source = {"kind": "sa_med2d", "root": str(root), **changes}
    ingest.run(ml_collections.ConfigDict({"source": source, "store": str(store), "workers": 1}), str(workdir))
    return Store.open(store)


def test_an_export_comes_back_slice_by_slice(folder, tmp_path):
    first = Store.open(folder / "first")
    second = ingested(folder / "export2d", tmp_path / "store", tmp_path / "w", splits={"val": 1})
    assert len(second.subjects) == 6
    for name in second.subjects:
        _, _, case, place = name.split("--")
        z = int(place[2:])
        np.testing.assert_array_equal(
            second.read(name, "image")[..., 0, :], first.read(case, "image")[..., z, :]
        )
        np.testing.assert_array_equal(
            second.read(name, "label/manual")[..., 0], first.read(case, "label/manual")[..., z]
        )
        row = second.rows[name]
        assert (row.owner, row.modality) == (f"UKBOB--{case}", "MR")
        assert row.label_names["manual"][5] == "liver"
    assert len({second.rows[name].owner for name in second.split("val")}) == 1
    assert len(second.split("val")) == 3


def test_what_is_wrong_is_told_and_left_out(folder, tmp_path):
    root = tmp_path / "copy"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    stem = "ct_00--Set--a.b--z_0000"
    pixels = np.random.default_rng(1).integers(0, 255, (16, 20, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(root / f"images/{stem}.png")
    Image.fromarray(np.where(pixels[..., 0] > 99, 255, 0).astype(np.uint8)).save(
        root / "images/ct_00--Set--b--z_0000.png"
    )
    first, second = np.zeros((2, 16, 20), np.uint8)
    first[2:9, 2:9], second[6:14, 6:14] = 255, 1
    for four, mask in (("0003", first), ("0004", second), ("0005", 255 - first)):
        Image.fromarray(mask).save(root / f"masks/{stem}--{four}_000.png")
    Image.fromarray(first).save(root / "masks/ct_00--Set--b--z_0000--0003_000.png")
    table = {
        f"images/{stem}.png": [f"masks/{stem}--000{i}_000.png" for i in (3, 4, 5)],
        "images/ct_00--Set--b--z_0000.png": ["masks/ct_00--Set--b--z_0000--0003_000.png"],
    }
    files.write_json(root / "SAMed2D_v1.json", table)
    files.write_json(root / "SAMed2D_v1_class_mapping_id.json", {"a": "0003", "b": "0004", "c": "0005"})
    failing = pytest.raises(SomeFailed, match="has two values only: it is a mask")
    with pytest.warns(UserWarning, match="covers all of the border"), failing:
        ingested(root, tmp_path / "store", tmp_path / "w")
    store = Store.open(tmp_path / "store")
    [name] = store.subjects
    labels = store.read(name, "label/manual")[..., 0][::-1, ::-1].T
    wanted = np.where(first > 0, 3, 0) + np.where(second > 0, 4, 0)
    np.testing.assert_array_equal(labels, np.where(wanted == 7, 255, wanted))
    assert store.rows[name].contrasts == ("red", "green", "blue")
    np.testing.assert_array_equal(store.read(name, "image")[::-1, ::-1, 0].transpose(1, 0, 2), pixels)
    assert "covers all of the border: it is inverted (refused)" in json.dumps(store.rows[name].quality)


def test_a_part_is_chosen(folder):
    assert len(sa_med2d.list_subjects(root=str(folder / "export2d"), codes=("mr_t1",))) == 6
    with pytest.raises(EmptyError, match="no image of data sets"):
        sa_med2d.list_subjects(root=str(folder / "export2d"), datasets=("BraTS",))
    with pytest.raises(ConfigError, match=r"config\.source\.spacing_mm \(1\.0,\)"):
        sa_med2d.list_subjects(root=str(folder / "export2d"), spacing_mm=(1.0,))
