import dataclasses
import json
import pathlib

import numpy as np
import pytest

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError, FileError, MismatchError, ValuesError
from ukbob_jax.sources import files
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.scan import Scan
from ukbob_jax.volumes.volume import Volume


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    for name in "abc":
        write_volume(
            tmp_path / "i" / f"{name}.nii.gz", Volume(rng.integers(1, 99, (4, 5, 6)).astype(np.int16), affine)
        )
        write_volume(
            tmp_path / "l" / f"{name}.nii.gz", Volume(rng.integers(0, 3, (4, 5, 6)).astype(np.uint8), affine)
        )
    return tmp_path


def listed(folder, **changes) -> list[files.Files]:
    paths = {"images": str(folder / "i"), "labels": str(folder / "l")}
    return files.list_subjects(**{"layout": "folders", "paths": paths, **changes})


def test_subjects_get_their_files_and_a_split(folder):
    found = listed(folder, splits={"val": 1}, seed=1)
    assert [one.subject for one in found] == ["a", "b", "c"]
    assert sorted(one.split for one in found) == ["train", "train", "val"]
    assert found[0].files() == [str(folder / kind / "a.nii.gz") for kind in "il"]


def test_a_scan_is_stored_in_ras(folder):
    one = listed(folder)[0]
    stored = one.convert(one.read())
    assert stored["image"].shape == (4, 5, 6, 1) and stored["labels"]["manual"].dtype == np.uint8
    assert (np.diag(stored["affine"]) > 0).all() and stored["annotated"] is None


@pytest.mark.parametrize(
    "changes",
    [{"spacing_mm": (2.0, 2.0, 2.0)}, {"num_classes": 9}, {"contrasts": ("t1",)}, {"nan": "zero"}, {"assume_ras": True},
     {"constant": "accept"}, {"label_map": "btcv"}, {"mask_value": 255}, {"crop": True}, {"order": 3}],
)  # fmt: skip
def test_every_setting_changes_the_checksum(folder, changes):
    before, after = listed(folder)[0], listed(folder, **changes)[0]
    assert before.checksum() == listed(folder)[0].checksum() != after.checksum()


def test_bytes_and_split_change_the_checksum(folder):
    one = listed(folder)[0]
    before = one.checksum()
    assert dataclasses.replace(one, split="val").checksum() != before
    path = pathlib.Path(one.files()[1])
    path.write_bytes(path.read_bytes() + b"\0")
    assert one.checksum() != before


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"nan": "keep"}, r"nan is 'keep'; expected refuse or zero"),
        ({"constant": "drop"}, r"constant is 'drop'; expected refuse or accept"),
        ({"spacing_mm": (1.0, 1.0)}, "three positive numbers"),
        ({"spacing_mm": (1.0, 1.0, float("inf"))}, "three positive numbers"),
        ({"order": 2}, "order is 2; expected 1 or 3"),
        ({"label_map": "somewhere"}, "somewhere"),
        ({"person": "(a"}, r"person='\(a' is no regular expression"),
        ({"person": "a|b"}, "has 0 groups; put brackets around the person"),
        ({"person": "x(.)"}, "finds no person in any of 3 subjects, such as a, b, c"),
        ({"layout": "dicom"}, "'dicom' is not known"),
    ],
)
def test_settings_are_refused_before_a_file_is_read(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        listed(folder, **changes)


def test_a_channel_that_shows_nothing_is_named():
    image = np.random.default_rng(0).normal(size=(3, 3, 3, 2))
    paths = (pathlib.Path("a.nii"), pathlib.Path("b.nii"))
    files.check_varies(image, paths, ())
    image[..., 1] = 7
    with pytest.raises(
        ValuesError, match=r"^b\.nii: channel 1 \(fat\) is 7 in every voxel.*constant=.accept"
    ):
        files.check_varies(image, paths, ("water", "fat"))
    with pytest.raises(ValuesError, match=r"^a\.nii: channel 1 is 7"):
        files.check_varies(image, paths[:1], ())


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, example B.1
    assert files.file_digest(str(tmp_path / "a")) == sha
    with pytest.raises(FileError, match="b: cannot be read: No such file"):
        files.file_digest(str(tmp_path / "b"))


def test_ids_count_as_annotated_where_every_label_set_was_looked_at():
    volume = Volume(np.zeros((2, 2, 2, 1), np.int16), np.eye(4))
    for sets, expected in (
        ({"a": None, "b": None}, None),
        ({"a": (3, 1), "b": None}, [1, 3]),
        ({"a": (3, 1), "b": (3, 4)}, [3]),
    ):
        assert files.annotated(Scan(volume, {}, sets)) == expected


def write_label(path, values):
    label = np.resize(np.array(values, np.uint8), (4, 5, 6))
    write_volume(path, Volume(label, np.diag([-2.0, 2.0, 3.0, 1.0])))


@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_ignore_label_of_a_data_set_is_no_class(folder, num_classes):
    (folder / "i").rename(folder / "imagesTr")
    (folder / "l").rename(folder / "labelsTr")
    for name in "abc":
        (folder / "imagesTr" / f"{name}.nii.gz").rename(folder / "imagesTr" / f"{name}_0000.nii.gz")
        write_label(folder / "labelsTr" / f"{name}.nii.gz", [0, 1, 2, 3])
    labels = {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": labels}))
    one = files.list_subjects(layout="nnunet", paths={"root": str(folder)}, num_classes=num_classes)[0]
    stored = one.convert(one.read())
    assert np.unique(stored["labels"]["manual"]).tolist() == [0, 1, 2, 255]
    assert stored["description"].label_names == {"manual": {0: "background", 1: "liver", 2: "spleen"}}
    assert (stored["description"].modality, stored["description"].units) == ("CT", "HU")


def test_a_mask_of_255_is_a_structure_where_the_recipe_says_so(folder):
    write_label(folder / "l" / "a.nii.gz", [0, 255])
    for value, expected in ((0, [0, 255]), (255, [0, 1])):
        one = listed(folder, mask_value=value, num_classes=2)[0]
        assert np.unique(one.convert(one.read())["labels"]["manual"]).tolist() == expected
    write_label(folder / "l" / "a.nii.gz", [0, 1, 255])
    with pytest.raises(ValuesError, match=r"a\.nii\.gz: values \[1\] in a mask of mask_value=255"):
        listed(folder, mask_value=255)[0].read()
    with pytest.raises(ConfigError, match="mask_value is 256"):
        listed(folder, mask_value=256)


def test_the_sessions_of_a_person_share_a_split(tmp_path):
    for person in range(4):
        for session in ("a", "b"):
            key = f"sub-{person}_ses-{session}"
            write_label(tmp_path / f"sub-{person}" / f"ses-{session}" / "anat" / f"{key}_T1w.nii.gz", [0, 1])
    found = files.list_subjects(layout="bids", paths={"root": str(tmp_path)}, splits={"val": 2})
    split_of = {(one.case.person, one.split) for one in found}
    assert sorted(split for _, split in split_of) == ["train", "train", "val", "val"] and len(found) == 8


def test_the_discs_of_totalsegmentator_are_read_and_what_a_mac_leaves_beside_files_is_not(tmp_path):
    for name in ("vertebrae", "intervertebral_discs"):
        label = np.zeros((4, 5, 6), np.uint8)
        label[:2] = name == "vertebrae"
        label[3] = name == "intervertebral_discs"
        write_volume(
            tmp_path / "s1" / "segmentations" / f"{name}.nii.gz", Volume(label, np.diag([2.0, 2, 3, 1]))
        )
        (tmp_path / "s1" / "segmentations" / f"._{name}.nii.gz").write_bytes(b"\0\5\x16\7")
    image = tmp_path / "s1" / "mri.nii.gz"
    write_volume(image, Volume(np.resize(np.arange(7, dtype=np.int16), (4, 5, 6)), np.diag([2.0, 2, 3, 1])))
    [one] = files.list_subjects(
        layout="organ_masks", paths={"root": str(tmp_path)}, label_map="totalsegmentator_mr"
    )
    assert [pathlib.Path(path).name for path in one.files()] == [
        "mri.nii.gz", "intervertebral_discs.nii.gz", "vertebrae.nii.gz",
    ]  # fmt: skip
    stored = one.convert(one.read())
    discs = next(i for i, name in anatomy.NAMES.items() if name == "IVD")
    assert (stored["labels"]["manual"] == discs).sum() == 30 and discs in stored["annotated"]


def test_a_pattern_takes_the_person_from_the_subject(folder):
    for n, name in enumerate(("p1_L", "p1_R", "p2_L")):
        (folder / "i" / f"{'abc'[n]}.nii.gz").rename(folder / "i" / f"{name}.nii.gz")
        (folder / "l" / f"{'abc'[n]}.nii.gz").rename(folder / "l" / f"{name}.nii.gz")
    found = listed(folder, person="(.+)_[LR]", splits={"val": 1})
    assert [one.case.person for one in found] == ["p1", "p1", "p2"] and found[0].split == found[1].split
    assert found[0].convert(found[0].read())["person"] == "p1"
    plain = listed(folder, splits={"val": 1})[0]
    assert dataclasses.replace(plain, split=found[0].split).checksum() != found[0].checksum()
    with pytest.warns(UserWarning, match=r"finds no person in 1 of 3 subjects: p1_R"):
        assert [one.case.person for one in listed(folder, person="(.+)_L")] == ["p1", "", "p2"]


def test_a_person_in_two_splits_of_the_data_set_is_told(tmp_path):
    entries = {}
    for name, split in (("p1_L", "training"), ("p1_R", "validation")):
        write_label(tmp_path / f"{name}.nii.gz", [0, 1])
        entries[split] = [{"image": f"{name}.nii.gz", "label": f"{name}.nii.gz"}]
    (tmp_path / "dataset.json").write_text(json.dumps(entries))
    of = {"layout": "decathlon", "paths": {"root": str(tmp_path), "modality": ""}}
    assert len(files.list_subjects(**of)) == 2
    with pytest.warns(UserWarning, match="1 persons are in several splits of the data set: p1"):
        files.list_subjects(**of, person="(.+)_[LR]")


def named(path, names):
    label = np.resize(np.arange(3, dtype=np.uint8), (4, 5, 6))
    write_volume(path, Volume(label, np.diag([-2.0, 2.0, 3.0, 1.0])), names)


def test_names_in_the_headers_of_label_maps_are_carried_where_they_agree(folder):
    before = listed(folder)[2].checksum()
    named(folder / "l" / "a.nii.gz", {1: "liver", 2: "spleen"})
    named(folder / "l" / "b.nii.gz", {1: "Liver"})
    names = [one.convert(one.read())["description"].label_names for one in listed(folder)]
    assert names == [{"manual": {1: "liver", 2: "spleen"}}, {"manual": {1: "Liver"}}, {}]
    assert listed(folder)[2].checksum() == before
    named(folder / "l" / "c.nii.gz", {2: "pancreas"})
    with pytest.warns(
        UserWarning, match=r"'manual': id 2 is 'spleen' in a and 'pancreas' in c\. Names .* left out"
    ):
        assert [one.names_in_files for one in listed(folder)] == [{}, {}, {}]
    assert [one.names_in_files for one in listed(folder, label_map="btcv")] == [{}, {}, {}]
    named(folder / "l" / "c.nii.gz", {2: "spleen "})
    [masked] = [one for one in listed(folder, mask_value=2) if one.subject == "a"]
    write_label(folder / "l" / "a.nii.gz", [0, 2])
    assert masked.convert(masked.read())["description"].label_names == {"manual": {1: "spleen"}}


def test_names_that_contradict_the_data_set_are_told(tmp_path):
    named(tmp_path / "l.nii.gz", {1: "spleen"})
    write_label(tmp_path / "i.nii.gz", range(9))
    entries = [{"image": "i.nii.gz", "label": "l.nii.gz"}]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"1": "liver"}, "training": entries}))
    with pytest.warns(UserWarning, match="id 1 is 'liver' in the data set and 'spleen' in i"):
        [one] = files.list_subjects(layout="decathlon", paths={"root": str(tmp_path)})
    assert one.convert(one.read())["description"].label_names == {"manual": {1: "liver"}}


def test_segments_of_slicer_are_read_with_their_names_and_filled_to_the_image(tmp_path):
    pytest.importorskip("SimpleITK")
    write_label(tmp_path / "i" / "a.nii.gz", range(9))
    part = Volume(np.ones((2, 5, 6), np.uint8), np.diag([-2.0, 2.0, 3.0, 1.0]))
    (tmp_path / "l").mkdir()
    write_volume(tmp_path / "l" / "a.seg.nrrd", part, {1: "liver"})
    [one] = listed(tmp_path)
    stored = one.convert(one.read())
    assert stored["labels"]["manual"].shape == (4, 5, 6) and stored["labels"]["manual"].sum() == 60
    assert stored["description"].label_names == {"manual": {1: "liver"}}


def test_a_subject_without_its_files_fails_alone(folder):
    (folder / "l" / "b.nii.gz").unlink()
    found = listed(folder, splits={"val": 1})
    assert [one.subject for one in found] == list("abc") and sorted(one.split for one in found) == [
        "",
        "train",
        "val",
    ]
    with pytest.raises(MismatchError, match=r"b\.nii\.gz: it has no label map"):
        found[1].checksum()
    assert found[0].read().labels and found[2].read().labels


def test_a_diffusion_series_has_the_gradient_of_each_volume(tmp_path):
    series = np.random.default_rng(0).integers(1, 99, (4, 5, 6, 3)).astype(np.int16)
    path = tmp_path / "sub-1" / "dwi" / "sub-1_dwi.nii.gz"
    write_volume(path, Volume(series, np.diag([-2.0, 2.0, 3.0, 1.0])))
    path.with_name("sub-1_dwi.bval").write_text("0 700 1000")
    path.with_name("sub-1_dwi.bvec").write_text("0 1 0\n0 0 0\n0 0 1\n")
    (tmp_path / "participants.tsv").write_text("participant_id\tsex\nsub-1\tF\n")
    paths = {"root": str(tmp_path), "contrasts": "dwi"}
    [one] = files.list_subjects(layout="bids", paths=paths)
    with StoreWriter(tmp_path / "store") as writer:
        writer.write(one.subject, source=one.checksum(), **one.convert(one.read()))
    row = Store.open(tmp_path / "store").rows["sub-1"]
    assert [(c.name, c.b_s_mm2, c.direction) for c in row.channels] == [
        ("0", 0.0, None), ("1", 700.0, (-1.0, 0.0, 0.0)), ("2", 1000.0, (0.0, 0.0, 1.0)),
    ]  # fmt: skip
    assert row.attributes == {"sex": "F"} and [pathlib.Path(p).suffix for p in one.files()][1:] == [
        ".bval",
        ".bvec",
    ]
    before = one.checksum()
    path.with_name("sub-1_dwi.bval").write_text("0 700 2000")
    assert one.checksum() != before
    path.with_name("sub-1_dwi.bval").write_text("0 700")
    with pytest.raises(MismatchError, match=r"sub-1_dwi\.bval: 2 gradients, but its image has 3 volumes"):
        one.convert(one.read())
