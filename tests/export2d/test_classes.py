"""Which label becomes which class: the data set's names, our ids or those of a file, and what has none is refused."""

import numpy as np
import pytest

from ukbob_jax import anatomy, files
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.export2d import classes
from ukbob_jax.export2d.classes import Class
from ukbob_jax.export2d.options import Export2dOptions

OURS = {i: name for i, name in anatomy.NAMES.items() if i not in (0, anatomy.UNUSED)}


def test_our_taxonomy_gives_the_ids():
    found = classes.table(OURS, {1, 72}, "auto", Export2dOptions())
    assert len(found) == 71 and found[5] == Class("liver", "0005")
    lookup = classes.lookup(found)
    assert lookup[[0, 1, 20, 72, 255]].tolist() == [0, 1, 0, 72, 0] and np.count_nonzero(lookup) == 71


def test_names_of_a_data_set_find_our_ids_and_those_of_a_file(tmp_path):
    named = {1: "Liver", 2: "kidney_right", 3: "edema"}
    found = classes.table(named, {1, 2}, "manual", Export2dOptions())
    assert found == {1: Class("Liver", "0005"), 2: Class("kidney_right", "0002")}
    with pytest.raises(ConfigError, match="class 'edema' of label set 'manual' has no class id"):
        classes.table(named, {1, 2, 3}, "manual", Export2dOptions())
    path = str(tmp_path / "ids.json")
    files.write_json(path, {"Liver": "0100", "kidney_right": "0101", "edema": "0007"})
    found = classes.table(named, {1, 2, 3}, "manual", Export2dOptions(mapping=path))
    assert [of.four for of in found.values()] == ["0100", "0101", "0007"]
    chosen = Export2dOptions(classes=("Liver",))
    assert classes.table(named, {1, 2, 3}, "manual", chosen) == {1: Class("Liver", "0005")}


def test_what_has_no_id_or_name_is_refused():
    with pytest.raises(ConfigError, match="id 20 of label set 'auto' has no class id"):
        classes.table(OURS, {20}, "auto", Export2dOptions())
    with pytest.raises(ConfigError, match=r"ids 1 and 2 of label set 'auto' are both class 0005 \('liver'\)"):
        classes.table({1: "Liver", 2: "liver"}, {1}, "auto", Export2dOptions())


@pytest.mark.parametrize("names", [("lung-left", "lung left"), ("心臓", "肝臓")])
def test_classes_with_masks_of_the_same_names_are_refused(tmp_path, names):
    """Style demo writes letters and digits alone: the second mask would replace the first."""
    named, path = dict(enumerate(names, 1)), str(tmp_path / "ids.json")
    files.write_json(path, {name: f"{i:04d}" for i, name in named.items()})
    assert len(classes.table(named, {1, 2}, "auto", Export2dOptions(mapping=path))) == 2  # by their ids
    with pytest.raises(
        ConfigError, match=f"'{names[0]}' and '{names[1]}' .* of the same names in style demo"
    ):
        classes.table(named, {1, 2}, "auto", Export2dOptions(mapping=path, style="demo"))
    one = Export2dOptions(mapping=path, style="demo", classes=names[:1])
    assert list(classes.table(named, {1, 2}, "auto", one)) == [1]


@pytest.mark.parametrize(
    "option",
    [{"merge_pixels": np.nan}, {"merge_pixels": np.inf}, {"intensity": "window", "window": (0, np.inf)}],
)
def test_rules_are_finite(option):
    with pytest.raises(ConfigError, match=list(option)[-1]):
        Export2dOptions(**option)


@pytest.mark.parametrize(
    "content, said",
    [
        ({"liver": 3}, "class 'liver' has the id 3; it must be a string of four digits"),
        ({"liver": "0003", "heart": "0003"}, "classes 'liver' and 'heart' share the id 0003"),
        (["liver"], "must hold one JSON object"),
    ],
)
def test_a_mapping_file_is_checked(tmp_path, content, said):
    files.write_json(tmp_path / "ids.json", content)
    with pytest.raises(FileError, match=said):
        classes.read_mapping(str(tmp_path / "ids.json"))
