"""Ids beyond 255 are mapped by a table, or refused by the file they are in."""

import argparse

import nibabel as nib
import numpy as np
import pytest

from ukbob_jax.commands import check
from ukbob_jax.errors import ConfigError, FileError, ValuesError
from ukbob_jax.sources import files
from ukbob_jax.volumes import label_table

CSV = "source,target,name\n1035,1,left insula\n2035,2,right insula\n"
QUOTED = '"source","target","name"\n"1035","1","left insula"\n"2035","2","right, insula"\n'
SEMICOLONS = 'source;target;name\n1035; 1; "left insula"\n2035; 2; "right insula"\n'
LUT = "# FreeSurfer\n1035 1 left insula\n2035 2 right insula\n"
JSON = '{"1035": [1, "left insula"], "2035": [2, "right insula"]}'


@pytest.mark.parametrize(
    "name, text", [("a.csv", CSV), ("b.csv", QUOTED), ("c.csv", SEMICOLONS), ("a.txt", LUT), ("a.json", JSON)]
)
def test_tables_of_each_kind_say_the_same(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    table = label_table.read(tmp_path / name)
    assert table.targets == {1035: 1, 2035: 2} and table.names == {1: "left insula", 2: "right insula"}
    found = table.apply(np.array([[0, 1035], [2035, 0]], np.uint16), "x")
    assert found.dtype == np.uint8 and found.tolist() == [[0, 1], [2, 0]]
    with pytest.raises(ValuesError, match=r"^x: label ids 7 \(1 voxels\) are not in the table"):
        table.apply(np.array([7]), "x")


@pytest.mark.parametrize(
    "text, message",
    [
        ("1 300", "1 -> 300"),
        ("1 2\n1 3", "two rows"),
        ("1", "a row is not"),
        ("a 5", "a row"),
        ("a b", "no row"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(text, message, tmp_path):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ConfigError, match=message):
        label_table.read(tmp_path / "a.txt")


def test_255_is_a_structure_of_freesurfer_unless_the_table_says_ignore(tmp_path):
    (tmp_path / "a.txt").write_text(LUT)
    with pytest.raises(ValuesError, match=r"255 \(2 voxels\) .* for each, `255, 255` if 255 means not annot"):
        label_table.read(tmp_path / "a.txt").apply(np.array([0, 255, 255]), "x")
    (tmp_path / "a.txt").write_text(LUT + "255 255\n")
    assert label_table.read(tmp_path / "a.txt").apply(np.array([0, 255]), "x").tolist() == [0, 255]


def test_sources_of_one_target_join_their_names(tmp_path):
    (tmp_path / "a.csv").write_text("2,1,left kidney\n3,1,right kidney\n4,1,left kidney\n5,1\n")
    assert label_table.read(tmp_path / "a.csv").names == {1: "left kidney + right kidney"}


def test_large_ids_are_refused_by_file_or_mapped(tmp_path, capsys):
    image = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    label = np.where(image > 30, 1035, np.where(image > 20, 2035, 0)).astype(np.int32)
    for kind, array in (("images", image), ("labels", label)):
        (tmp_path / kind).mkdir()
        nib.Nifti1Image(array, np.eye(4)).to_filename(tmp_path / kind / "p0.nii.gz")
    paths = {"images": str(tmp_path / "images"), "labels": str(tmp_path / "labels")}
    message = r'labels/p0\.nii\.gz: label ids 1035, 2035; a store holds .* label_table="FILE"'
    (source,) = files.list_subjects(layout="folders", paths=paths)
    with pytest.raises(ValuesError, match=message):
        source.read()
    parser = argparse.ArgumentParser()
    check.add_options(parser)
    options = parser.parse_args([str(paths["images"]), "--labels", str(paths["labels"])])
    with pytest.raises(FileError):
        check.run(options)
    assert "labels/p0.nii.gz: label ids 1035, 2035; a store holds" in capsys.readouterr().out
    (tmp_path / "table.csv").write_text(CSV)
    (source,) = files.list_subjects(layout="folders", paths=paths, label_table=str(tmp_path / "table.csv"))
    stored = source.convert(source.read())
    np.testing.assert_array_equal(stored["labels"]["manual"], np.choose(label // 1000, [0, 1, 2]))
    assert stored["description"].label_names == {"manual": {1: "left insula", 2: "right insula"}}


def test_what_the_data_set_ignores_needs_no_row(tmp_path):
    for kind in ("imagesTr", "labelsTr"):
        (tmp_path / kind).mkdir()
    image = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    label = np.where(image > 30, 255, np.where(image > 20, 3, 0)).astype(np.uint8)
    nib.Nifti1Image(image, np.eye(4)).to_filename(tmp_path / "imagesTr/a_0000.nii.gz")
    nib.Nifti1Image(label, np.eye(4)).to_filename(tmp_path / "labelsTr/a.nii.gz")
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "ignore": 3}}')
    (tmp_path / "table.txt").write_text("255 1 optic chiasm\n")
    table = str(tmp_path / "table.txt")
    (source,) = files.list_subjects(layout="nnunet", paths={"root": str(tmp_path)}, label_table=table)
    values = source.convert(source.read())
    assert not any("ids 3" in told for told in values["quality"].get("doubts", ()))
    stored = values["labels"]["manual"]
    np.testing.assert_array_equal(stored, np.where(label == 255, 1, np.where(label == 3, 255, 0)))
