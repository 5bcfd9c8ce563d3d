import pytest

from ukbob_jax import sources
from ukbob_jax.errors import ConfigError

SOURCE = {"kind": "phantom", "count": 3, "shape": (32, 24, 64), "seed": 0}


def test_the_kind_names_the_module_that_lists():
    found = sources.list_subjects(SOURCE)
    assert [one.subject for one in found] == ["phantom-00000", "phantom-00001", "phantom-00002"]
    assert SOURCE["kind"] == "phantom"  # the settings of the caller stay as they are


def test_unknown_kinds_and_fields_are_refused_with_what_is_expected():
    with pytest.raises(
        ConfigError, match=r"config\.source\.kind is 'dicom'; expected one of dwi, files, openmind, phantom"
    ):
        sources.list_subjects({**SOURCE, "kind": "dicom"})
    with pytest.raises(ConfigError, match=r"kind is None"):
        sources.list_subjects({})
    with pytest.raises(ConfigError, match=r"unexpected keyword argument 'size' \(kind 'phantom' takes count"):
        sources.list_subjects({**SOURCE, "size": 3})
    with pytest.raises(ConfigError, match=r"missing a required .*argument: 'count'"):
        sources.list_subjects({"kind": "phantom", "shape": (1, 1, 1), "seed": 0})
