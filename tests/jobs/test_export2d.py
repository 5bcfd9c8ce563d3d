"""A store as images and masks: valid for the reference's checker, the same after a kill, and back to the store's labels."""

import hashlib
import json
import pathlib
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from configs import export2d as recipes
from tests import tiny_sentinel
from tests.conftest import ROOT
from ukbob_jax import anatomy, cluster, export2d, files, settings
from ukbob_jax.errors import ConfigError, FileError, SomeFailed
from ukbob_jax.export2d import restore, writing
from ukbob_jax.jobs import export2d as job
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter

SHAPE = (32, 24, 40)
LOOSE = {"export2d.min_area": 0.0, "export2d.aspect": 0.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("export2d") / "store"
    tiny_sentinel.write_store(path, subjects=2, held_out=1, shape=SHAPE)
    return path


def recipe(store, workdir, variant="sa_med2d", **changes):
    config = recipes.get_config(variant)
    fields = {
        "store": str(store),
        "label": "manual",
        "workers": 1,
        "export2d.contrasts": ("water",),
        **changes,
    }
    return settings.resolve(settings.with_fields(config, fields), pathlib.Path(workdir))


def run(store, workdir, variant="sa_med2d", **changes):
    workdir.mkdir(exist_ok=True)
    job.run(recipe(store, workdir, variant, **changes), str(workdir))
    return workdir / "export2d"


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def exported(store, tmp_path_factory):
    return run(store, tmp_path_factory.mktemp("whole"))


@pytest.mark.reference
@pytest.mark.parametrize(
    "variant, changes",
    [
        ("sa_med2d", {"export2d.contrasts": ("fat", "water"), "export2d.axes": ("z",)}),
        ("sa_med2d", {"export2d.pixels": "isotropic", "export2d.intensity": "slice"}),
        ("demo", {"export2d.intensity": "window", "export2d.window": (10.0, 300.0), "export2d.axes": ("y",)}),
    ],
)
def test_the_reference_finds_no_error(store, tmp_path, reference, variant, changes):
    folder = run(
        store, tmp_path, variant, **{"export2d.test_split": "val"} if variant == "demo" else {}, **changes
    )
    command = [
        sys.executable,
        str(reference / "export2d/validate_export.py"),
        str(folder),
        "--style",
        variant,
    ]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.stdout.splitlines()[-1].startswith("0 errors") and not told.returncode, told.stdout[-2000:]
    assert all(
        " modality " in line for line in told.stdout.splitlines()[:-1]
    )  # of Dixon, which the set has not
    assert len(list((folder / "masks").iterdir())) > 200


def test_tables_list_every_file_once(exported):
    table, counts = (files.read_json(exported / name) for name in ("SAMed2D_v1.json", "export2d.json"))
    masks = [mask for found in table.values() for mask in found]
    assert sorted(table) == sorted(f"images/{p.name}" for p in (exported / "images").iterdir())
    assert sorted(masks) == sorted(f"masks/{p.name}" for p in (exported / "masks").iterdir())
    assert (counts["subjects"], counts["images"], counts["masks"]) == (3, len(table), len(masks))
    ids = files.read_json(exported / "SAMed2D_v1_class_mapping_id.json")
    assert ids["liver"] == f"{anatomy.IDS['liver']:04d}" and len(ids) == 71 and "unused" not in ids
    of_liver = [row["liver"]["masks"] for row in counts["counts"]["mr_water"].values()]
    assert sum(of_liver) == sum(f"--{ids['liver']}_" in mask for mask in masks) > 0


def test_pixels_are_those_of_the_store(store, exported):
    opened = Store.open(store)
    image, labels = opened.read("p1", "image")[..., 1].astype(np.float64), opened.read("p1", "label/manual")
    low, high = image.min(), image.max()
    table = files.read_json(exported / "SAMed2D_v1.json")
    seen = 0
    for name, masks in table.items():
        _, _, case, place = name.removeprefix("images/").removesuffix(".png").split("--")
        if case == "p1" and place.startswith("z_") and int(place[2:]) % 9 == 0:
            found = np.array(Image.open(exported / name))
            shown = image[::-1, ::-1, int(place[2:])].T
            np.testing.assert_allclose(found, 255 * (shown - low) / (high - low), atol=0.501)
            for mask in masks:
                organ = int(mask.removesuffix(".png")[-8:-4])
                assert (
                    labels[::-1, ::-1, int(place[2:])].T[np.array(Image.open(exported / mask)) > 0] == organ
                ).all()
                seen += 1
    assert seen > 20


def test_channels_are_read_as_the_store_reads_them(tmp_path):
    """Some are whole numbers, some are stored with a slope, some as float32."""
    rng = np.random.default_rng(0)
    image = rng.normal(0, 300, (12, 10, 9, 3)).astype(np.float32)
    images = {"whole": np.rint(image), "scaled": image, "wide": np.exp(image / 20)}
    with StoreWriter(tmp_path / "store") as writer:
        for name, values in images.items():
            labels = np.ones(image.shape[:3], np.uint8)
            writer.write(name, values.astype(np.float32), np.eye(4), {"manual": labels}, source=name)
    store = Store.open(tmp_path / "store")
    assert len({(row.dtype, row.slope is None) for row in store.rows.values()}) == 3
    for name in images:
        found = writing.read_channels(store, name, [2, 0])
        np.testing.assert_array_equal(np.moveaxis(found, 0, -1), store.read(name, "image")[..., [2, 0]])


@pytest.mark.parametrize("pixels", ["raw", "isotropic"])
@pytest.mark.parametrize("axes", [("x",), ("x", "y", "z")])
def test_masks_become_the_label_map_again(store, tmp_path, pixels, axes):
    folder = run(store, tmp_path, **LOOSE, **{"export2d.axes": axes, "export2d.pixels": pixels})
    found = restore.label_map(folder, "p0")
    wanted = Store.open(store).read("p0", "label/manual")
    assert found.lost == 0
    np.testing.assert_array_equal(found.labels, wanted)
    np.testing.assert_array_equal(found.affine, np.array(Store.open(store).rows["p0"].affine))


def test_what_was_left_out_is_counted_on_the_way_back(store, exported):
    found, wanted = restore.label_map(exported, "p0"), Store.open(store).read("p0", "label/manual")
    np.testing.assert_array_equal(found.labels[found.labels > 0], wanted[found.labels > 0])
    assert found.lost == np.count_nonzero(wanted) - np.count_nonzero(found.labels)
    alone = restore.label_map(exported, "p0", ("z",))
    assert alone.lost >= found.lost and alone.lost > 0


def test_a_killed_export_goes_on_and_ends_the_same(store, exported, tmp_path, monkeypatch):
    put, written = writing._put, []

    def stop(path, data):
        if len(written) == 700:
            raise KeyboardInterrupt
        put(path, data[: len(data) // 2] if len(written) == 699 else data)  # the last one cut off
        written.append(path)

    monkeypatch.setattr(writing, "_put", stop)
    with pytest.raises(KeyboardInterrupt):
        run(store, tmp_path)
    monkeypatch.undo()
    assert list((tmp_path / "export2d/subjects").glob("*.begun"))
    assert digests(run(store, tmp_path)) == digests(exported)


def test_shares_write_what_one_process_writes(store, exported, tmp_path):
    for process in (1, 0):
        run(store, tmp_path, **{"export2d.process": process, "export2d.processes": 2})
        assert not (tmp_path / "export2d/SAMed2D_v1.json").exists()
    assert digests(run(store, tmp_path)) == digests(exported)


def test_dask_is_given_the_subjects(store, exported, tmp_path, monkeypatch):
    given = []

    def each(function, tasks, address, workers):
        given.append((tuple(tasks), address))
        for task in tasks:  # by another process: what is sent must pickle
            yield task, pickle.loads(pickle.dumps(function))(task)

    monkeypatch.setattr(cluster, "each", each)
    assert digests(run(store, tmp_path, cluster="tcp://10.0.0.1:8786")) == digests(exported)
    assert given == [(("p0", "p1", "p2"), "tcp://10.0.0.1:8786")]


@pytest.mark.slow
def test_processes_that_are_killed_leave_nothing_wrong(store, exported, tmp_path):
    out = tmp_path / "export2d"
    command = [
        *(sys.executable, "-m", "ukbob_jax.main", "--config=configs/export2d.py", f"--workdir={tmp_path}"),
        *(f"--config.store={store}", "--config.label=manual", "--config.workers=2"),
        "--config.export2d.contrasts=('water',)",
    ]
    for files_there in (100, 900, 1800):
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and len(list(out.glob("masks/*"))) < files_there:
                time.sleep(0.005)
            process.kill()
        time.sleep(1)  # its workers end by themselves
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert digests(out) == digests(exported)


def test_what_is_there_is_not_written_again(store, tmp_path, monkeypatch):
    folder = run(store, tmp_path, **{"export2d.axes": ("z",)})
    before = digests(folder)
    monkeypatch.setattr(writing, "_put", lambda *_: pytest.fail("written again"))
    assert digests(run(store, tmp_path, **{"export2d.axes": ("z",)})) == before


def test_a_changed_label_map_leaves_no_old_mask(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 99, (16, 16, 3, 1)).astype(np.int16)

    def write(labels, *subjects):
        with StoreWriter(tmp_path / "store") as writer:
            for name in subjects:
                writer.write(
                    name, image, np.eye(4), {"manual": labels}, source=str(labels.sum()), contrasts=("t1",)
                )

    labels = np.zeros((16, 16, 3), np.uint8)
    labels[2:9, 2:9], labels[11:14, 11:14, 1] = 5, 1
    write(labels, "a", "a-1")
    changes = {"export2d.contrasts": (), "export2d.axes": ("z",)}
    run(tmp_path / "store", tmp_path / "w", **changes)
    labels = labels.copy()
    labels[labels == 1] = 0
    write(labels, "a")
    folder = run(tmp_path / "store", tmp_path / "w", **changes)
    masks = sorted(path.name for path in (folder / "masks").iterdir())
    assert [m for m in masks if "--a--" in m] == [
        f"mr_t1--UKBOB--a--z_000{i}--0005_000.png" for i in range(3)
    ]
    assert len([m for m in masks if "--a-1--" in m]) == 4


@pytest.mark.parametrize(
    "changes, error, said",
    [
        (
            {"export2d.dataset": "UK--BOB"},
            ConfigError,
            "config.export2d.dataset 'UK--BOB': parts of a file's name",
        ),
        ({"label": "none"}, ConfigError, "no subject has a label set 'none'"),
        ({"export2d.codes": ("water=mrt",)}, ConfigError, "config.export2d.codes: 'mrt' is no modality code"),
        ({"export2d.codes": ("water",)}, ConfigError, "'water'; write contrast=code"),
        ({"export2d.contrasts": ("blood",)}, ConfigError, "not ['blood']"),
        (
            {"export2d.contrasts": ("fat", "water"), "export2d.codes": ("fat=mr_water",)},
            ConfigError,
            "each needs one of",
        ),
        (
            {"export2d.classes": ("soul",)},
            ConfigError,
            "config.export2d.classes: label set 'manual' has no class 'soul'",
        ),
        ({"export2d.axes": ("x", "x")}, ConfigError, "config.export2d.axes"),
        ({"export2d.intensity": "window"}, ConfigError, "config.export2d.window"),
        ({"export2d.min_area": 2.0}, ConfigError, "both are shares"),
        ({"export2d.mapping": "nowhere.json"}, FileError, "nowhere.json: no such file"),
        ({"export2d.style": "sam"}, ConfigError, "choose one of sa_med2d, demo"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_line(store, tmp_path, changes, error, said):
    with pytest.raises(error) as told:
        run(store, tmp_path, **changes)
    assert said in str(told.value) and "\n" not in str(told.value)
    assert not (tmp_path / "export2d").exists()


def test_a_class_needs_an_id(store, tmp_path):
    (tmp_path / "ids.json").write_text(json.dumps({"liver": "0003"}))
    changes = {"export2d.mapping": str(tmp_path / "ids.json"), "export2d.axes": ("z",)}
    with pytest.raises(ConfigError, match=r"class 'spleen' of label set 'manual' has no class id"):
        run(store, tmp_path / "a", **changes)
    folder = run(store, tmp_path / "b", **changes, **{"export2d.classes": ("liver",)})
    assert {path.name[-12:-8] for path in (folder / "masks").iterdir()} == {"0003"}
    assert files.read_json(folder / "SAMed2D_v1_class_mapping_id.json") == {"liver": "0003"}
    found = restore.label_map(folder, "p0")
    assert set(np.unique(found.labels)) == {0, anatomy.IDS["liver"]}


def test_a_folder_keeps_its_rules(store, tmp_path):
    run(store, tmp_path, **{"export2d.axes": ("z",), "export2d.classes": ("liver",)})
    with pytest.raises(ConfigError, match=r"was exported with axes=\['z'\], now \['x'\]"):
        run(store, tmp_path, **{"export2d.axes": ("x",), "export2d.classes": ("liver",)})
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").touch()
    with pytest.raises(ConfigError, match="not empty, and no export"):
        run(store, tmp_path, **{"export2d.output": str(tmp_path / "other")})


def test_a_subject_whose_name_cannot_be_written_fails_alone(tmp_path):
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "store") as writer:
        for name in ("a--b", "c"):
            labels = np.pad(np.full((6, 6, 6), 5, np.uint8), 3)
            image = rng.integers(0, 99, (12, 12, 12, 1)).astype(np.int16)
            writer.write(name, image, np.eye(4), {"manual": labels}, source=name, contrasts=("t1",))
    with pytest.raises(SomeFailed, match=r"1 of 2 subjects failed.*'a--b': parts of a file's name"):
        run(tmp_path / "store", tmp_path / "w", **{"export2d.contrasts": ()})
    table = files.read_json(tmp_path / "w/export2d/SAMed2D_v1.json")
    assert table and all("--c--" in name for name in table)


def test_the_papers_count_and_ours():
    """51,761 x 72 x 368 = 1.3715e9, the paper's 1.37 billion; two scans show 30 masks that are not empty."""
    row = {"nonempty_slices": 20, "masks": 16}
    counts = {"mr_water": {"z": {"liver": row, "spleen": {"nonempty_slices": 10, "masks": 9}}}}
    found = export2d.cohort_counts({"subjects": 2, "slices": {"z": {"slices": 2 * 368}}, "counts": counts})
    assert found == (1_371_459_456, 51_761 * 15, round(51_761 * 12.5))
    with pytest.raises(ConfigError, match="no subject has slices along 'x'"):
        export2d.cohort_counts({"subjects": 2, "slices": {}, "counts": counts}, axis="x")


def test_counts_of_an_export_scale_to_the_cohort(exported, store):
    manifest = files.read_json(exported / "export2d.json")
    found = export2d.cohort_counts(manifest, scans=3)
    opened = Store.open(store)
    maps = [opened.read(name, "label/manual") for name in opened.subjects]
    shown = sum(len(np.unique(labels[..., z])) - 1 for labels in maps for z in range(SHAPE[2]))
    assert found[:2] == (3 * 72 * SHAPE[2], shown)
    assert found.masks == sum("--z_" in mask.name for mask in (exported / "masks").iterdir())
