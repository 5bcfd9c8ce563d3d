"""A model folder as labeller of a store: scans side by side give the labels of scans one by one."""

import dataclasses
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import ukbob_jax as bob
from configs import label as recipe
from tests.conftest import ROOT
from tests.inference.nnunet import test_plans, tiny
from ukbob_jax import anatomy, files
from ukbob_jax.errors import ConfigError, FileError, SomeFailed
from ukbob_jax.inference.adaptation.etta import etta
from ukbob_jax.inference.nnunet import merge, recipes
from ukbob_jax.inference.nnunet.model import NnunetModel
from ukbob_jax.inference.windows import sliding
from ukbob_jax.jobs import label
from ukbob_jax.labelling import merge as merging
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.training import sharding
from ukbob_jax.volumes.volume import Volume

pytestmark = pytest.mark.usefixtures("quick_compilation")
CONTRASTS = ("in_phase", "water", "fat")
AFFINE = np.array([[1.0, 0, 0, 5], [0, 2.0, 0, -7], [0, 0, 1.0, 3], [0, 0, 0, 1]])
SHAPES = {"s0": (20, 12, 18), "s1": (24, 20, 30), "s2": (14, 9, 17), "s3": (20, 12, 18)}
LIVER = anatomy.IDS["liver"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.folder(tmp_path_factory.mktemp("model"), folds=("0", "1"), change=tiny.narrow, by_torch=False)


@pytest.fixture
def store(tmp_path) -> Store:
    with StoreWriter(tmp_path / "store") as writer:
        for number, (subject, shape) in enumerate(SHAPES.items()):
            image = np.random.default_rng(number).integers(-3, 8, (*shape, 3)).astype(np.int16)
            writer.write(
                subject, image, AFFINE, {}, source=subject, contrasts=CONTRASTS, attributes={"sex": "F"}
            )
    return Store.open(tmp_path / "store")


@pytest.fixture
def config(store, model):
    def change(**fields):
        made = recipe.get_config("nnunet")
        made.store = store.path
        for section in ("mesh", "etta"):
            made[section].update(fields.pop(section, {"data": 1} if section == "mesh" else {}))
        made.labeller.update({"model": str(model), "contrasts": ("water",), "mirror": False} | fields)
        return made.copy_and_resolve_references()

    return change


def labels(store, name="auto") -> dict[str, np.ndarray]:
    found = Store.open(store.path)
    return {subject: found.read(subject, f"label/{name}") for subject in found.subjects}


def image(store, subject, contrast=1) -> Volume:
    return Volume(store.read(subject, "image")[..., contrast], AFFINE)


def expected(store, folder, orientation="RAS", contrast=1, mirror=False) -> dict[str, np.ndarray]:
    """One scan at a time, on one device."""
    loaded = bob.nnunet.load(folder) if not isinstance(folder, NnunetModel) else folder
    found = {}
    for subject in store.subjects:
        turned = image(store, subject, contrast).reorient(orientation)
        found[subject] = loaded.predict(turned, mirror).to_ras().array * LIVER
    return found


def same(one, other) -> None:
    assert one.keys() == other.keys()
    for subject in one:
        np.testing.assert_array_equal(one[subject], other[subject])


@pytest.mark.parametrize(
    ("devices", "batch", "workers", "mirror"), [(1, 1, 1, True), (1, 3, 3, False), (4, 2, 0, True)]
)
def test_scans_side_by_side_get_the_labels_of_scans_one_by_one(
    store, config, model, tmp_path, capsys, devices, batch, workers, mirror
):
    made = config(mesh={"data": devices}, batch=batch, workers=workers, mirror=mirror)
    label.run(made, str(tmp_path))
    found = labels(store)
    assert all(set(np.unique(one)) == {0, LIVER} for one in found.values())
    same(found, expected(store, model, mirror=mirror))
    said = re.search(
        r"label: (\d+) tiles in (\d+) batches over (\d) devices, (\d+) %", capsys.readouterr().err
    )
    tiles, batches, over, share = map(int, said.groups())
    places = batches * devices * batch
    assert over == devices and share == round(100 * tiles / places)
    assert places - tiles < 2 * devices * batch  # some are empty only where no other tile is left


def test_the_network_on_several_devices_exchanges_nothing(model):
    mesh = sharding.make_mesh(data=4, batch_size=4, devices=jax.devices()[:4])
    loaded, split = bob.nnunet.load(model), sharding.batch_sharding(mesh)
    apply = sliding.ModuleApply(loaded.network)
    x = jax.ShapeDtypeStruct((4, 4, 16, 16, 1), np.float32, sharding=split)
    total = jax.ShapeDtypeStruct((4, 4, 16, 16, 2), np.float32, sharding=split)
    whole = sharding.replicated(mesh)
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=whole), loaded.members[0])
    flags = jax.ShapeDtypeStruct((3,), np.bool_)
    compiled = merge.add_view.lower(apply, (1, 2, 3), like, x, flags, total).compile()
    assert not re.findall(r"all-(?:reduce|gather|to-all)|collective|reduce-scatter", compiled.as_text())
    assert compiled.output_shardings.is_equivalent_to(split, 5)


def test_etta_fits_each_scan_by_itself_and_says_what_it_did(store, config, model, tmp_path, capsys):
    with StoreWriter(store.path) as writer:
        for subject in ("s1", "s2"):  # of other buckets, each of which compiles a program
            writer.drop(subject)
    store = Store.open(store.path)
    options = {"steps": 2, "learning_rate": 0.05}
    made = config(method="etta", etta=options, mesh={"data": 2}, batch=2, folds="0", name="adapted")
    label.run(made, str(tmp_path))
    found, source = labels(store, "adapted"), bob.nnunet.load(model, folds="0")
    before = jax.tree.map(np.array, source.members[0])
    changed = 0
    for subject, row in Store.open(store.path).rows.items():
        array, _ = source.preprocess(image(store, subject))
        alone = etta(source.network, before["params"], np.moveaxis(array, 0, -1), roi=(4, 16, 16), **options)
        adapted = dataclasses.replace(source, members=({"params": alone.params},))
        wanted = adapted.predict(image(store, subject), mirror=False).array * LIVER
        np.testing.assert_array_equal(found[subject], wanted)
        changed += (wanted != source.predict(image(store, subject), mirror=False).array * LIVER).any()
        [facts] = row.provenance["adapted"]["adaptation"]
        assert facts["accepted"] and facts["entropy_after"] < facts["entropy_before"]
        np.testing.assert_allclose(
            [facts["entropy_before"], facts["entropy_after"]],
            [alone.entropy_before, alone.entropy_after],
            rtol=1e-5,
        )
    assert changed  # the labels say that something was adapted
    assert re.search(r"etta: mean entropy .* \(off\) -> .*, used in 2 of 2 scans", capsys.readouterr().err)


def test_contrasts_are_labelled_by_themselves_and_merged(store, config, model, tmp_path):
    each = [expected(store, model, contrast=c) for c in range(3)]
    for kind, merged in (("vote", merging.vote), ("first", merging.first)):
        label.run(config(contrasts=CONTRASTS, merge=kind, name=kind), str(tmp_path))
        found = labels(store, kind)
        same(found, {s: merged([maps[s] for maps in each]) for s in found})


def test_a_model_of_several_channels_gets_contrasts_by_name_else_as_the_recipe_orders_them(
    store, config, tmp_path
):
    def two(channels):
        def change(found):
            tiny.narrow(found)
            chosen = found["configurations"]["3d_fullres"]
            chosen |= {"normalization_schemes": ["ZScoreNormalization"] * 2, "use_mask_for_norm": [False] * 2}

        dataset = {**test_plans.DATASET, "channel_names": dict(enumerate(channels))}
        place = tmp_path / "-".join(channels)
        return tiny.folder(place, change=change, dataset=dataset, by_torch=False)

    named, unnamed = two(("Fat", "IN PHASE")), two(("a", "b"))
    for folder, contrasts, order in (
        (named, (), (2, 0)),
        (named, ("in_phase", "fat"), (2, 0)),
        (unnamed, ("water", "fat"), (1, 2)),
    ):
        label.run(config(model=str(folder), contrasts=contrasts), str(tmp_path))
        loaded = bob.nnunet.load(folder)
        scan = [image(store, "s0", c) for c in order]
        np.testing.assert_array_equal(labels(store)["s0"], loaded.predict(scan, False).array * LIVER)
        provenance = Store.open(store.path).rows["s0"].provenance["auto"]
        assert provenance["contrasts"] == [CONTRASTS[c] for c in order]
    with pytest.raises(ConfigError, match=r"takes 2 together \(a, b\), and none is chosen"):
        label.run(config(model=str(unnamed), contrasts=()), str(tmp_path))


def test_a_model_gets_the_orientation_that_recipe_or_folder_name(store, config, model, tmp_path):
    default, turned = expected(store, model), expected(store, model, "LPS")
    assert any((default[subject] != turned[subject]).any() for subject in turned)
    label.run(config(orientation="LPS", name="recipe"), str(tmp_path))
    same(labels(store, "recipe"), turned)
    copy = tmp_path / model.name
    shutil.copytree(model, copy)
    files.write_json(copy / "dataset.json", {**test_plans.DATASET, "orientation": ["L", "P", "S"]})
    label.run(config(model=str(copy), name="folder"), str(tmp_path))
    same(labels(store, "folder"), turned)
    assert Store.open(store.path).rows["s0"].provenance["folder"]["orientation"] == "LPS"


def test_a_presets_models_share_the_devices_and_its_label_set_maps_its_ids(store, config, tmp_path):
    parts = recipes.find("totalsegmentator_mr").parts
    for part in parts:
        tiny.dataset_folder(
            tmp_path / "weights", part.dataset, [part.names[i] for i in sorted(part.names) if i]
        )
    made = {"preset": "totalsegmentator_mr", "model": str(tmp_path / "weights"), "mesh": {"data": 2}}
    label.run(config(**made), str(tmp_path))
    preset = bob.nnunet.preset("totalsegmentator_mr", tmp_path / "weights")
    lookup = anatomy.from_dataset("totalsegmentator_mr").lut
    same(labels(store), {s: lookup[preset(image(store, s)).array] for s in store.subjects})
    said = Store.open(store.path).rows["s0"].provenance["auto"]["model"]
    assert said["preset"] == "totalsegmentator_mr" and len(said["parts"]) == len(parts) == 2
    with pytest.raises(ConfigError, match=r"labeller.orientation: the preset totalsegmentator_mr knows it"):
        label.run(config(**made, orientation="LPS"), str(tmp_path))


def test_what_decides_labels_labels_anew_and_what_does_not_does_not(
    store, config, model, tmp_path, monkeypatch
):
    run, scans = NnunetModel.segment, []
    monkeypatch.setattr(NnunetModel, "segment", lambda *args, **more: scans.append(1) or run(*args, **more))

    def labelled(**fields) -> int:
        scans.clear()
        label.run(config(**fields), str(tmp_path))
        return len(scans)

    assert labelled() == 4
    assert labelled() == labelled(batch=2, mesh={"data": 2}, workers=1) == 0
    for fields in ({"folds": "0"}, {"step_size": 0.9}, {"mirror": True}, {"version": "2"}):
        assert labelled(**fields) == 4
    for kind in ("vote", "first"):
        assert labelled(contrasts=("fat", "water"), merge=kind) == 8
    assert labelled(merge="first") == 4 and labelled(merge="vote") == 0  # of one contrast: nothing to merge
    other = tiny.folder(tmp_path, folds=("0",), change=tiny.narrow, by_torch=False)
    assert labelled(model=str(other), mirror=True) == 4
    shutil.copy(model / "fold_1" / "checkpoint_final.pth", other / "fold_0")
    assert labelled(model=str(other), mirror=True) == 4  # other weights under the same names


def test_a_job_that_ends_early_goes_on(store, config, model, tmp_path, monkeypatch):
    write, begun, done = StoreWriter.write_label, [], []

    def interrupted(self, subject, *args):
        begun.append(subject)
        if len(begun) > 2:
            raise KeyboardInterrupt
        write(self, subject, *args)
        done.append(subject)

    monkeypatch.setattr(StoreWriter, "write_label", interrupted)
    with pytest.raises(KeyboardInterrupt):
        label.run(config(batch=2, workers=3), str(tmp_path))
    before = Store.open(store.path)
    assert sum("auto" in row.labels for row in before.rows.values()) == 2
    monkeypatch.setattr(StoreWriter, "write_label", write)
    label.run(config(batch=2, workers=3), str(tmp_path))
    same(labels(store), expected(store, model))
    after = Store.open(store.path)
    assert all(after.rows[subject].version == before.rows[subject].version for subject in done)


def test_a_scan_that_fails_is_listed_and_the_others_are_labelled(store, config, tmp_path):
    def colours(found):
        tiny.narrow(found)
        found["configurations"]["3d_fullres"]["normalization_schemes"] = ["RGBTo01Normalization"]

    with StoreWriter(store.path) as writer:
        for subject, low in (("s1", -1), ("s3", 0)):
            array = np.random.default_rng(0).integers(low, 9, (20, 12, 18, 3)).astype(np.int16)
            writer.write(subject, array, AFFINE, {}, source=subject, contrasts=CONTRASTS)
        writer.drop("s0")
        writer.drop("s2")
    folder = tiny.folder(tmp_path, change=colours, by_torch=False)
    with pytest.raises(SomeFailed, match="1 of 2 subjects failed"):
        label.run(config(model=str(folder), batch=2), str(tmp_path))
    [row] = files.read_jsonl(tmp_path / "failures.jsonl")
    assert row["subject"] == "s1" and "takes colours from 0 to 255" in row["reason"]
    assert "auto" in Store.open(store.path).rows["s3"].labels


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": ""}, "labeller.model is empty"),
        ({"preset": "magic"}, "preset 'magic' is not known"),
        ({"speed": "fast"}, "goes with labeller.preset"),
        ({"folds": "7"}, r"fold_7: no checkpoint_final\.pth"),
        ({"step_size": 2.0}, "step_size 2.0 must be"),
        ({"batch": -1}, "labeller.batch=-1"),
        ({"workers": -1}, "labeller.workers=-1"),
        ({"orientation": "RAX"}, "labeller.orientation='RAX'"),
        ({"method": "bn"}, "take off or etta"),
        ({"merge": "magic"}, "vote, first, rules"),
        ({"labels": "btcv"}, "but .* in this preset's model"),
        ({"contrasts": ()}, "choose from in_phase, water, fat"),
        ({"mesh": {"space": 2}}, "leave it 1"),
        ({"mesh": {"data": 99}}, "does not fit"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_in_one_line(config, tmp_path, fields, words):
    with pytest.raises((ConfigError, FileError, ValueError), match=words) as raised:
        label.run(config(**fields), str(tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_the_command_stops_at_once_and_the_same_command_goes_on(store, model, tmp_path):
    with StoreWriter(store.path) as writer:
        for number in range(20):
            array = np.random.default_rng(number).integers(-3, 8, (40, 24, 40, 3)).astype(np.int16)
            writer.write(f"t{number:02}", array, AFFINE, {}, source=str(number), contrasts=CONTRASTS)
    words = [
        sys.executable, "-m", "ukbob_jax.main", "--config=configs/label.py:nnunet", f"--workdir={tmp_path / 'w'}",
        f"--config.store={store.path}", f"--config.labeller.model={model}", '--config.labeller.contrasts=("water",)',
        "--config.labeller.folds=0", "--config.mesh.data=2",
    ]  # fmt: skip

    def labelled() -> list[str]:
        return [s for s, row in Store.open(store.path).rows.items() if "auto" in row.labels]

    job = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not labelled():
        assert job.poll() is None, job.stderr.read()
        time.sleep(0.1)
    job.send_signal(signal.SIGTERM)
    _, told = job.communicate(timeout=60)
    assert job.returncode == 75 and "asked to stop" in told and "over 2 devices" in told
    done = labelled()
    assert 0 < len(done) < 24
    again = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"label: {24 - len(done)}/{24 - len(done)} scan" in again.stderr and len(labelled()) == 24


@pytest.mark.slow
def test_labels_in_the_store_are_nnunets_own(reference, tmp_path):
    """Through a store in RAS, in batches of two on two devices; nnU-Net with float32 sums labelled the file."""
    run = reference / "nnunet_networks" / "runs" / "mr_plain"
    image = bob.read_volume(run / "inputs" / "torso_0000.nii.gz")
    expected = bob.read_volume(run / "expected" / "torso_notta_fp32.nii.gz", kind="label")
    turned = image.to_ras()
    with StoreWriter(tmp_path / "store") as writer:
        writer.write("torso", turned.array[..., None], turned.affine, {}, source="", contrasts=("MR",))
    (tmp_path / "table.csv").write_text("".join(f"{i}, {i}\n" for i in range(1, 6)))
    made = recipe.get_config("nnunet")  # the model's orientation, LPS, is in its dataset.json
    made.store, made.mesh.data = str(tmp_path / "store"), 2
    fields = {"model": str(next((run / "model").iterdir())), "label_table": str(tmp_path / "table.csv")}
    made.labeller.update({**fields, "mirror": False, "batch": 2})
    label.run(made.copy_and_resolve_references(), str(tmp_path))
    found = Volume(Store.open(made.store).read("torso", "label/auto"), turned.affine)
    np.testing.assert_array_equal(found.reorient(image.orientation).array, expected.array)
